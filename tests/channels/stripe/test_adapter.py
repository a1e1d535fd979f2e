"""Stripe's pitfalls; the rest is in the conformance suite."""

import base64
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.base import Callback, Channel, ChannelRefund, ListsUndelivered, RefundState
from channels.kit.signed_message import recorded_checks
from channels.stripe.account import Credentials
from channels.stripe.events import EVENTS
from channels.stripe.money import from_stripe, to_stripe
from channels.transport import Transport
from cli.accounts.account_file import read_account
from core.errors import (
    CallbackForged,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
    InvalidRequest,
)
from core.evidence import Closed, Evidence, Missing, Paid, Unclear, Unpaid
from core.order import Origin, Payment
from simulator.kernel.faults import FaultProfile
from simulator.kernel.ledger import Key as LedgerKey
from tests.channels.conftest import Env, Running, create
from tests.channels.httpx_carrier import responding
from tests.channels.reports import AMOUNT, NUMBER, OFFLINE_URL, Key, PaymentReport
from tests.channels.stripe.driver import StripeDriver, signature
from tests.servers import ROOT

DRIVER = StripeDriver()
OFFLINE = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))
NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
AT = int(NOW.timestamp())
CREATED_AT = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


class Server:
    """A Stripe with one fixed response; it records the requests."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer
        transport = Transport(timeout_s=1, carrier=responding(self._respond))
        self.channel = open_channel(DRIVER.account(OFFLINE_URL), transport)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.requests[-1].content.decode()))


def respond_with(body: object, status: int = 200) -> Server:
    raw = json.dumps(body).encode()
    return Server(lambda _: httpx.Response(status, stream=httpx.ByteStream(raw)))


def session(**changed: object) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(DRIVER.render(PaymentReport()))
    return fields | changed


def intent(status: str, **changed: object) -> dict[str, Any]:
    fields: dict[str, Any] = session()["payment_intent"]
    return fields | {"status": status, "amount_received": 0, "latest_charge": None} | changed


def row(reference: str | None = None, **changed: Any) -> Payment:
    return replace(DRIVER.payment(), channel_reference=reference or DRIVER.reference, **changed)


async def evidence_of(body: object, payment: Payment | None = None) -> Evidence:
    return await respond_with(body).channel.query_payment(payment or row())


def event(type_: str, object_: object, **changed: object) -> bytes:
    body = {
        "id": "evt_1",
        "object": "event",
        "created": AT,
        "livemode": False,
        "type": type_,
        "data": {"object": object_},
    }
    return json.dumps(body | changed).encode()


async def verify_body(body: bytes, header: str = "", *keys: Key, channel: Channel | None = None) -> Callback:
    used = channel or open_channel(DRIVER.account(OFFLINE_URL, *keys), OFFLINE)
    good = DRIVER.sign_callback(body, "", at=AT).headers["stripe-signature"]
    return await used.verify_callback({"stripe-signature": header or good}, body, received_at=NOW)


def secret_of(key: Key) -> str:
    secret: str = DRIVER.account("", key).credentials["webhook_secrets"][0]
    return secret


# -- facts that are done wrong most often ------------------------------------------------------------------------------


async def test_a_completed_session_is_not_paid_before_its_payment_status_says_so() -> None:
    """A bank debit completes the session at once and pays days later, or never."""
    fields = session(payment_intent="pi_1", payment_status="unpaid", status="complete")
    assert isinstance((await verify_body(event("checkout.session.completed", fields))).evidence, Unpaid)
    later = (
        await verify_body(event("checkout.session.async_payment_succeeded", fields | {"payment_status": "paid"}))
    ).evidence
    assert isinstance(later, Paid)
    assert isinstance((await verify_body(event("checkout.session.async_payment_failed", fields))).evidence, Unpaid)


@pytest.mark.parametrize("type_", ["checkout.session.completed", "checkout.session.expired"])
async def test_a_session_without_a_required_payment_is_not_paid(type_: str) -> None:
    """A coupon over the whole amount, or a trial: no money came."""
    fields = session(payment_intent=None, payment_status="no_payment_required", status="complete")
    assert isinstance((await verify_body(event(type_, fields))).evidence, Unpaid)
    assert isinstance(await evidence_of(fields), Unpaid)


async def test_a_decline_does_not_end_the_payment() -> None:
    """The buyer may try another card, and the same PaymentIntent is paid a minute later."""
    declined = intent("requires_payment_method", last_payment_error={"code": "card_declined"})
    evidence = (await verify_body(event("payment_intent.payment_failed", declined))).evidence
    assert isinstance(evidence, Unpaid)
    assert isinstance(await evidence_of(declined | {"id": "pi_1"}, row("pi_1")), Unpaid)
    assert isinstance(
        await evidence_of(session(status="open", payment_status="unpaid", payment_intent=declined)), Unpaid
    )


async def test_the_webhook_secret_is_used_with_its_prefix() -> None:
    """It looks like a Standard Webhooks secret, whose base64 after the prefix is decoded."""
    body = event("checkout.session.completed", session(payment_intent="pi_1"))
    secret = f"whsec_{base64.b64encode(b'a key of twenty-four bytes').decode()}"
    credentials = DRIVER.account(OFFLINE_URL).credentials | {"webhook_secrets": [secret]}
    channel = open_channel(replace(DRIVER.account(OFFLINE_URL), credentials=credentials), OFFLINE)
    assert isinstance((await verify_body(body, signature(body, secret, AT), channel=channel)).evidence, Paid)
    string = b"%d." % AT + body
    for key in (base64.b64decode(secret.removeprefix("whsec_")), secret.removeprefix("whsec_").encode()):
        with pytest.raises(CallbackForged):
            await verify_body(body, f"t={AT},v1={hmac.digest(key, string, 'sha256').hex()}", channel=channel)


async def test_any_v1_of_several_verifies_and_v0_never() -> None:
    """While a secret is rolled each delivery is signed with both."""
    body = event("checkout.session.completed", session(payment_intent="pi_1"))
    v1 = signature(body, secret_of(Key.OLD), AT).split(",")[1].removeprefix("v1=")
    for rest in (f"v1={'0' * 64},v1={v1}", f"v1={v1},v1={'0' * 64}", f"v0={'0' * 64},v1=bad,v1={v1}"):
        assert isinstance((await verify_body(body, f"t={AT},{rest}", Key.OLD)).evidence, Paid)
    for rest in (f"v0={v1}", f"v1={'0' * 64},v0={v1}", f"v2={v1}", f"v1={v1}0", f"v1={v1.upper()}"):
        with pytest.raises(CallbackForged):
            await verify_body(body, f"t={AT},{rest}", Key.OLD)


@pytest.mark.parametrize(
    ("currency", "ours", "theirs"),
    [
        ("CNY", 8888, 8888),
        ("JPY", 500, 500),
        ("KRW", 500, 500),
        ("ISK", 5, 500),
        ("UGX", 5, 500),
        ("HUF", 1001, 1001),
        ("TWD", 80_055, 80_055),
        ("MGA", 500, 5),
        ("KWD", 5120, 5120),
    ],
)
def test_amounts_are_integers_in_stripes_own_minor_units(currency: str, ours: int, theirs: int) -> None:
    assert to_stripe(ours, currency) == theirs
    assert from_stripe(theirs, currency) == ours


@pytest.mark.parametrize(("currency", "amount"), [("KWD", 5124), ("TND", 1), ("MGA", 501)])
async def test_an_amount_that_stripe_cannot_express_is_refused_before_it_is_sent(currency: str, amount: int) -> None:
    """Rounded, the user would pay another amount than the order's, and every such order would open a case."""
    server = respond_with(session())
    with pytest.raises(InvalidRequest, match=currency):
        await server.channel.create_payment(create(row(currency=currency, amount=amount)))
    assert server.requests == []


