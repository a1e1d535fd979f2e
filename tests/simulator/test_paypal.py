"""PayPal's far side over real HTTP, with a client that knows its documentation and nothing of the simulator."""

import base64
import json
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key, Payment
from simulator.kit.asgi import Response
from simulator.paypal.channel import RESEND_GAPS_S
from tests.simulator.conftest import Channel, Receiver, StoppedClock, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"


class Client:
    """The requests of a merchant's server."""

    def __init__(self, http: httpx.AsyncClient, opened: dict[str, Any]) -> None:
        self.http = http
        self.url: str = opened["base_url"]
        self.merchant_id: str = opened["merchant_id"]
        self.credentials: dict[str, Any] = opened["credentials"]
        self.token = ""

    async def new_token(self, **credentials: str) -> httpx.Response:
        known = self.credentials | credentials
        response = await self.http.post(
            f"{self.url}/v1/oauth2/token",
            auth=(known["client_id"], known["client_secret"]),
            data={"grant_type": "client_credentials"},
        )
        self.token = response.json().get("access_token", "")
        return response

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        sent_headers = {
            "authorization": f"Bearer {self.token}",
            **{name.replace("_", "-"): headers[name] for name in headers},
        }
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.request(method, self.url + path, content=content, headers=sent_headers)

    async def create(self, number: str = NUMBER, value: str = "88.88", currency: str = "USD") -> httpx.Response:
        unit = {
            "amount": {"currency_code": currency, "value": value},
            "custom_id": number,
            "invoice_id": number,
            "description": "Tea, 250 g",
        }
        source = {"paypal": {"experience_context": {"return_url": "https://shop.example/done"}}}
        body = {"intent": "CAPTURE", "purchase_units": [unit], "payment_source": source}
        return await self.send(
            "POST", "/v2/checkout/orders", body, paypal_request_id=number, prefer="return=representation"
        )

    async def order(self, id_: str) -> dict[str, Any]:
        response = await self.send("GET", f"/v2/checkout/orders/{id_}")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    async def capture(self, id_: str, request_id: str = f"{NUMBER}-capture") -> httpx.Response:
        path = f"/v2/checkout/orders/{id_}/capture"
        return await self.send("POST", path, {}, paypal_request_id=request_id, prefer="return=representation")

    async def refund(self, capture_id: str, refund_no: str, value: str) -> httpx.Response:
        body = {"amount": {"currency_code": "USD", "value": value}, "invoice_id": refund_no}
        return await self.send("POST", f"/v2/payments/captures/{capture_id}/refund", body, paypal_request_id=refund_no)


class Shop:
    """A merchant with an account, and the buyer's hand on the ledger."""

    def __init__(self, channel: Channel, client: Client) -> None:
        self.channel = channel
        self.client = client

    @property
    def key(self) -> Key:
        return Key(self.client.merchant_id, NUMBER)

    async def approved(self) -> str:
        """The id of an order that its buyer has approved."""
        id_: str = (await self.client.create()).json()["id"]
        assert isinstance(self.channel.simulation.pay(self.key), Payment)
        return id_

    async def captured(self) -> tuple[str, str]:
        """The ids of an order and of its capture."""
        id_ = await self.approved()
        return id_, capture_of((await self.client.capture(id_)).json())["id"]


@pytest_asyncio.fixture(loop_scope="session")
async def shop(channel: Channel, receiver: Receiver) -> AsyncIterator[Shop]:
    body = {"name": "paypal-main", "channel": "paypal", "callback_url": receiver.url}
    opened = await channel.http.post(f"{channel.url}/control/accounts", json=body)
    assert opened.status_code == 200, opened.text
    client = Client(channel.http, opened.json())
    await client.new_token()
    receiver.response = lambda _: Response(status=200)
    yield Shop(channel, client)


def unit_of(order: dict[str, Any]) -> dict[str, Any]:
    (unit,) = order["purchase_units"]
    assert isinstance(unit, dict)
    return unit


def capture_of(order: dict[str, Any]) -> dict[str, Any]:
    (capture,) = unit_of(order)["payments"]["captures"]
    assert isinstance(capture, dict)
    return capture


def issue_of(response: httpx.Response) -> str:
    document = response.json()
    assert document["debug_id"]
    return str(document["details"][0]["issue"]) if document["details"] else str(document["name"])


