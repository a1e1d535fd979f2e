"""The simulated WeChat Pay over real HTTP, with a client that knows its documentation and nothing of the simulator."""

import base64
import csv
import gzip
import hashlib
import io
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from simulator.kernel.deliveries import Tally
from simulator.kernel.ledger import Key
from simulator.kernel.pay_page import Action
from simulator.kit.asgi import Response
from simulator.shoppers.browser import Browser
from tests.simulator.conftest import Channel, Receiver, StoppedClock, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = Response(status=204)
SEALED = "AEAD_AES_256_GCM"


class Client:
    """A merchant with the credentials that opening the account gave."""

    def __init__(self, channel: Channel, opened: dict[str, Any]) -> None:
        self.http = channel.http
        self.simulation = channel.simulation
        self.url: str = opened["base_url"]
        self.merchant_id: str = opened["merchant_id"]
        self.credentials: dict[str, Any] = opened["credentials"]
        key = serialization.load_pem_private_key(self.credentials["private_key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self.key = key

    def authorization(self, method: str, target: str, body: bytes, *, at: float | None = None) -> dict[str, str]:
        timestamp, nonce = str(int(time.time() if at is None else at)), "00112233445566778899aabbccddeeff"
        string = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        made = base64.b64encode(self.key.sign(string, padding.PKCS1v15(), SHA256())).decode()
        return {
            "mchid": self.merchant_id,
            "nonce_str": nonce,
            "signature": made,
            "timestamp": timestamp,
            "serial_no": self.credentials["merchant_serial"],
        }

    async def send(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        at: float | None = None,
        fields: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """`fields` replace some of the header's, `headers` some of the request's; an empty one is left out."""
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        parameters = {**self.authorization(method, target, raw, at=at), **(fields or {})}
        header = ",".join(f'{name}="{value}"' for name, value in parameters.items() if value)
        known = {
            "authorization": f"WECHATPAY2-SHA256-RSA2048 {header}",
            "accept": "application/json",
            "user-agent": "tests/1",
            **(headers or {}),
        }
        return await self.http.request(method, self.url + target, content=raw, headers=known)

    async def create(self, number: str, method: str = "native", **terms: Any) -> httpx.Response:
        return await self.send("POST", f"/v3/pay/transactions/{method}", self.order(number, **terms))

    def order(self, number: str, **terms: Any) -> dict[str, Any]:
        known = {
            "appid": self.credentials["appid"],
            "mchid": self.merchant_id,
            "description": "Tea, 250 g",
            "out_trade_no": number,
            "time_expire": "2038-01-19T11:14:07+08:00",
            "notify_url": "http://127.0.0.1:9/nobody",
            "amount": {"total": 8888, "currency": "CNY"},
        }
        return {name: value for name, value in {**known, **terms}.items() if value is not None}

    async def query(self, number: str, **more: Any) -> httpx.Response:
        return await self.send("GET", f"/v3/pay/transactions/out-trade-no/{number}?mchid={self.merchant_id}", **more)

    async def refund(self, number: str, refund_no: str, refund: int, **terms: Any) -> httpx.Response:
        amount = {"refund": refund, "total": 8888, "currency": "CNY"}
        body = {"out_trade_no": number, "out_refund_no": refund_no, "amount": amount, **terms}
        return await self.send("POST", "/v3/refund/domestic/refunds", body)

    async def pay(self, number: str) -> None:
        response = await self.http.post(f"{self.simulation.base_url}/control/payments/{number}/pay", json={})
        assert response.status_code == 200, response.text

    def tally(self, number: str) -> Tally:
        return self.simulation.sender.tally(Key(self.merchant_id, number))

    # -- what the channel signs ------------------------------------------------------------------------------------

    def keys(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            key_id: serialization.load_pem_public_key(pem.encode())
            for key_id, pem in self.credentials["public_keys"].items()
        }
        for pem in self.credentials["platform_certificates"]:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            found[f"{certificate.serial_number:040X}"] = certificate.public_key()
        return found

    def signer(self, headers: Mapping[str, str], body: bytes) -> str:
        """The serial under which it verifies; raises when it does not."""
        serial: str = headers["wechatpay-serial"]
        string = f"{headers['wechatpay-timestamp']}\n{headers['wechatpay-nonce']}\n".encode() + body + b"\n"
        signature = base64.b64decode(headers["wechatpay-signature"])
        self.keys()[serial].verify(signature, string, padding.PKCS1v15(), SHA256())
        assert abs(int(headers["wechatpay-timestamp"]) - time.time()) < 300
        return serial

    def unsealed(self, resource: dict[str, str]) -> bytes:
        assert resource["algorithm"] == SEALED
        ciphertext = base64.b64decode(resource["ciphertext"])
        associated = resource["associated_data"].encode()
        return AESGCM(self.credentials["apiv3_key"].encode()).decrypt(
            resource["nonce"].encode(), ciphertext, associated
        )


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which is never signed."""
    assert "wechatpay-signature" not in response.headers
    return response.status_code, response.json()["code"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def opened(session_channel: Channel) -> AsyncIterator[dict[str, Any]]:
    body = {"name": "tenpay", "channel": "wechatpay"}
    response = await session_channel.http.post(f"{session_channel.url}/control/accounts", json=body)
    assert response.status_code == 200, response.text
    yield response.json()


@pytest_asyncio.fixture(loop_scope="session")
async def client(channel: Channel, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(channel.simulation.channels["wechatpay"], "probed_share", 0.0)
    return Client(channel, opened)


# -- who calls ---------------------------------------------------------------------------------------------------------


async def test_what_opening_an_account_gives_is_all_that_a_merchant_needs(client: Client) -> None:
    assert set(client.credentials) == {
        "appid",
        "mchid",
        "merchant_serial",
        "private_key",
        "apiv3_key",
        "public_keys",
        "platform_certificates",
        "download_certificates",
    }
    assert len(client.credentials["apiv3_key"]) == 32
    assert all(key_id.startswith("PUB_KEY_ID_") for key_id in client.credentials["public_keys"])


@pytest.mark.parametrize("field", ["mchid", "nonce_str", "signature", "timestamp", "serial_no"])
@pytest.mark.parametrize("value", ["", "0123456789"])
async def test_every_field_of_the_authorization_counts(client: Client, field: str, value: str) -> None:
    assert error_of(await client.query("number-1", fields={field: value})) == (401, "SIGN_ERROR")


@pytest.mark.parametrize("header", ["", "Bearer x", "WECHATPAY2-SHA256-RSA2048", 'WECHATPAY2-SM2-WITH-SM3 mchid="1"'])
async def test_another_authorization_scheme_is_refused(client: Client, header: str) -> None:
    response = await client.query("number-1", headers={"authorization": header})
    assert error_of(response) == (401, "SIGN_ERROR")


async def test_an_authorization_field_twice_is_refused(client: Client) -> None:
    target = f"/v3/pay/transactions/out-trade-no/number-1?mchid={client.merchant_id}"
    fields = client.authorization("GET", target, b"")
    header = ",".join(f'{name}="{value}"' for name, value in [*fields.items(), ("mchid", client.merchant_id)])
    response = await client.query("number-1", headers={"authorization": f"WECHATPAY2-SHA256-RSA2048 {header}"})
    assert error_of(response) == (401, "SIGN_ERROR")


@pytest.mark.parametrize(("skew_s", "status"), [(-295, 404), (295, 404), (-305, 401), (305, 401)])
async def test_a_clock_that_is_five_minutes_off_signs_in_vain(client: Client, skew_s: int, status: int) -> None:
    assert (await client.query("number-1", at=time.time() + skew_s)).status_code == status


async def test_the_body_and_the_query_are_signed(client: Client) -> None:
    fields = client.authorization("POST", "/v3/pay/transactions/native", b"{}")
    body = client.order("number-1")
    response = await client.send("POST", "/v3/pay/transactions/native", body, fields=fields)
    assert error_of(response) == (401, "SIGN_ERROR")
    fields = client.authorization("GET", "/v3/pay/transactions/out-trade-no/number-1", b"")
    assert error_of(await client.query("number-1", fields=fields)) == (401, "SIGN_ERROR")


@pytest.mark.parametrize("header", ["user-agent", "accept"])
async def test_headers_that_the_channel_demands(client: Client, header: str) -> None:
    assert error_of(await client.query("number-1", headers={header: ""})) == (400, "PARAM_ERROR")


# -- payments ----------------------------------------------------------------------------------------------------------


async def test_a_code_is_the_address_of_the_pay_page(client: Client, channel: Channel) -> None:
    response = await client.create("number-1")
    assert response.status_code == 200
    assert response.json()["code_url"].startswith(f"{channel.url}/pay/")
    page = await client.http.get(response.json()["code_url"])
    assert (page.status_code, "88.88 CNY" in page.text) == (200, True)


async def test_a_link_for_a_phone_takes_more_parameters(client: Client) -> None:
    scene = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    response = await client.create("number-1", "h5", scene_info=scene)
    assert "?" in response.json()["h5_url"]
    url = response.json()["h5_url"] + "&redirect_url=https%3A%2F%2Fshop.example%2F"
    assert (await client.http.get(url)).status_code == 403, "a browser that does not say where it comes from"
    async with Browser(referer="https://shop.example/") as browser:
        page = await browser.press(await browser.open(url), Action.PAY)
    assert (page.http_status, page.state, page.links["return"]) == (200, "paid", "https://shop.example/")


async def test_a_link_for_a_phone_leads_back_to_web_addresses_only(client: Client) -> None:
    response = await client.create("number-1", "h5", scene_info=SCENE)
    url = response.json()["h5_url"] + "&redirect_url=javascript%3Aalert(1)"
    async with Browser(referer="https://shop.example/") as browser:
        page = await browser.press(await browser.open(url), Action.PAY)
    assert (page.state, page.links) == ("paid", {})


# -- WeChat's own browser ----------------------------------------------------------------------------------------------


async def call_of(client: Client, number: str = "number-1", **changes: str) -> dict[str, str]:
    """Parameters as a merchant signs them, with some of them changed after that."""
    created = await client.create(number, "jsapi", payer={"openid": "a-buyer"})
    call = {"appId": client.credentials["appid"], "timeStamp": "1795406400", "nonceStr": "00112233"}
    call["package"] = f"prepay_id={created.json()['prepay_id']}"
    string = "".join(f"{line}\n" for line in call.values())
    made = client.key.sign(string.encode(), padding.PKCS1v15(), SHA256())
    return call | {"signType": "RSA", "paySign": base64.b64encode(made).decode()} | changes


async def invoke(client: Client, call: dict[str, str]) -> httpx.Response:
    return await client.http.post(f"{client.simulation.base_url}/control/wechatpay/invoke", json=call)


async def test_signed_parameters_open_the_pay_page_of_their_payment(client: Client) -> None:
    opened = await invoke(client, await call_of(client))
    page = await client.http.get(opened.json()["pay_url"])
    assert (page.status_code, "88.88 CNY" in page.text) == (200, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"appId": "wx0000000000000000"},
        {"timeStamp": "1795406401"},
        {"nonceStr": "other"},
        {"package": "prepay_id=wxnobody"},
        {"package": "nothing"},
        {"signType": "MD5"},
        {"paySign": "AAAA"},
        {"paySign": "not base64"},
    ],
)
async def test_parameters_that_the_merchant_did_not_sign_open_nothing(client: Client, changes: dict[str, str]) -> None:
    assert (await invoke(client, await call_of(client, **changes))).status_code == 400


async def test_a_code_is_no_payment_of_wechats_own_browser(client: Client) -> None:
    code = (await client.create("number-2")).json()["code_url"]
    call = await call_of(client) | {"package": f"prepay_id=wx{code.rpartition('/')[2]}"}
    assert (await invoke(client, call)).status_code == 400


async def test_a_page_within_wechat_gets_a_prepay_id(client: Client) -> None:
    response = await client.create("number-1", "jsapi", payer={"openid": "a-buyer"})
    assert set(response.json()) == {"prepay_id"}


@pytest.mark.parametrize(
    ("method", "wrong", "code"),
    [
        ("native", {"out_trade_no": "short"}, "PARAM_ERROR"),
        ("native", {"out_trade_no": "x" * 33}, "PARAM_ERROR"),
        ("native", {"out_trade_no": "number/1"}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 0}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 88.5}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": "88"}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 88, "currency": "USD"}}, "PARAM_ERROR"),
        ("native", {"description": "x" * 128}, "PARAM_ERROR"),
        ("native", {"description": ""}, "PARAM_ERROR"),
        ("native", {"notify_url": "http://127.0.0.1:9/nobody?a=1"}, "PARAM_ERROR"),
        ("native", {"notify_url": "http://shop.example/"}, "PARAM_ERROR"),
        ("native", {"time_expire": "2020-01-01T00:00:00+08:00"}, "PARAM_ERROR"),
        ("native", {"time_expire": "2038-01-19T11:14:07"}, "PARAM_ERROR"),
        ("native", {"appid": "wx00"}, "APPID_MCHID_NOT_MATCH"),
        ("native", {"mchid": "1600000009"}, "INVALID_REQUEST"),
        ("native", {"surprise": 1}, "PARAM_ERROR"),
        ("native", {"payer": {"openid": "a-buyer"}}, "PARAM_ERROR"),
        ("h5", {}, "PARAM_ERROR"),
        ("h5", {"scene_info": {"payer_client_ip": "203.0.113.7"}}, "PARAM_ERROR"),
        ("jsapi", {}, "PARAM_ERROR"),
    ],
    ids=str,
)
async def test_bad_parameter_is_refused(client: Client, method: str, wrong: dict[str, Any], code: str) -> None:
    assert error_of(await client.create("number-1", method, **wrong)) == (400, code)


async def test_create_again_is_the_same_payment_and_with_other_terms_it_is_refused(client: Client) -> None:
    first, again = await client.create("number-1"), await client.create("number-1")
    assert first.json() == again.json()
    assert error_of(await client.create("number-1", amount={"total": 1})) == (400, "INVALID_REQUEST")


async def test_without_an_end_a_payment_can_be_created_again_too(client: Client) -> None:
    for _ in range(2):
        assert (await client.create("number-1", time_expire=None)).status_code == 200


async def test_what_is_over_is_not_created_again(client: Client) -> None:
    await client.create("number-1")
    await client.pay("number-1")
    assert error_of(await client.create("number-1")) == (400, "ORDERPAID")
    await client.create("number-2")
    await client.send("POST", "/v3/pay/transactions/out-trade-no/number-2/close", {"mchid": client.merchant_id})
    assert error_of(await client.create("number-2")) == (400, "ORDER_CLOSED")


async def test_what_a_query_tells_before_and_after_the_money(client: Client) -> None:
    assert error_of(await client.query("number-1")) == (404, "ORDER_NOT_EXIST")
    await client.create("number-1")
    before = (await client.query("number-1")).json()
    assert (before["trade_state"], "transaction_id" in before) == ("NOTPAY", False)
    await client.pay("number-1")
    after = (await client.query("number-1")).json()
    assert (after["trade_state"], after["amount"]["total"]) == ("SUCCESS", 8888)
    assert datetime.fromisoformat(after["success_time"]).utcoffset() == timedelta(hours=8)
    by_id = f"/v3/pay/transactions/id/{after['transaction_id']}?mchid={client.merchant_id}"
    assert (await client.send("GET", by_id)).json() == after
    assert error_of(await client.send("GET", by_id.partition("?")[0])) == (400, "PARAM_ERROR")


async def test_some_buyers_have_a_coupon_and_the_order_is_for_the_same(client: Client) -> None:
    totals = set()
    for number in range(20):
        await client.create(f"number-{number}")
        await client.pay(f"number-{number}")
        amount = (await client.query(f"number-{number}")).json()["amount"]
        assert amount["total"] == 8888
        totals.add(amount["payer_total"])
    assert totals == {8888, 8000}


async def test_a_close_is_answered_with_nothing_signed(client: Client) -> None:
    await client.create("number-1")
    path = "/v3/pay/transactions/out-trade-no/number-1/close"
    response = await client.send("POST", path, {"mchid": client.merchant_id})
    assert (response.status_code, response.content) == (204, b"")
    client.signer(response.headers, b"")
    assert (await client.query("number-1")).json()["trade_state"] == "CLOSED"
    await client.create("number-2")
    await client.pay("number-2")
    paid = await client.send("POST", path.replace("1/close", "2/close"), {"mchid": client.merchant_id})
    assert error_of(paid) == (400, "ORDERPAID")


# -- what is signed ----------------------------------------------------------------------------------------------------


async def test_a_request_chooses_the_kind_of_key_that_signs_its_answer(client: Client) -> None:
    await client.create("number-1")
    plain = await client.query("number-1")
    assert len(client.signer(plain.headers, plain.content)) == 40
    (key_id,) = client.credentials["public_keys"]
    named = await client.query("number-1", headers={"wechatpay-serial": key_id})
    assert client.signer(named.headers, named.content) == key_id


async def test_certificates_are_listed_sealed(client: Client) -> None:
    response = await client.send("GET", "/v3/certificates")
    client.signer(response.headers, response.content)
    listed = {row["serial_no"]: client.unsealed(row["encrypt_certificate"]).decode() for row in response.json()["data"]}
    assert list(listed.values()) == client.credentials["platform_certificates"]
    assert set(listed) < set(client.keys())


async def test_rotated_keys_stand_before_the_old_ones_which_stay_valid(channel: Channel) -> None:
    body = {"name": "rotating", "channel": "wechatpay"}
    old = Client(channel, (await channel.http.post(f"{channel.url}/control/accounts", json=body)).json())
    response = await channel.http.post(f"{channel.url}/control/accounts/{old.merchant_id}/rotate", json={})
    new = Client(channel, response.json())
    await old.create("number-1")
    for client in (old, new):
        response = await client.query("number-1")
        assert response.status_code == 200
    serial = new.signer(response.headers, response.content)
    known, valid = set(old.keys()), set(new.keys())
    assert serial in valid - known
    assert known < valid
    assert len((await new.send("GET", "/v3/certificates")).json()["data"]) == 2


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_a_callback_tells_what_a_query_tells_sealed_and_signed(client: Client, receiver: Receiver) -> None:
    receiver.response = lambda _: OK
    await client.create("number-1", notify_url=receiver.url)
    await client.pay("number-1")
    await until(lambda: client.tally("number-1").acknowledged == 1)
    (request,) = [request for _, request in receiver.requests]
    client.signer(request.headers, request.body)
    assert request.headers["wechatpay-signature-type"] == "WECHATPAY2-SHA256-RSA2048"
    body = msgspec.json.decode(request.body)
    assert (body["event_type"], body["resource_type"]) == ("TRANSACTION.SUCCESS", "encrypt-resource")
    assert msgspec.json.decode(client.unsealed(body["resource"])) == (await client.query("number-1")).json()


async def test_both_kinds_of_keys_sign_callbacks(client: Client, receiver: Receiver) -> None:
    receiver.response = lambda _: OK
    for number in range(12):
        await client.create(f"number-{number}", notify_url=receiver.url)
        await client.pay(f"number-{number}")
    await until(lambda: len(receiver.requests) == 12)
    signers = {client.signer(request.headers, request.body) for _, request in receiver.requests}
    assert signers == set(client.keys())


async def test_every_resend_has_the_same_bytes_and_a_signature_of_its_own(client: Client, receiver: Receiver) -> None:
    responses = iter([Response(status=500), Response(status=202), Response(status=302), OK])
    receiver.response = lambda _: next(responses)
    await client.create("number-1", notify_url=receiver.url)
    await client.pay("number-1")
    await until(lambda: client.tally("number-1").acknowledged == 1)
    assert len({request.body for _, request in receiver.requests}) == 1
    assert len({request.headers["wechatpay-nonce"] for _, request in receiver.requests}) == 4


@pytest.mark.parametrize(("status", "acknowledged"), [(200, True), (204, True), (201, False), (400, False)])
async def test_200_and_204_acknowledge_and_nothing_else(client: Client, status: int, acknowledged: bool) -> None:
    assert client.simulation.channels["wechatpay"].acknowledges(status, b'{"code":"FAIL"}') is acknowledged


async def test_the_schedule_is_the_documentations(client: Client) -> None:
    gaps = client.simulation.channels["wechatpay"].resend_gaps_s
    assert (len(gaps), sum(gaps)) == (15, 24 * 3600 + 4 * 60)


async def test_a_probe_comes_before_the_callback_and_must_not_be_acknowledged(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.simulation.channels["wechatpay"], "probed_share", 1.0)
    receiver.response = lambda _: OK
    await client.create("number-1", notify_url=receiver.url)
    await client.pay("number-1")
    await until(lambda: client.tally("number-1").acknowledged == 1)
    probe, genuine = (request for _, request in receiver.requests)
    assert probe.headers["wechatpay-signature"].startswith("WECHATPAY/SIGNTEST/")
    assert probe.body == genuine.body
    with pytest.raises((InvalidSignature, ValueError)):
        client.signer(probe.headers, probe.body)
    client.signer(genuine.headers, genuine.body)
    tally = client.tally("number-1")
    assert (tally.forged, tally.forged_acknowledged) == (1, 1)


async def test_only_a_share_of_the_payments_is_probed(client: Client) -> None:
    assert 0 < type(client.simulation.channels["wechatpay"]).__dict__["probed_share"] < 0.5


async def test_what_a_stranger_sends_does_not_verify(client: Client, channel: Channel, receiver: Receiver) -> None:
    receiver.response = lambda _: Response(status=401)
    await channel.faults(forged=1)
    await client.create("number-1", notify_url=receiver.url)
    await until(lambda: client.tally("number-1").forged == 2 and len(receiver.requests) == 2)
    for _, request in receiver.requests:
        with pytest.raises(InvalidSignature):
            client.signer(request.headers, request.body)


# -- refunds and the bill ----------------------------------------------------------------------------------------------


async def test_a_refund_turns_the_payment_into_one_that_was_paid(client: Client) -> None:
    await client.create("number-1")
    assert error_of(await client.refund("number-1", "R-1", 1000)) == (400, "INVALID_REQUEST")
    await client.pay("number-1")
    response = await client.refund("number-1", "R-1", 1000)
    client.signer(response.headers, response.content)
    assert (response.json()["status"], response.json()["amount"]["refund"]) == ("SUCCESS", 1000)
    again = await client.refund("number-1", "R-1", 1000)
    assert again.json() == response.json() == (await client.send("GET", "/v3/refund/domestic/refunds/R-1")).json()
    payment = (await client.query("number-1")).json()
    assert (payment["trade_state"], payment["amount"]["total"]) == ("REFUND", 8888)


async def test_refunds_that_are_refused(client: Client) -> None:
    assert error_of(await client.refund("number-1", "R-1", 1)) == (404, "RESOURCE_NOT_EXISTS")
    await client.create("number-1")
    await client.pay("number-1")
    assert error_of(await client.refund("number-1", "R-1", 8889)) == (400, "INVALID_REQUEST")
    assert error_of(await client.refund("number-1", "R 1", 1)) == (400, "PARAM_ERROR")
    assert error_of(await client.refund("number-1", "R-1", 0)) == (400, "PARAM_ERROR")
    other_total = {"refund": 1, "total": 1, "currency": "CNY"}
    assert error_of(await client.refund("number-1", "R-1", 1, amount=other_total)) == (400, "INVALID_REQUEST")
    assert (await client.refund("number-1", "R-1", 1)).status_code == 200
    assert error_of(await client.refund("number-1", "R-1", 2)) == (400, "INVALID_REQUEST")
    assert error_of(await client.send("GET", "/v3/refund/domestic/refunds/R-9")) == (404, "RESOURCE_NOT_EXISTS")


async def test_the_bill_has_the_days_money_and_its_hash_is_of_the_unpacked_file(
    client: Client, stopped_clock: StoppedClock
) -> None:
    today = stopped_clock.at.astimezone(timezone(timedelta(hours=8))).date().isoformat()
    target = f"/v3/bill/tradebill?bill_date={today}&bill_type=ALL&tar_type=GZIP"
    assert error_of(await client.send("GET", target)) == (400, "NO_STATEMENT_EXIST")
    await client.create("number-1")
    await client.pay("number-1")
    await client.refund("number-1", "R-1", 1000)
    response = await client.send("GET", target)
    client.signer(response.headers, response.content)
    address = response.json()["download_url"].removeprefix(client.url)
    file = await client.send("GET", address)
    assert "wechatpay-signature" not in file.headers
    plain = gzip.decompress(file.content)
    assert hashlib.sha1(plain, usedforsecurity=False).hexdigest() == response.json()["hash_value"]
    header, paid, refunded, _, sums = csv.reader(io.StringIO(plain.decode("utf-8-sig").replace("Tea,", "Tea")))
    assert (len(header), len(paid), len(refunded)) == (27, 27, 27)
    row, back = (dict(zip(header, cells, strict=True)) for cells in (paid, refunded))
    assert (row["交易状态"], row["订单金额"], row["商户订单号"]) == ("`SUCCESS", "`88.88", "`number-1")
    assert (back["交易状态"], back["申请退款金额"], back["商户退款单号"]) == ("`REFUND", "`10.00", "`R-1")
    assert sums == ["`2", "`88.88", "`10.00", "`0.00", "`0.00000", "`88.88", "`10.00"]


@pytest.mark.parametrize("query", ["bill_date=yesterday", "bill_date=2026-13-01", "bill_date=2026-11-23&tar_type=ZIP"])
async def test_a_bill_that_cannot_be(client: Client, query: str) -> None:
    assert error_of(await client.send("GET", f"/v3/bill/tradebill?{query}")) == (400, "PARAM_ERROR")


async def test_a_bill_is_downloaded_from_the_address_in_the_response(client: Client) -> None:
    assert error_of(await client.send("GET", "/v3/billdownload/file?token=made-up")) == (400, "PARAM_ERROR")


async def test_too_many_calls_are_answered_unsigned(client: Client, channel: Channel) -> None:
    await channel.faults(rate_limit_per_s=1)
    responses = [await client.query("number-1") for _ in range(3)]
    assert error_of(responses[-1]) == (429, "FREQUENCY_LIMITED")


# -- ends of links -----------------------------------------------------------------------------------------------------

SCENE = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}


async def test_an_h5_link_ends_after_five_minutes_and_the_same_terms_get_a_fresh_one(
    client: Client, stopped_clock: StoppedClock
) -> None:
    """The payment lives on. The old link stays dead."""

    async def link() -> str:
        order = client.order("number-1", scene_info=SCENE)
        at = stopped_clock.at.timestamp()
        response = await client.send("POST", "/v3/pay/transactions/h5", order, at=at)
        return str(response.json()["h5_url"])

    async def status(url: str) -> int:
        return (await client.http.get(url, headers={"referer": "https://shop.example/"})).status_code

    first = await link()
    stopped_clock.forward(299)
    assert (await link(), await status(first)) == (first, 200)
    stopped_clock.forward(1)
    assert await status(first) == 410
    assert (await client.http.post(first, data={"action": "pay"})).status_code == 410
    fresh = await link()
    assert fresh != first
    assert (await status(fresh), await status(first)) == (200, 410)


async def test_a_code_lives_two_hours(client: Client, stopped_clock: StoppedClock) -> None:
    code = (await client.create("number-1")).json()["code_url"]
    stopped_clock.forward(7199)
    assert (await client.http.get(code)).status_code == 200
    stopped_clock.forward(1)
    assert (await client.http.get(code)).status_code == 410


async def test_the_profile_can_shorten_the_life_of_links(
    client: Client, channel: Channel, stopped_clock: StoppedClock
) -> None:
    await channel.faults(links_end_after_s=2)
    code = (await client.create("number-1")).json()["code_url"]
    stopped_clock.forward(2)
    assert (await client.http.get(code)).status_code == 410


@pytest.mark.parametrize(
    ("method", "first", "other"),
    [
        ("jsapi", {"payer": {"openid": "openid-a"}}, {"payer": {"openid": "openid-b"}}),
        ("h5", {"scene_info": SCENE}, {"scene_info": SCENE | {"payer_client_ip": "203.0.113.8"}}),
        ("native", {}, {"description": "Two teas"}),
        ("native", {}, {"time_expire": "2038-01-19T11:14:08+08:00"}),
    ],
    ids=["openid", "client ip", "subject", "end"],
)
async def test_a_number_is_repeated_with_identical_terms_only(
    client: Client, method: str, first: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (await client.create("number-1", method, **first)).status_code == 200
    assert error_of(await client.create("number-1", method, **other)) == (400, "INVALID_REQUEST")
    assert (await client.create("number-1", method, **first)).status_code == 200