@pytest.mark.parametrize(("currency", "amount"), [("isk", 501), ("mga", 10**13)])
async def test_an_amount_that_minor_units_cannot_express_is_unreadable(currency: str, amount: int) -> None:
    fields = intent("succeeded", currency=currency, amount=amount, amount_received=amount)
    with pytest.raises(ChannelUnreadable):
        await evidence_of(session(payment_intent=fields))


# -- what a payment's objects say --------------------------------------------------------------------------------------


async def test_money_whose_charge_is_not_shown_is_unreadable() -> None:
    """Only the charge shows what was refunded: without it, money that has gone back would look like a sale."""
    folded = intent("succeeded", id="pi_1", latest_charge="ch_1")
    for fields, payment in (
        (folded, row("pi_1")),
        (session(status="complete", payment_status="paid", payment_intent=folded), row()),
        (session(status="complete", payment_status="paid", payment_intent="pi_1"), row()),
    ):
        with pytest.raises(ChannelUnreadable, match="not_expanded"):
            await evidence_of(fields, payment)


@pytest.mark.parametrize(
    "status",
    ["requires_payment_method", "requires_confirmation", "requires_action", "processing", "requires_capture"],
)
async def test_an_intent_that_has_not_succeeded_is_unpaid_with_any_amount_received(status: str) -> None:
    fields = intent(status, id="pi_1", amount_received=AMOUNT)
    assert isinstance(await evidence_of(fields, row("pi_1")), Unpaid)
    assert isinstance(
        await evidence_of(session(status="complete", payment_status="unpaid", payment_intent=fields)), Unpaid
    )


