"""Stripe's far side over real HTTP, with a client that knows its documentation and nothing of the simulator."""

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from simulator.kernel.clock import utc_now
from simulator.kernel.ledger import Key, Payment
from simulator.kit.asgi import Request, Response
from simulator.servers import serve_channels
from simulator.stripe.channel import RESEND_GAPS_S
from tests.simulator.conftest import Channel, Receiver, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"
SESSIONS, INTENTS, REFUNDS = "/v1/checkout/sessions", "/v1/payment_intents", "/v1/refunds"
NO_CONTENT = Response(status=204)


class Client:
    """The requests of a merchant's server."""

    def __init__(self, http: httpx.AsyncClient, opened: dict[str, Any]) -> None:
        self.http = http
        self.url: str = opened["base_url"]
        self.merchant_id: str = opened["merchant_id"]
        self.credentials: dict[str, Any] = opened["credentials"]

    async def send(self, method: str, path: str, *, key: str = "", **content: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.credentials['secret_key']}"}
        if key:
            headers["idempotency-key"] = key
        return await self.http.request(method, self.url + path, headers=headers, **content)

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        return content_of(await self.send("GET", path, params=query))

    async def create(self, number: str = NUMBER, *, key: str = "", **changed: str) -> httpx.Response:
        form = {
            "mode": "payment",
            "line_items[0][quantity]": "2",
            "line_items[0][price_data][currency]": "usd",
            "line_items[0][price_data][unit_amount]": "4444",
            "line_items[0][price_data][product_data][name]": "Tea, 250 g",
            "client_reference_id": number,
            "metadata[out_trade_no]": number,
            "metadata[colour]": "green",
            "success_url": "https://shop.example/done",
        }
        document = {name: value for name, value in (form | changed).items() if value}
        return await self.send("POST", SESSIONS, key=key or number, data=document)

    async def create_intent(self, **form: str) -> dict[str, Any]:
        return content_of(await self.send("POST", INTENTS, data={"amount": "500", "currency": "jpy"} | form))


class Shop:
    """A merchant with an account, and the buyer's hand on the ledger."""

    def __init__(self, channel: Channel, client: Client) -> None:
        self.channel = channel
        self.client = client

    def pay(self, number: str = NUMBER) -> Payment:
        paid = self.channel.simulation.pay(Key(self.client.merchant_id, number))
        assert isinstance(paid, Payment)
        return paid

    async def paid(self, number: str = NUMBER) -> dict[str, Any]:
        """Return a paid session, with nested objects expanded."""
        id_ = (await self.client.create(number)).json()["id"]
        self.pay(number)
        return await self.client.get(f"{SESSIONS}/{id_}", **{"expand[]": "payment_intent.latest_charge"})


async def opened(http: httpx.AsyncClient, url: str, callback_url: str) -> Client:
    body = {"name": "stripe-main", "channel": "stripe", "callback_url": callback_url}
    response = await http.post(f"{url}/control/accounts", json=body)
    assert response.status_code == 200, response.text
    return Client(http, response.json())


@pytest_asyncio.fixture(loop_scope="session")
async def shop(channel: Channel, receiver: Receiver) -> AsyncIterator[Shop]:
    receiver.response = lambda _: NO_CONTENT
    yield Shop(channel, await opened(channel.http, channel.url, receiver.url))


def content_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    wrong = response.json()["error"]
    assert re.fullmatch(r"req_[0-9a-f]+", response.headers["request-id"])
    return response.status_code, wrong["type"], wrong.get("code")


def event_of(request: Request) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(request.body)
    return event


def is_signed(request: Request, secret: str, scheme: str = "v1") -> bool:
    """As the documentation has it: the secret as it is shown, over the time, a full stop and the raw body."""
    parts = [part.split("=", 1) for part in request.headers["stripe-signature"].split(",")]
    (at,) = [value for name, value in parts if name == "t"]
    wanted = hmac.new(secret.encode(), f"{at}.".encode() + request.body, hashlib.sha256).hexdigest()
    return [scheme, wanted] in parts


# -- objects -----------------------------------------------------------------------------------------------------------