async def test_an_account_is_opened_with_all_that_the_merchant_configures(shop: Shop) -> None:
    assert set(shop.client.credentials) == {
        "client_id",
        "client_secret",
        "webhook_id",
        "merchant_id",
        "ca_certificates",
    }
    assert len(shop.client.merchant_id) == 13


async def test_a_token_is_given_to_who_knows_the_secret(shop: Shop) -> None:
    response = await shop.client.new_token()
    assert (response.status_code, response.json()["token_type"]) == (200, "Bearer")
    assert response.json()["expires_in"] > 3600
    wrong = await shop.client.new_token(client_secret="E" + "0" * 40)
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")


async def test_unknown_ended_and_altered_tokens_are_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    good = shop.client.token
    altered = good[:-1] + ("0" if good[-1] != "0" else "1")
    for token in ("nobody", "A21AA.x.y.z", altered, good.replace("A21AA.P", "A21AA.Q")):
        shop.client.token = token
        assert (await shop.client.send("GET", "/v2/checkout/orders/X")).status_code == 401
    shop.client.token = good
    assert (await shop.client.send("GET", "/v2/checkout/orders/X")).status_code == 404
    monkeypatch.setattr(shop.channel.simulation, "now", lambda: datetime.now(UTC) + timedelta(hours=9, seconds=1))
    assert (await shop.client.send("GET", "/v2/checkout/orders/X")).status_code == 401


async def test_an_order_is_created_once_for_each_request_id(shop: Shop) -> None:
    first, again = await shop.client.create(), await shop.client.create()
    assert (first.status_code, again.status_code) == (201, 200)
    order = first.json()
    assert order["id"] == again.json()["id"] != NUMBER
    assert (order["status"], unit_of(order)["payee"]) == (
        "PAYER_ACTION_REQUIRED",
        {"merchant_id": shop.client.merchant_id},
    )
    (link,) = order["links"]
    assert (link["rel"], link["href"].startswith(f"{shop.channel.url}/pay/")) == ("payer-action", True)
    assert issue_of(await shop.client.create(value="88.89")) == "DUPLICATE_REQUEST_ID"


@pytest.mark.parametrize(
    ("value", "currency", "amount"),
    [("88.88", "USD", 8888), ("500", "JPY", 500), ("12", "HUF", 1200), ("1", "USD", 100)],
)
async def test_amounts_are_read_as_their_currency_has_them(shop: Shop, value: str, currency: str, amount: int) -> None:
    order = (await shop.client.create(value=value, currency=currency)).json()
    payment = shop.channel.simulation.ledger.find(shop.key, datetime.now(UTC))
    assert payment is not None
    assert (payment.terms.amount, payment.terms.currency) == (amount, currency)
    assert float(unit_of(order)["amount"]["value"]) == float(value)


@pytest.mark.parametrize(
    ("value", "currency"), [("500.00", "JPY"), ("12.50", "HUF"), ("1.005", "USD"), ("-1.00", "USD"), ("0.00", "USD")]
)
async def test_an_amount_that_its_currency_does_not_have_is_refused(shop: Shop, value: str, currency: str) -> None:
    assert issue_of(await shop.client.create(value=value, currency=currency)) == "DECIMALS_NOT_SUPPORTED"


async def test_pressing_pay_only_approves_and_the_money_is_taken_by_the_capture(shop: Shop) -> None:
    """Nobody captures by itself: an approved order that is left alone stays approved."""
    id_ = (await shop.client.create()).json()["id"]
    assert issue_of(await shop.client.capture(id_)) == "ORDER_NOT_APPROVED"
    shop.channel.simulation.pay(shop.key)
    assert (await shop.client.order(id_))["status"] == "APPROVED"
    assert (await shop.channel.payment(NUMBER)).status == "unpaid"
    captured = await shop.client.capture(id_)
    assert (captured.status_code, captured.json()["status"]) == (201, "COMPLETED")
    paid = await shop.channel.payment(NUMBER)
    assert (paid.status, paid.transaction_id) == ("paid", capture_of(captured.json())["id"])


async def test_the_same_capture_again_is_answered_as_before_and_another_one_comes_too_late(shop: Shop) -> None:
    id_ = await shop.approved()
    first, again = await shop.client.capture(id_), await shop.client.capture(id_)
    assert capture_of(first.json()) == capture_of(again.json())
    assert issue_of(await shop.client.capture(id_, "another-request")) == "ORDER_ALREADY_CAPTURED"