async def test_the_paid_amount_is_the_amount_received() -> None:
    fields = intent("succeeded", amount_received=AMOUNT - 1)
    found = await evidence_of(session(payment_intent=fields))
    assert isinstance(found, Paid)
    assert found.amount == AMOUNT - 1


@pytest.mark.parametrize(
    ("status", "expected_type"),
    [
        (None, Closed),
        ("canceled", Closed),
        ("requires_payment_method", Closed),
        ("processing", Unpaid),
        ("requires_action", Unpaid),
        ("succeeded", Paid),
    ],
)
async def test_an_expired_session_is_closed_unless_its_payment_is_under_way(
    status: str | None, expected_type: type
) -> None:
    payment_intent = None if status is None else intent(status)
    assert isinstance(
        await evidence_of(session(status="expired", payment_status="unpaid", payment_intent=payment_intent)),
        expected_type,
    )


@pytest.mark.parametrize(
    ("status", "under_way"),
    [
        ("requires_payment_method", False),
        ("requires_confirmation", False),
        ("requires_action", False),
        ("processing", True),
        ("requires_capture", True),
    ],
)
async def test_a_payment_is_under_way_after_the_buyers_last_step(status: str, under_way: bool) -> None:
    """An abandoned check by the bank is not under way; otherwise no other method could be chosen."""
    fields = intent(status, id="pi_1")
    in_open = session(status="open", payment_status="unpaid", payment_intent=fields)
    event_evidence = (await verify_body(event("payment_intent.processing", fields))).evidence
    for found in (await evidence_of(fields, row("pi_1")), await evidence_of(in_open), event_evidence):
        assert isinstance(found, Unpaid)
        assert found.under_way is under_way


@pytest.mark.parametrize(
    ("status", "under_way"), [("requires_payment_method", False), ("requires_action", True), ("processing", True)]
)
async def test_a_completed_session_is_under_way_until_its_payment_fails(status: str, under_way: bool) -> None:
    """With a voucher the buyer has finished the page and pays at a counter days later."""
    found = await evidence_of(session(status="complete", payment_status="unpaid", payment_intent=intent(status)))
    assert isinstance(found, Unpaid)
    assert found.under_way is under_way


@pytest.mark.parametrize(
    ("type_", "under_way"),
    [("checkout.session.completed", True), ("checkout.session.async_payment_failed", False)],
)
async def test_an_event_of_a_completed_session_shows_whether_it_is_under_way(type_: str, under_way: bool) -> None:
    fields = session(payment_intent="pi_1", payment_status="unpaid", status="complete")
    found = (await verify_body(event(type_, fields))).evidence
    assert isinstance(found, Unpaid)
    assert found.under_way is under_way


async def test_a_session_without_a_required_payment_is_not_under_way() -> None:
    """Nothing is under way, so nothing would end it, and the payment would be queried for ever."""
    found = await evidence_of(session(payment_intent=None, payment_status="no_payment_required", status="complete"))
    assert isinstance(found, Unpaid)
    assert not found.under_way


async def test_a_cancelled_intent_does_not_end_an_open_session() -> None:
    found = await evidence_of(session(status="open", payment_status="unpaid", payment_intent=intent("canceled")))
    assert isinstance(found, Unpaid)
    assert not found.under_way