async def test_session_has_the_fields_of_the_protocol(shop: Shop) -> None:
    response = await shop.client.create()
    document = response.json()
    wanted = {"object": "checkout.session", "amount_total": 8888, "currency": "usd", "status": "open"}
    wanted |= {"payment_status": "unpaid", "payment_intent": None, "client_reference_id": NUMBER, "livemode": False}
    assert {name: document[name] for name in wanted} == wanted
    assert document["metadata"] == {"out_trade_no": NUMBER, "colour": "green"}
    assert (await shop.channel.http.get(document["url"])).status_code == 200
    assert b"\n  " in response.content, "Stripe writes JSON in lines"


async def test_a_paid_session_is_complete_and_its_payment_is_expanded_on_request(shop: Shop) -> None:
    whole = await shop.paid()
    intent = whole["payment_intent"]
    assert (whole["status"], whole["payment_status"]) == ("complete", "paid")
    assert (intent["status"], intent["amount_received"], intent["latest_charge"]["amount"]) == ("succeeded", 8888, 8888)
    half = await shop.client.get(f"{SESSIONS}/{whole['id']}", **{"expand[0]": "payment_intent"})
    assert half["payment_intent"]["latest_charge"] == intent["latest_charge"]["id"]
    bare = await shop.client.get(f"{SESSIONS}/{whole['id']}")
    assert bare["payment_intent"] == intent["id"]


async def test_intent_without_our_number_is_known_by_its_id(shop: Shop) -> None:
    made = await shop.client.create_intent(**{"metadata[their]": "own"})
    assert (made["status"], made["metadata"]) == ("requires_payment_method", {"their": "own"})
    assert made["client_secret"].startswith(f"{made['id']}_secret_")
    token = made["client_secret"].rpartition("_")[2]
    assert (await shop.channel.http.get(f"{shop.channel.url}/pay/{token}")).status_code == 200
    paid = shop.pay(made["id"])
    assert (paid.terms.currency, paid.terms.amount, paid.transaction_id) == ("JPY", 500, made["id"])
    assert (await shop.client.get(f"{INTENTS}/{made['id']}"))["status"] == "succeeded"


async def test_ledgers_transaction_is_the_intent_of_the_wire(shop: Shop) -> None:
    """By which the books of the two sides are compared."""
    whole = await shop.paid()
    ledger = await shop.channel.payment(NUMBER)
    assert ledger.transaction_id == whole["payment_intent"]["id"]


@pytest.mark.parametrize(("currency", "there", "kept"), [("isk", 500, 5), ("ugx", 700, 7), ("mga", 5, 500)])
async def test_currencies_with_places_of_their_own_are_kept_in_those_of_iso(
    shop: Shop, currency: str, there: int, kept: int
) -> None:
    made = await shop.client.create_intent(amount=str(there), currency=currency)
    assert shop.pay(made["id"]).terms.amount == kept
    assert (await shop.client.get(f"{INTENTS}/{made['id']}"))["amount_received"] == there


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"mode": "subscription"}, "mode"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"line_items[0][price_data][currency]": "USD"}, "line_items[0][price_data][currency]"),
        ({"line_items[0][price_data][unit_amount]": "88.88"}, "line_items[0][price_data][unit_amount]"),
        ({"line_items[0][price_data][currency]": "isk"}, "line_items[0][price_data][unit_amount]"),
        ({"expires_at": "1"}, "expires_at"),
        ({"line_items[0][price_data][product_data][name]": ""}, "line_items"),
    ],
)
async def test_wrong_parameter_is_named_and_its_answer_is_not_kept(
    shop: Shop, changed: dict[str, str], param: str
) -> None:
    response = await shop.client.create(**changed)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert (await shop.client.create()).status_code == 200


@pytest.mark.parametrize(
    ("minutes", "status"), [(29, 400), (31, 200), (24 * 60 - 1, 200), (24 * 60 + 1, 400), (None, 200)]
)
async def test_session_lives_between_half_an_hour_and_a_day(shop: Shop, minutes: int | None, status: int) -> None:
    until_ = "" if minutes is None else str(int(time.time()) + minutes * 60)
    response = await shop.client.create(expires_at=until_)
    assert response.status_code == status
    if minutes is None:
        assert abs(response.json()["expires_at"] - time.time() - 24 * 3600) < 5


# -- once under each key -----------------------------------------------------------------------------------------------


async def test_same_key_is_answered_with_what_was_answered_first(shop: Shop) -> None:
    first = await shop.client.create()
    shop.pay()
    again = await shop.client.create()
    assert again.json() == first.json(), "as it was then, not as it is"
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)