async def test_an_order_that_is_not_there_is_not_found(shop: Shop) -> None:
    for method, path in (("GET", "/v2/checkout/orders/5O190127TN364715T"), ("POST", "/v2/checkout/orders/X/capture")):
        response = await shop.client.send(method, path)
        assert (response.status_code, response.json()["name"]) == (404, "RESOURCE_NOT_FOUND")
    response = await shop.client.refund("2GG279541U471931P", "refund-1", "1.00")
    assert (response.status_code, response.json()["name"]) == (404, "RESOURCE_NOT_FOUND")


async def test_an_order_keeps_the_two_ids_that_its_merchant_gave_it(shop: Shop) -> None:
    unit = {
        "amount": {"currency_code": "USD", "value": "88.88"},
        "custom_id": '{"order_id":1001}',
        "invoice_id": "WC-1001",
    }
    body = {"intent": "CAPTURE", "purchase_units": [unit]}
    created = await shop.client.send("POST", "/v2/checkout/orders", body, paypal_request_id="1001")
    assert created.status_code == 201, created.text
    shop.channel.simulation.pay(Key(shop.client.merchant_id, "1001"))
    document = (await shop.client.capture(created.json()["id"], "capture-1001")).json()
    for named in (unit_of(document), capture_of(document)):
        assert (named["custom_id"], named["invoice_id"]) == ('{"order_id":1001}', "WC-1001")
    too_long = body | {"purchase_units": [unit | {"invoice_id": "x" * 128}]}
    refused = await shop.client.send("POST", "/v2/checkout/orders", too_long, paypal_request_id="1002")
    assert (refused.status_code, refused.json()["details"][0]["issue"]) == (400, "INVALID_STRING_LENGTH")


async def test_a_refund_is_made_once_for_each_number_and_is_in_its_order(shop: Shop) -> None:
    id_, capture_id = await shop.captured()
    for _ in range(2):
        response = await shop.client.refund(capture_id, "refund-1", "80.00")
        assert (response.status_code, response.json()["status"]) == (201, "COMPLETED")
    order = await shop.client.order(id_)
    assert capture_of(order)["status"] == "PARTIALLY_REFUNDED"
    (refund,) = unit_of(order)["payments"]["refunds"]
    assert (refund["invoice_id"], refund["amount"]["value"]) == ("refund-1", "80.00")
    assert issue_of(await shop.client.refund(capture_id, "refund-2", "8.89")) == "REFUND_AMOUNT_EXCEEDED"
    await shop.client.refund(capture_id, "refund-2", "8.88")
    assert capture_of(await shop.client.order(id_))["status"] == "REFUNDED"


# -- callbacks ---------------------------------------------------------------------------------------------------------