async def test_a_session_of_the_other_world_is_not_missing() -> None:
    """After the account was switched it cannot be seen: whether it was paid is still unknown."""
    fields = error("invalid_request_error", "resource_missing")
    assert isinstance(await respond_with(fields, 404).channel.query_payment(row("cs_test_1")), Missing)
    with pytest.raises(ChannelUnreadable, match="livemode"):
        await respond_with(fields, 404).channel.query_payment(row("cs_live_1"))


async def test_a_response_about_another_object_is_evidence_of_another_number() -> None:
    """Even with our number: any object can have any metadata."""
    found = await evidence_of(session(id="cs_test_other"))
    assert found.out_trade_no == "cs_test_other"


async def test_an_object_made_elsewhere_is_known_by_its_id() -> None:
    """A watched payment is registered under the id, or, a session, under its maker's reference."""
    fields = session(metadata={"their_order": "7"}, client_reference_id=None)
    watched = row(out_trade_no="pi_number_1", origin=Origin.WATCHED)
    assert (await evidence_of(fields, watched)).out_trade_no == "pi_number_1"
    assert (await evidence_of(fields | {"client_reference_id": "order-77"}, watched)).out_trade_no == "pi_number_1"
    alone = intent("succeeded", id="pi_1", amount_received=AMOUNT, metadata={})
    found = (await verify_body(event("payment_intent.succeeded", alone))).evidence
    assert found is not None
    assert found.out_trade_no == "pi_1"
    named = session(payment_intent="pi_1", metadata={}, client_reference_id="order-77")
    found = (await verify_body(event("checkout.session.completed", named))).evidence
    assert found is not None
    assert found.out_trade_no == "order-77"


@pytest.mark.parametrize("captured", [None, 0])
async def test_a_released_authorisation_was_never_paid(captured: int | None) -> None:
    """Up to 2025-03-31 Stripe reports it as a full refund of a charge without a captured amount."""
    charge = {
        "id": "ch_1",
        "object": "charge",
        "amount": AMOUNT,
        "amount_captured": captured,
        "amount_refunded": AMOUNT,
        "captured": False,
        "created": AT,
        "currency": "cny",
        "livemode": False,
        "metadata": {"out_trade_no": NUMBER},
        "payment_intent": "pi_1",
    }
    found = (await verify_body(event("charge.refunded", charge))).evidence
    ids = (NUMBER, "pi_1", "ch_1")
    assert found == Unclear(channel_account="main", out_trade_no=NUMBER, ids=ids, reason="not_captured")


async def test_an_event_of_a_connected_account_is_of_that_account() -> None:
    body = event("checkout.session.completed", session(payment_intent="pi_1"), account="acct_of_another")
    found = (await verify_body(body)).evidence
    assert found is not None
    assert found.channel_account == "other:acct_of_another"


# -- creating ----------------------------------------------------------------------------------------------------------


async def test_a_session_is_created_with_our_number_in_every_place() -> None:
    server = respond_with(session(status="open", payment_status="unpaid"))
    await server.channel.create_payment(create(row()))
    form, headers, price = server.form(), server.requests[-1].headers, "line_items[0][price_data]"
    places = ("metadata[out_trade_no]", "payment_intent_data[metadata][out_trade_no]", "client_reference_id")
    assert {form[name] for name in places} == {NUMBER} == {headers["idempotency-key"]}
    assert (form[f"{price}[currency]"], form[f"{price}[unit_amount]"]) == (
        "cny",
        "8888",
    )
    assert headers["stripe-version"] == "2025-03-31.basil"


@pytest.mark.parametrize(
    ("payable", "requested"),
    [
        (timedelta(minutes=5), timedelta(minutes=40)),
        (timedelta(minutes=45), timedelta(minutes=45)),
        (timedelta(hours=24), timedelta(hours=24)),
        (timedelta(hours=25), None),
    ],
)
async def test_a_sessions_end_is_within_stripes_limits_and_returned(
    payable: timedelta, requested: timedelta | None
) -> None:
    """Independent of the clock, because a repeat with another parameter under the same key is an error."""
    server = respond_with(session(expires_at=AT))
    created = await server.channel.create_payment(create(row(payable_until=CREATED_AT + payable)))
    expected_text = None if requested is None else str(int((CREATED_AT + requested).timestamp()))
    assert server.form().get("expires_at") == expected_text
    assert created.payable_until == NOW