async def test_same_key_with_other_parameters_is_an_error(shop: Shop) -> None:
    await shop.client.create()
    assert error(await shop.client.create(customer_email="a@b.example")) == (400, "idempotency_error", None)
    other_address = await shop.client.send("POST", INTENTS, key=NUMBER, data={"amount": "1", "currency": "usd"})
    assert error(other_address) == (400, "idempotency_error", None)


async def test_key_that_is_at_work_is_a_conflict(shop: Shop) -> None:
    await shop.channel.faults(slow=1.0, slow_s=0.3, affected=["create"])
    first = asyncio.ensure_future(shop.client.create())
    await until(lambda: shop.channel.simulation.find_keys(NUMBER))
    await shop.channel.faults()
    assert error(await shop.client.create()) == (409, "idempotency_error", "idempotency_key_in_use")
    assert (await first).status_code == 200


async def test_kept_500_is_answered_again_and_again_for_a_day(http: httpx.AsyncClient) -> None:
    """After that the key is new."""
    async with serve_channels(payments_max=0) as (url, simulation):
        client = await opened(http, url, "")
        for _ in range(2):
            assert error(await client.create()) == (500, "api_error", None)
        simulation.ledger._payments_max = 1
        again = await client.create()
        assert (again.status_code, again.headers["idempotent-replayed"]) == (500, "true")
        simulation._clock = lambda: utc_now() + timedelta(hours=24)
        assert (await client.create()).status_code == 200


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_session_is_expired_once_and_a_paid_one_never(shop: Shop) -> None:
    id_ = (await shop.client.create()).json()["id"]
    response = await shop.client.send("POST", f"{SESSIONS}/{id_}/expire")
    assert (response.json()["status"], response.json()["url"]) == ("expired", None)
    assert error(await shop.client.send("POST", f"{SESSIONS}/{id_}/expire")) == (400, "invalid_request_error", None)
    paid = (await shop.paid("number-2"))["id"]
    assert error(await shop.client.send("POST", f"{SESSIONS}/{paid}/expire")) == (400, "invalid_request_error", None)


async def test_intent_is_cancelled_once_and_the_one_of_a_session_not_at_all(shop: Shop) -> None:
    id_ = (await shop.client.create_intent())["id"]
    assert (await shop.client.send("POST", f"{INTENTS}/{id_}/cancel")).json()["status"] == "canceled"
    again = error(await shop.client.send("POST", f"{INTENTS}/{id_}/cancel"))
    assert again == (400, "invalid_request_error", "payment_intent_unexpected_state")
    inside = (await shop.paid())["payment_intent"]["id"]
    assert (await shop.client.send("POST", f"{INTENTS}/{inside}/cancel")).status_code == 404


async def test_opened_sessions_intent_is_cancelled_when_it_expires(shop: Shop) -> None:
    created = (await shop.client.create()).json()
    await shop.channel.http.get(created["url"])
    document = await shop.client.get(f"{SESSIONS}/{created['id']}")
    assert document["payment_intent"].startswith("pi_")
    await shop.client.send("POST", f"{SESSIONS}/{created['id']}/expire")
    assert (await shop.client.get(f"{INTENTS}/{document['payment_intent']}"))["status"] == "canceled"


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme", ["Bearer {}0", "Bearer x{}", "Basic {}", "Bearer", "", "Bearer é", "Bearer sk_test_{}"]
)
async def test_a_wrong_key_is_refused(shop: Shop, scheme: str) -> None:
    value = scheme.format(shop.client.credentials["secret_key"]).encode("latin-1")
    headers = [(b"authorization", value)] if value else []
    response = await shop.client.http.get(f"{shop.client.url}{SESSIONS}/cs_1", headers=headers)
    assert error(response) == (401, "invalid_request_error", None)


async def test_payment_of_another_account_is_not_there(shop: Shop, http: httpx.AsyncClient) -> None:
    id_ = (await shop.client.create()).json()["id"]
    other = await opened(http, shop.channel.url, "")
    assert error(await other.send("GET", f"{SESSIONS}/{id_}")) == (404, "invalid_request_error", "resource_missing")