def is_signed(shop: Shop, headers: dict[str, str], body: bytes, certificate: x509.Certificate) -> bool:
    """As the documentation has it, with the unsigned checksum of the raw body."""
    names = ("paypal-transmission-id", "paypal-transmission-time")
    parts = [*(headers[name] for name in names), shop.client.credentials["webhook_id"], str(zlib.crc32(body))]
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.verify(
            base64.b64decode(headers["paypal-transmission-sig"]),
            "|".join(parts).encode(),
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
    except InvalidSignature:
        return False
    return True


async def fetched(shop: Shop, headers: dict[str, str]) -> x509.Certificate:
    """The certificate that the callback names; it has to be below the authority that the merchant was given."""
    assert headers["paypal-auth-algo"] == "SHA256withRSA"
    assert headers["paypal-cert-url"].startswith(f"{shop.client.url}/v1/notifications/certs/")
    response = await shop.client.http.get(headers["paypal-cert-url"])
    certificate = x509.load_pem_x509_certificate(response.content)
    (ca_pem,) = shop.client.credentials["ca_certificates"]
    ca_key = x509.load_pem_x509_certificate(ca_pem.encode()).public_key()
    assert isinstance(ca_key, ec.EllipticCurvePublicKey)
    ca_key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    return certificate


async def test_approval_and_money_are_called_back_about_signed_by_the_certificate_that_is_named(
    shop: Shop, receiver: Receiver
) -> None:
    await shop.captured()
    await until(lambda: len(receiver.requests) == 2)
    events = {body["event_type"]: body["resource"] for body in receiver.bodies()}
    assert events.keys() == {"CHECKOUT.ORDER.APPROVED", "PAYMENT.CAPTURE.COMPLETED"}, "in any order"
    assert unit_of(events["CHECKOUT.ORDER.APPROVED"])["custom_id"] == NUMBER
    capture = events["PAYMENT.CAPTURE.COMPLETED"]
    assert (capture["custom_id"], capture["amount"]) == (NUMBER, {"currency_code": "USD", "value": "88.88"})
    for _, request in receiver.requests:
        certificate = await fetched(shop, request.headers)
        (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        assert name.value == "messageverificationcerts.sandbox.paypal.com", "PayPal's own, which adapters check"
        assert is_signed(shop, request.headers, request.body, certificate)
        assert not is_signed(shop, request.headers, request.body + b" ", certificate)


async def test_a_resend_is_the_same_event_signed_anew(shop: Shop, receiver: Receiver) -> None:
    receiver.response = lambda _: Response(status=500 if len(receiver.requests) < 3 else 204)
    await shop.approved()
    await until(lambda: len(receiver.requests) == 3 and shop.channel.simulation.sender.under_way == 0)
    requests = [request for _, request in receiver.requests]
    assert len({request.body for request in requests}) == 1
    assert len({request.headers["paypal-transmission-id"] for request in requests}) == 3


async def test_resends_end_after_twenty_five_within_three_days() -> None:
    assert (len(RESEND_GAPS_S), sum(RESEND_GAPS_S)) == (25, 3 * 86_400)
    assert sorted(RESEND_GAPS_S) == list(RESEND_GAPS_S)


async def test_forgers_name_a_certificate_whose_key_they_have_not(shop: Shop, receiver: Receiver) -> None:
    await shop.channel.faults(forged=1)
    await shop.client.create()
    await until(lambda: len(receiver.requests) == 2)
    for _, request in receiver.requests:
        assert not is_signed(shop, request.headers, request.body, await fetched(shop, request.headers))


async def test_a_body_with_the_checksum_of_a_genuine_one_verifies(shop: Shop, receiver: Receiver) -> None:
    await shop.channel.faults(forged_checksum=1)
    await shop.client.create()
    await until(lambda: receiver.requests)
    ((_, request),) = receiver.requests
    assert is_signed(shop, request.headers, request.body, await fetched(shop, request.headers))
    claimed = json.loads(request.body)
    assert (claimed["event_type"], claimed["resource"]["status"]) == ("PAYMENT.CAPTURE.COMPLETED", "COMPLETED")


async def test_a_fresh_certificate_signs_and_the_one_before_is_still_served(shop: Shop, receiver: Receiver) -> None:
    await shop.approved()
    await until(lambda: receiver.requests)
    old = receiver.requests[0][1].headers
    rotated = await shop.channel.http.post(f"{shop.channel.url}/control/accounts/{shop.client.merchant_id}/rotate")
    assert rotated.json()["credentials"] == shop.client.credentials, "there is nothing for the merchant to change"
    await shop.client.capture((await shop.client.create()).json()["id"])
    await until(lambda: len(receiver.requests) == 2)
    new = receiver.requests[1][1]
    assert new.headers["paypal-cert-url"] != old["paypal-cert-url"]
    assert is_signed(shop, new.headers, new.body, await fetched(shop, new.headers))
    assert is_signed(shop, old, receiver.requests[0][1].body, await fetched(shop, old))


async def test_paypal_verifies_the_bytes_that_it_is_given(shop: Shop, receiver: Receiver) -> None:
    await shop.approved()
    await until(lambda: receiver.requests)
    request = receiver.requests[0][1]

    async def verification_status(event: bytes, **changed: str) -> str:
        fields = {
            "auth_algo": request.headers["paypal-auth-algo"],
            "cert_url": request.headers["paypal-cert-url"],
            "transmission_id": request.headers["paypal-transmission-id"],
            "transmission_sig": request.headers["paypal-transmission-sig"],
            "transmission_time": request.headers["paypal-transmission-time"],
            "webhook_id": shop.client.credentials["webhook_id"],
            **changed,
        }
        body = json.dumps(fields)[:-1].encode() + b',"webhook_event":' + event + b"}"
        response = await shop.client.send("POST", "/v1/notifications/verify-webhook-signature", body)
        return str(response.json()["verification_status"])

    assert await verification_status(request.body) == "SUCCESS"
    assert await verification_status(json.dumps(json.loads(request.body)).encode()) == "FAILURE"
    assert await verification_status(request.body, webhook_id="THEIRS") == "FAILURE"
    assert await verification_status(request.body, transmission_id="1") == "FAILURE"


# -- the report --------------------------------------------------------------------------------------------------------


async def report(shop: Shop, **changed: str) -> httpx.Response:
    today = shop.channel.simulation.now().date()
    span = {"start_date": f"{today}T00:00:00Z", "end_date": f"{today}T23:59:59Z", "page_size": "500", "page": "1"}
    query = "&".join(f"{name}={text}" for name, text in (span | changed).items())
    return await shop.client.send("GET", f"/v1/reporting/transactions?{query}")


async def test_the_report_tells_what_came_and_with_a_sign_what_went_back(
    shop: Shop, stopped_clock: StoppedClock
) -> None:
    _, capture_id = await shop.captured()
    await shop.client.refund(capture_id, "refund-1", "8.00")
    document = (await report(shop)).json()
    payment, refund = (one["transaction_info"] for one in document["transaction_details"])
    assert (payment["transaction_id"], payment["transaction_amount"]["value"]) == (capture_id, "88.88")
    assert (payment["custom_field"], payment["transaction_event_code"]) == (NUMBER, "T0006")
    assert (refund["paypal_reference_id"], refund["transaction_amount"]["value"]) == (capture_id, "-8.00")
    assert (refund["invoice_id"], refund["transaction_event_code"]) == ("refund-1", "T1107")
    assert payment["transaction_initiation_date"].endswith("+0000")


async def test_the_report_has_pages(shop: Shop, stopped_clock: StoppedClock) -> None:
    _, capture_id = await shop.captured()
    await shop.client.refund(capture_id, "refund-1", "8.00")
    pages = [(await report(shop, page_size="1", page=str(page))).json() for page in (1, 2, 3)]
    assert [len(page["transaction_details"]) for page in pages] == [1, 1, 0]
    assert {(page["total_items"], page["total_pages"]) for page in pages} == {(2, 2)}


@pytest.mark.parametrize("wrong", [{"page_size": "501"}, {"page": "0"}, {"start_date": "yesterday"}])
async def test_a_report_that_paypal_does_not_give_is_refused(shop: Shop, wrong: dict[str, str]) -> None:
    assert (await report(shop, **wrong)).status_code == 400


async def test_faults_strike_by_the_number_of_the_payment(shop: Shop) -> None:
    """The order is queried by another id."""
    id_ = await shop.approved()
    shop.channel.simulation.faults.force(NUMBER, AtFault(call="answered_5xx"))
    assert (await shop.client.send("GET", f"/v2/checkout/orders/{id_}")).status_code >= 500
    numbers = {arrival.number for arrival in shop.channel.simulation.traffic.since(0.0)}
    assert numbers <= {NUMBER, ""}


async def test_a_declined_capture_leaves_the_approval_and_another_card_pays(shop: Shop, receiver: Receiver) -> None:
    """Approving anew is an event of its own."""
    id_ = await shop.approved()
    await shop.channel.faults(capture_declined=1.0, capture_issue="CARD_EXPIRED")
    for _ in range(2):
        assert issue_of(await shop.client.capture(id_)) == "CARD_EXPIRED"
    assert (await shop.client.order(id_))["status"] == "APPROVED"
    await shop.channel.faults()
    assert isinstance(shop.channel.simulation.pay(shop.key), Payment)
    await until(lambda: len(receiver.bodies()) == 2)
    assert {event["event_type"] for event in receiver.bodies()} == {"CHECKOUT.ORDER.APPROVED"}
    assert len({event["id"] for event in receiver.bodies()}) == 2
    assert (await shop.client.capture(id_)).status_code == 201


async def test_an_order_that_nobody_approves_is_forgotten_after_three_hours(
    shop: Shop, stopped_clock: StoppedClock
) -> None:
    id_ = (await shop.client.create()).json()["id"]
    stopped_clock.forward(3 * 3600 - 1)
    await shop.client.new_token()
    assert (await shop.client.order(id_))["status"] == "PAYER_ACTION_REQUIRED"
    stopped_clock.forward(1)
    for method, path in (("GET", ""), ("POST", "/capture")):
        response = await shop.client.send(method, f"/v2/checkout/orders/{id_}{path}")
        assert (response.status_code, response.json()["name"]) == (404, "RESOURCE_NOT_FOUND")


async def test_an_approved_order_that_is_not_captured_is_void_after_three_hours(
    shop: Shop, stopped_clock: StoppedClock
) -> None:
    id_ = await shop.approved()
    stopped_clock.forward(3 * 3600)
    await shop.client.new_token()
    assert (await shop.client.order(id_))["status"] == "VOIDED"