async def test_an_intents_end_is_far_ahead_and_returned() -> None:
    fields = intent("requires_payment_method", client_secret="pi_1_secret_2")
    created = await respond_with(fields).channel.create_payment(create(row(method="payment_intent")))
    assert (created.checkout.kind, created.checkout.value) == ("client", "pi_1_secret_2")
    assert created.payable_until is not None
    assert created.payable_until > CREATED_AT + timedelta(days=3000)


def error(type_: str, code: str | None = None) -> dict[str, object]:
    return {"error": {"type": type_, "code": code, "message": "canary"}}


@pytest.mark.parametrize(
    ("status", "body", "expected_error"),
    [
        (400, error("invalid_request_error", "amount_too_small"), ChannelRefused),
        (401, error("invalid_request_error"), ChannelRefused),
        (402, error("card_error", "card_declined"), ChannelRefused),
        (403, error("invalid_request_error", "platform_api_key_expired"), ChannelRefused),
        (400, error("idempotency_error"), ChannelUnreadable),
        (409, error("idempotency_error", "idempotency_key_in_use"), ChannelUnavailable),
        (403, {"error": "blocked by the proxy"}, ChannelUnreadable),
        (500, error("api_error"), ChannelUnavailable),
    ],
)
async def test_a_stripe_refusal_is_definite_only_where_nothing_was_created(
    status: int, body: object, expected_error: type[Exception]
) -> None:
    """With other parameters, or with a running request, an unknown object may exist under the key."""
    with pytest.raises(expected_error) as caught:
        await respond_with(body, status).channel.create_payment(create(row()))
    assert "canary" not in repr(caught.value)


def test_the_account_in_the_documentation_opens() -> None:
    """Unchanged, for users copy it."""
    text = (ROOT / "docs/channels/stripe.md").read_text()
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    account = read_account("main", "main.toml", toml.encode())
    assert open_channel(account, OFFLINE).methods == DRIVER.methods
    assert set(account.credentials) == set(Credentials.__struct_fields__), "every key is shown"
    assert set(re.findall(r"`((?:checkout|payment_intent|charge|refund)\.[a-z_.]+)`", text)) == set(EVENTS)


def test_a_key_is_only_ever_sent_over_tls() -> None:
    live = {"secret_key": DRIVER.account("").credentials["secret_key"].replace("_test_", "_live_")}
    account = DRIVER.account("http://stripe.internal")
    for wrong in (account, replace(account, live=True, credentials=account.credentials | live)):
        with pytest.raises(ConfigurationError, match="base_url"):
            open_channel(wrong, OFFLINE)


def test_a_key_with_another_prefix_is_refused_and_hidden() -> None:
    wrong = DRIVER.account("").credentials | {"secret_key": "sk_live_canarycanary"}
    with pytest.raises(ConfigurationError, match="live is False") as caught:
        open_channel(replace(DRIVER.account(""), credentials=wrong), OFFLINE)
    assert "canary" not in str(caught.value)


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_the_status_of_a_stored_body_is_found() -> None:
    channel: Any = respond_with({}).channel
    bodies = {404: error("invalid_request_error", "resource_missing"), 400: error("card_error"), 200: session()}
    assert [channel.status_of(json.dumps(body).encode()) for body in bodies.values()] == list(bodies)
    assert channel.status_of(b"<html>") == 200


async def test_every_signature_check_is_recorded() -> None:
    body = event("payout.paid", {})
    with recorded_checks() as checks:
        await verify_body(body, signature(body, secret_of(Key.OLD), AT), Key.NEW, Key.OLD)
    assert [(one.key, one.is_good) for one in checks] == [("webhook_secrets[0]", False), ("webhook_secrets[1]", True)]
    assert {one.string for one in checks} == {b"%d." % AT + body}
    assert not [one for one in checks if secret_of(Key.OLD) in repr(one)]


async def test_a_refund_is_found_on_a_later_page_and_pages_are_limited() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("starting_after")
        item = {"object": "refund", "amount": 1, "currency": "cny", "status": "pending", "payment_intent": "pi_1"}
        number = 0 if after is None else int(after.removeprefix("re_")) + 1
        found = item | {"id": f"re_{number}", "metadata": {"refund_no": f"R-{number:06}"}}
        body = json.dumps({"object": "list", "data": [found], "has_more": True}).encode()
        return httpx.Response(200, stream=httpx.ByteStream(body))

    server = Server(respond)
    payment = row(channel_transaction_id="pi_1")
    expected = ChannelRefund(state=RefundState.PROCESSING, channel_refund_no="re_3")
    assert await server.channel.query_refund(payment, "R-000003") == expected
    assert len(server.requests) == 4
    with pytest.raises(ChannelUnreadable, match="without_end"):
        await server.channel.query_refund(payment, "R-999999")