async def test_too_many_calls_are_429_with_when_to_come_back(shop: Shop) -> None:
    await shop.channel.faults(rate_limit_per_s=1)
    responses = [await shop.client.send("GET", f"{SESSIONS}/cs_1") for _ in range(3)]
    limited = [response for response in responses if response.status_code == 429]
    assert limited
    assert (error(limited[0])[2], limited[0].headers["retry-after"]) == ("rate_limit", "1")


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_paid_session_is_called_back_about_once_and_signed(shop: Shop, receiver: Receiver) -> None:
    whole = await shop.paid()
    await until(lambda: receiver.requests and shop.channel.simulation.sender.under_way == 0)
    (request,) = [request for _, request in receiver.requests]
    document = event_of(request)
    assert (document["object"], document["type"], document["livemode"]) == (
        "event",
        "checkout.session.completed",
        False,
    )
    assert document["data"]["object"] == whole | {"payment_intent": whole["payment_intent"]["id"]}
    assert is_signed(request, shop.client.credentials["webhook_secrets"][0])
    assert not is_signed(request, shop.client.credentials["webhook_secrets"][0], "v0")
    assert ",v0=" in request.headers["stripe-signature"]


async def test_rolled_secret_signs_beside_the_old_one(shop: Shop, receiver: Receiver) -> None:
    old = shop.client.credentials
    response = await shop.channel.http.post(f"{shop.channel.url}/control/accounts/{shop.client.merchant_id}/rotate")
    new = response.json()["credentials"]
    await shop.paid()
    await until(lambda: receiver.requests)
    request = receiver.requests[0][1]
    assert new["webhook_secrets"][1:] == old["webhook_secrets"]
    assert all(is_signed(request, secret) for secret in new["webhook_secrets"])
    for credentials in (new, old):
        shop.client.credentials = credentials
        assert (await shop.client.send("GET", f"{SESSIONS}/cs_1")).status_code == 404, "both keys are good"


async def test_slow_method_completes_unpaid_and_succeeds_later(shop: Shop, receiver: Receiver) -> None:
    await shop.channel.faults(settles_later=1.0, settle_after_s=0.05)
    await shop.client.create()
    shop.pay()
    await until(lambda: len(receiver.requests) == 2)
    document = [event_of(request) for _, request in receiver.requests]
    assert [(one["type"], one["data"]["object"]["payment_status"]) for one in document] == [
        ("checkout.session.completed", "unpaid"),
        ("checkout.session.async_payment_succeeded", "paid"),
    ]


async def test_intent_and_refund_have_events_of_their_own(shop: Shop, receiver: Receiver) -> None:
    id_ = (await shop.client.create_intent(**{"metadata[out_trade_no]": NUMBER}))["id"]
    shop.pay()
    form = {"payment_intent": id_, "amount": "200", "metadata[refund_no]": "R-000001"}
    refund = (await shop.client.send("POST", REFUNDS, key="R-000001", data=form)).json()
    assert (refund["status"], refund["amount"], refund["payment_intent"]) == ("succeeded", 200, id_)
    await until(lambda: len(receiver.requests) == 2)
    document = {one["type"]: one["data"]["object"] for one in (event_of(request) for _, request in receiver.requests)}
    assert document["payment_intent.succeeded"]["id"] == id_
    assert (document["charge.refunded"]["amount_refunded"], document["charge.refunded"]["payment_intent"]) == (200, id_)


async def test_any_2xx_ends_the_resends_and_nothing_else(shop: Shop, receiver: Receiver) -> None:
    responses = iter([Response(status=302), Response(status=500), Response(status=202, body=b"whatever")])
    receiver.response = lambda _: next(responses)
    await shop.paid()
    await until(lambda: len(receiver.requests) == 3 and shop.channel.simulation.sender.under_way == 0)
    assert len({request.body for _, request in receiver.requests}) == 1, "the same event each time"


async def test_events_are_sent_for_up_to_three_days_with_growing_gaps() -> None:
    assert list(RESEND_GAPS_S) == sorted(RESEND_GAPS_S)
    assert timedelta(days=2) < timedelta(seconds=sum(RESEND_GAPS_S)) <= timedelta(days=3)


async def test_stranger_and_changed_body_do_not_verify(shop: Shop, receiver: Receiver) -> None:
    await shop.channel.faults(forged=1.0)
    await shop.client.create()
    await until(lambda: len(receiver.requests) == 2)
    secret = shop.client.credentials["webhook_secrets"][0]
    assert not [request for _, request in receiver.requests if is_signed(request, secret)]


# -- lists -------------------------------------------------------------------------------------------------------------


async def test_lists_are_newest_first_and_paged_both_ways(shop: Shop) -> None:
    ids = [(await shop.client.create(f"number-{at}")).json()["id"] for at in range(5)][::-1]
    first = await shop.client.get(SESSIONS, limit=2)
    assert ([one["id"] for one in first["data"]], first["has_more"], first["url"]) == (ids[:2], True, SESSIONS)
    last = await shop.client.get(SESSIONS, limit=10, starting_after=ids[1])
    assert ([one["id"] for one in last["data"]], last["has_more"]) == (ids[2:], False)
    back = await shop.client.get(SESSIONS, limit=2, ending_before=ids[4])
    assert ([one["id"] for one in back["data"]], back["has_more"]) == (ids[2:4], True)
    assert (await shop.client.send("GET", SESSIONS, params={"limit": 101})).status_code == 400


async def test_sessions_of_an_intent_are_listed_without_others(shop: Shop) -> None:
    first, second = [await shop.paid(f"number-{at}") for at in range(2)]
    for session in (first, second):
        listed = await shop.client.get(SESSIONS, payment_intent=session["payment_intent"]["id"])
        assert [one["id"] for one in listed["data"]] == [session["id"]]


async def test_undelivered_events_are_listed_until_they_are_acknowledged(shop: Shop, receiver: Receiver) -> None:
    await shop.channel.faults(lost=1.0)
    await shop.paid()
    query = {"delivery_success": "false", "types[]": ["checkout.session.completed", "charge.refunded"]}
    (lost,) = (await shop.client.get("/v1/events", **query))["data"]
    assert lost["data"]["object"]["client_reference_id"] == NUMBER
    assert (await shop.client.get(f"/v1/events/{lost['id']}")) == lost
    assert (await shop.client.get("/v1/events", **{"types[]": "payout.paid"}))["data"] == []
    await shop.channel.http.post(f"{shop.channel.url}/control/payments/{NUMBER}/callback")
    assert event_of(receiver.requests[0][1]) == lost
    assert (await shop.client.get("/v1/events", **query))["data"] == []
    assert [one["id"] for one in (await shop.client.get("/v1/events", delivery_success="true"))["data"]] == [lost["id"]]


async def test_refunds_of_a_payment_are_listed_and_more_than_it_is_refused(shop: Shop) -> None:
    id_ = (await shop.paid())["payment_intent"]["id"]
    for refund_no, amount in (("R-000001", 1000), ("R-000002", 7888)):
        form = {"payment_intent": id_, "amount": str(amount), "metadata[refund_no]": refund_no}
        assert (await shop.client.send("POST", REFUNDS, key=refund_no, data=form)).status_code == 200
    more = await shop.client.send("POST", REFUNDS, data={"payment_intent": id_, "amount": "1"})
    assert error(more) == (400, "invalid_request_error", "charge_already_refunded")
    listed = (await shop.client.get(REFUNDS, payment_intent=id_))["data"]
    assert [one["metadata"]["refund_no"] for one in listed] == ["R-000002", "R-000001"]
    assert (await shop.client.get(REFUNDS, payment_intent="pi_other"))["data"] == []


async def test_balance_tells_the_days_money_with_what_it_is_about(shop: Shop) -> None:
    whole = await shop.paid()
    id_ = whole["payment_intent"]["id"]
    await shop.client.send("POST", REFUNDS, data={"payment_intent": id_, "amount": "1000"})
    now = int(datetime.now(UTC).timestamp())
    query = {"created[gte]": now - 60, "created[lt]": now + 60, "expand[]": "data.source"}
    refund, charge = (await shop.client.get("/v1/balance_transactions", **query))["data"]
    assert (charge["type"], charge["amount"], charge["source"]["metadata"]["out_trade_no"]) == ("charge", 8888, NUMBER)
    assert (refund["type"], refund["amount"], refund["source"]["amount"]) == ("refund", -1000, 1000)
    assert charge["source"]["payment_intent"] == refund["source"]["payment_intent"] == id_
    bare = (await shop.client.get("/v1/balance_transactions"))["data"][1]["source"]
    assert bare == whole["payment_intent"]["latest_charge"]["id"]
    assert (await shop.client.get("/v1/balance_transactions", **{"created[lt]": now - 3600}))["data"] == []