async def test_an_empty_page_with_more_to_come_is_unreadable() -> None:
    server = respond_with({"object": "list", "data": [], "has_more": True})
    with pytest.raises(ChannelUnreadable):
        await server.channel.fetch_statement(CREATED_AT.date(), BytesIO())


async def test_one_event_that_cannot_be_read_does_not_hide_the_others() -> None:
    good = json.loads(event("checkout.session.completed", session(payment_intent="pi_1")))
    listed = [{"id": "evt_0"}, good | {"livemode": True}, good | {"type": "payout.paid"}, good]
    server = respond_with({"object": "list", "data": listed, "has_more": False})
    assert isinstance(server.channel, ListsUndelivered)
    (found,) = await server.channel.fetch_undelivered()
    assert isinstance(found, Paid)
    query = server.requests[-1].url.params
    assert query["delivery_success"] == "false"
    assert len(query.get_list("types[]")) <= 20, "Stripe takes no more types in one call"


async def test_a_statement_has_the_charges_amount_and_not_the_converted_one() -> None:
    row_ = next(respond_with({}).channel.parse_statement(BytesIO(DRIVER.statement)))
    assert (getattr(row_, "amount", None), getattr(row_, "currency", None)) == (AMOUNT, "CNY")


async def test_a_statement_has_bank_payments_and_their_refunds() -> None:
    """Money by a bank debit or transfer is a `payment` and not a `charge` there, its refund a `payment_refund`."""
    lines = [json.loads(line) for line in DRIVER.statement.splitlines()]
    assert [line["type"] for line in lines] == ["charge", "refund"]
    by_bank = [line | {"type": type_} for line, type_ in zip(lines, ("payment", "payment_refund"), strict=True)]
    statement = BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in by_bank))
    assert tuple(respond_with({}).channel.parse_statement(statement)) == DRIVER.statement_rows


# -- with the far side -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def far_side(running: Running) -> AsyncIterator[Env]:
    await running.far_side.reset(7)
    env = Env(DRIVER, running)
    running.far_side.accounts[env.account.merchant_id] = env.account
    env.proxy.alter, env.proxy.exchanges = lambda _, response: response, []
    yield env


async def test_an_intent_is_created_paid_cancelled_and_queried_by_its_id(running: Running) -> None:
    async with far_side(running) as env:
        await env.create(replace(DRIVER.payment(), method="payment_intent"))
        assert (env.row.channel_reference or "").startswith("pi_")
        assert isinstance(await env.query(), Unpaid)
        paid = await env.pay()
        evidence = await env.query()
        assert isinstance(evidence, Paid)
        assert evidence.channel_transaction_id == paid.transaction_id == env.row.channel_reference
        await env.adapter.close_payment(env.row)
        other = replace(DRIVER.payment(f"{NUMBER[:-1]}7"), method="payment_intent")
        await env.create(other)
        await env.adapter.close_payment(env.row)
        assert isinstance(await env.query(), Closed)


async def test_a_slow_method_is_unpaid_until_the_money_arrives(running: Running) -> None:
    async with far_side(running) as env:
        running.far_side.faults.profile = FaultProfile(settles_later=1.0, settle_after_s=3600.0)
        await env.create()
        env.agree()
        assert isinstance(await env.query(), Unpaid)
        await env.adapter.close_payment(env.row)
        assert isinstance(await env.query(), Unpaid), "a session that is complete cannot be expired"
        running.far_side.ledger.pay(LedgerKey(DRIVER.merchant_id, NUMBER), running.far_side.now())
        assert isinstance(await env.query(), Paid)


async def test_a_reference_that_stripe_does_not_know_is_missing(running: Running) -> None:
    async with far_side(running) as env:
        for reference in ("cs_test_nothing", "pi_nothing"):
            assert isinstance(await env.adapter.query_payment(row(reference)), Missing)
    with pytest.raises(ChannelUnreadable, match="no_channel_reference"):
        await respond_with({}).channel.query_payment(DRIVER.payment())
