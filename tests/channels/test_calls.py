"""Creating and closing: a repeat happens once, and only a verified refusal is definite."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from channels.base import Channel, ListsUndelivered
from core.checkout import NO_PAYER
from core.errors import ChannelError, ChannelRefused, ChannelUnavailable, ChannelUnreadable, InvalidRequest
from core.evidence import Closed, Evidence, Missing, Paid, Unpaid
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import PaymentStatus
from tests.channels.conftest import CALLBACK_URL, PRECEDING, Env, create, needs_signatures, rows_of
from tests.channels.reports import AMOUNT, NUMBER, OTHER_NUMBER, REFUND_NO, TODAY, PaymentReport
from tests.channels.wire import WireRequest, WireResponse

NO_WEB_ADDRESSES = ("javascript:alert(1)", "http://[", "data:text/html,x", "//evil.example", "http://", "")
CHECKOUTS = {"redirect": "https://channel.example/pay/1", "qr": "https://qr.example/1", "client": "a-secret-of-one"}


async def test_a_creation_returns_a_checkout(env: Env) -> None:
    created = await env.create()
    assert created.checkout.value
    assert created.checkout.kind == env.driver.checkout_kind
    assert (created.channel_reference is not None) == env.adapter.queries_by_reference
    (there,) = env.payments()
    assert (there.terms.out_trade_no, there.terms.amount, there.terms.currency) == (NUMBER, AMOUNT, env.driver.currency)
    assert there.terms.subject == "Tea, 250 g"
    assert there.terms.callback_url == CALLBACK_URL


async def test_every_method_returns_a_checkout(env: Env) -> None:
    for at, method in enumerate(env.adapter.methods):
        row = replace(env.driver.payment(f"{NUMBER[:-1]}{at}"), method=method)
        created = await env.adapter.create_payment(create(row))
        assert created.checkout.value, method
        assert created.checkout.kind in ("redirect", "qr", "client"), method


async def test_a_method_without_its_required_payer_sends_nothing(env: Env) -> None:
    """The error names the missing detail, instead of a refusal by the channel."""
    for method, needed in env.driver.payer_needed.items():
        row = replace(env.driver.payment(), method=method)
        with pytest.raises(InvalidRequest, match=needed):
            await env.adapter.create_payment(replace(create(row), payer=NO_PAYER))
    assert env.calls(CallKind.CREATE) == []


async def test_two_creations_are_one_payment_with_the_same_checkout(env: Env) -> None:
    row = env.driver.payment(created_at=datetime.now(UTC))
    assert await env.create(row) == await env.create(row)
    assert len(env.payments()) == 1


async def test_the_checkouts_of_a_channel_are_as_its_protocol_has_them(env: Env) -> None:
    """A *missing* may end a payment only where creation makes it, and a payer is kept only where it counts."""
    rules, driver = env.adapter.checkouts, env.driver
    assert dict(rules.payer_fields) == {method: field.split(".")[-1] for method, field in driver.payer_needed.items()}
    assert (rules.needs_capture, rules.exists_once_created) == (driver.needs_capture, not driver.missing_until_seen)


async def test_a_checkout_says_when_it_ends_unless_it_lives_as_long_as_its_payment(env: Env) -> None:
    now = datetime.now(UTC)
    for at, method in enumerate(env.adapter.methods):
        row = env.driver.payment(f"{NUMBER[:-1]}{at}", created_at=now, payable_until=now + timedelta(hours=20))
        created = await env.adapter.create_payment(create(replace(row, method=method)))
        assert created.checkout_ends_at is None or now < created.checkout_ends_at <= now + timedelta(hours=3), method


async def test_a_creation_repeated_after_the_checkouts_end_gives_a_fresh_one_where_it_is_renewed(env: Env) -> None:
    """The payment and its number stay the same."""
    now = datetime.now(UTC)
    row = env.driver.payment(created_at=now, payable_until=now + timedelta(hours=20))
    first = await env.create(row)
    payment = env.payments()[0]
    if not env.adapter.checkouts.renews or payment.link_ends_at is None:
        pytest.skip("this channel's checkouts of this method live as long as the payment, or are not renewed")
    env.far_side.ledger._keep(replace(payment, link_ends_at=now))
    fresh = await env.create(replace(row, created_at=now - timedelta(hours=2), checkout=first.checkout))
    assert fresh.checkout != first.checkout
    assert (fresh.checkout_ends_at or now) > now + timedelta(minutes=4)
    assert len(env.payments()) == 1


async def test_a_creation_repeated_after_a_lost_response_creates_once(env: Env) -> None:
    env.far_side.faults.profile = FaultProfile(create_answer_lost=1.0)
    with pytest.raises(ChannelUnavailable):
        await env.create()
    env.far_side.faults.profile = FaultProfile()
    created = await env.create()
    assert created.checkout.value
    assert len(env.payments()) == 1


async def test_a_repeated_creation_with_other_terms_is_refused(env: Env) -> None:
    await env.create()
    with pytest.raises((ChannelRefused, ChannelUnreadable)):
        await env.create(replace(env.driver.payment(), amount=AMOUNT + 1))
    assert env.payments()[0].terms.amount == AMOUNT


async def test_a_creation_carries_the_payments_end(env: Env) -> None:
    """Otherwise an order could be closed here while it can still be paid there."""
    if env.driver.needs_capture:
        pytest.skip("this channel takes money only by our capture")
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(minutes=45)
    created = await env.create(env.driver.payment(payable_until=until, created_at=now))
    assert env.payments()[0].terms.expires_at == until
    assert created.payable_until in (None, until)


async def test_a_refusal_of_a_creation_carries_the_channels_code(env: Env) -> None:
    env.set_response(lambda request: env.driver.refusal_response(request, env.driver.refusal_code), to=CallKind.CREATE)
    with pytest.raises(ChannelRefused) as caught:
        await env.create()
    assert caught.value.code == env.driver.refusal_code


async def test_a_malformed_error_code_is_not_repeated(env: Env) -> None:
    """It would appear in log lines and responses."""
    env.set_response(lambda request: env.driver.refusal_response(request, "canary\r\nX: y"), to=CallKind.CREATE)
    with pytest.raises(ChannelError) as caught:
        await env.create()
    assert "canary" not in repr(caught.value)


async def test_an_unsigned_refusal_of_a_creation_is_not_definite_where_refusals_are_signed(env: Env) -> None:
    """A router in between can send a 404; as a refusal it would give the payment up."""
    if not env.driver.refusals_are_signed:
        pytest.skip("this channel does not sign its refusals")
    code = env.driver.refusal_code
    env.set_response(
        lambda request: env.driver.unsigned_response(env.driver.refusal_response(request, code)), to=CallKind.CREATE
    )
    with pytest.raises(ChannelUnreadable):
        await env.create()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413])
async def test_a_refusal_in_another_form_is_not_definite(env: Env, status: int) -> None:
    """A router's page; the channel may not have received the request."""
    for body in (b"<!doctype html><h1>Not here</h1>", b"", b"{}", b"null", b'{"code":"", "message":""}'):
        env.set_response(lambda _, body=body: WireResponse(status, {}, body), to=CallKind.CREATE)  # type: ignore[misc]
        with pytest.raises(ChannelUnreadable):
            await env.create()


@pytest.mark.parametrize(
    ("field", "report"),
    [
        ("number", PaymentReport(status="unpaid", number=OTHER_NUMBER)),
        ("merchant", PaymentReport(status="unpaid", merchant="other")),
        ("amount", PaymentReport(status="unpaid", amount=AMOUNT + 1)),
        ("currency", PaymentReport(status="unpaid", currency="JPY")),
    ],
)
async def test_the_checkout_of_another_payment_is_not_returned(env: Env, field: str, report: PaymentReport) -> None:
    if field not in env.driver.created_fields:
        pytest.skip("this channel does not tell it when it creates a payment")
    body = env.driver.render_created(env.driver.with_others(report), CHECKOUTS[env.driver.checkout_kind])
    env.set_response(lambda request: env.driver.signed_response(request, 200, body), to=CallKind.CREATE)
    with pytest.raises(ChannelUnreadable):
        await env.create()


async def test_the_checkout_named_by_the_channel_is_returned(env: Env) -> None:
    """The counterpart of the rejected ones: the same kind of response is accepted."""
    checkout = CHECKOUTS[env.driver.checkout_kind]
    body = env.driver.render_created(PaymentReport(status="unpaid"), checkout)
    env.set_response(lambda request: env.driver.signed_response(request, 200, body), to=CallKind.CREATE)
    assert checkout in (await env.create()).checkout.value


@pytest.mark.parametrize("address", NO_WEB_ADDRESSES)
async def test_a_user_is_sent_to_web_addresses_only(env: Env, address: str) -> None:
    """An empty checkout is rejected too."""
    if address and env.driver.checkout_kind != "redirect":
        pytest.skip("nobody is sent anywhere")
    body = env.driver.render_created(PaymentReport(status="unpaid"), address)
    env.set_response(lambda request: env.driver.signed_response(request, 200, body), to=CallKind.CREATE)
    with pytest.raises(ChannelUnreadable):
        await env.create()


async def test_closing_twice_raises_nothing(env: Env) -> None:
    await env.create()
    env.see()
    await env.adapter.close_payment(env.row)
    await env.adapter.close_payment(env.row)
    closes = env.driver.closes
    assert env.payments()[0].status is (PaymentStatus.CLOSED if closes else PaymentStatus.UNPAID)
    assert isinstance(await env.query(), Closed if closes else Unpaid)


async def test_closing_a_paid_payment_raises_nothing_and_the_query_shows_paid(env: Env) -> None:
    await env.buy()
    await env.adapter.close_payment(env.row)
    assert isinstance(await env.query(), Paid)


async def test_closing_a_missing_payment_raises_nothing_and_the_query_shows_missing(env: Env) -> None:
    await env.adapter.close_payment(env.row)
    assert isinstance(await env.query(), Missing)


async def test_a_close_with_a_lost_response_is_an_unknown_outcome(env: Env) -> None:
    if not env.driver.closes:
        pytest.skip("this channel closes nothing on request")
    await env.create()
    env.see()
    env.far_side.faults.profile = FaultProfile(close_answer_lost=1.0, affected=(CallKind.CLOSE,))
    with pytest.raises(ChannelUnavailable):
        await env.adapter.close_payment(env.row)
    env.far_side.faults.profile = FaultProfile()
    assert isinstance(await env.query(), Closed)


async def test_a_refused_close_raises_the_refusal(env: Env) -> None:
    if not env.driver.closes:
        pytest.skip("this channel closes nothing on request")
    await env.create()
    env.see()
    env.set_response(lambda request: env.driver.refusal_response(request, env.driver.refusal_code), to=CallKind.CLOSE)
    with pytest.raises(ChannelRefused):
        await env.adapter.close_payment(env.row)


async def test_a_number_with_reserved_url_characters_stays_one_number(env: Env) -> None:
    """Where `|` and `*` are allowed in numbers, the address is signed exactly as it is sent."""
    for number in env.driver.numbers:
        created = await env.create(env.driver.payment(number))
        assert created.checkout.value
        env.see()
        evidence = await env.query()
        assert isinstance(evidence, Unpaid)
        assert evidence.out_trade_no == number


async def test_undelivered_callbacks_are_listed_where_the_channel_lists_them(env: Env) -> None:
    env.far_side.faults.profile = FaultProfile(callbacks_blocked=True)
    paid = await env.buy()
    assert isinstance(env.adapter, ListsUndelivered) is env.driver.lists_undelivered
    if not isinstance(env.adapter, ListsUndelivered):
        return
    found = await env.adapter.fetch_undelivered()
    (evidence,) = [one for one in found if isinstance(one, Paid)]
    assert (evidence.out_trade_no, evidence.amount) == (paid.terms.out_trade_no, AMOUNT)
    assert evidence.channel_transaction_id == env.row.channel_transaction_id


async def test_an_account_works_after_keep_current(env: Env) -> None:
    await env.adapter.keep_current()
    await env.buy()


async def fetch_undelivered(channel: Channel) -> tuple[Evidence, ...]:
    assert isinstance(channel, ListsUndelivered)
    return await channel.fetch_undelivered()


# -- every call ----------------------------------------------------------------------------------------------------

CALLS: dict[CallKind, Callable[[Env], Awaitable[object]]] = {
    CallKind.CREATE: lambda env: env.adapter.create_payment(create(env.driver.payment())),
    CallKind.QUERY: lambda env: env.adapter.query_payment(env.row),
    CallKind.CAPTURE: lambda env: env.adapter.capture_payment(env.row),
    CallKind.CLOSE: lambda env: env.adapter.close_payment(env.row),
    CallKind.REFUND: lambda env: env.adapter.refund_payment(env.row, REFUND_NO, 1),
    CallKind.QUERY_REFUND: lambda env: env.adapter.query_refund(env.row, REFUND_NO),
    CallKind.STATEMENT: lambda env: rows_of(env, TODAY),
    CallKind.UNDELIVERED: lambda env: fetch_undelivered(env.adapter),
}


async def ready(env: Env, call: CallKind) -> None:
    """Prepare a payment for the call; skip calls that the channel does not have."""
    driver = env.driver
    has = {CallKind.CAPTURE: driver.needs_capture, CallKind.CLOSE: driver.closes}
    if not has.get(call, call is not CallKind.UNDELIVERED or driver.lists_undelivered):
        pytest.skip("this channel has no such call")
    await env.create()
    env.see()
    if call in (CallKind.REFUND, CallKind.QUERY_REFUND):
        await env.buy()
    elif call is CallKind.CAPTURE:
        env.agree()
    env.proxy.exchanges.clear()


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_rejects_an_unsigned_response(env: Env, call: CallKind) -> None:
    needs_signatures(env)
    await ready(env, call)
    if call in env.driver.unsigned_calls:
        pytest.skip("this call brings a file that is proved in another way")
    env.set_response(
        lambda request: env.driver.unsigned_response(
            env.driver.signed_response(request, 200, env.driver.render(PaymentReport()))
        ),
        to=call,
    )
    with pytest.raises(ChannelUnreadable):
        await CALLS[call](env)


TOLD_BY_THE_NEXT_QUERY = (CallKind.CLOSE, CallKind.CAPTURE)


@pytest.mark.parametrize("call", [call for call in CALLS if call not in TOLD_BY_THE_NEXT_QUERY])
@pytest.mark.parametrize("body", [b"", b"<!doctype html><h1>Back soon</h1>", b"null", b"\xff"], ids=str)
async def test_every_call_rejects_a_nonsense_response(env: Env, call: CallKind, body: bytes) -> None:
    await ready(env, call)
    env.set_response(lambda request: env.driver.signed_response(request, 200, body), to=call)
    with pytest.raises(ChannelUnreadable):
        await CALLS[call](env)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_without_a_response_is_an_unknown_outcome(env: Env, call: CallKind) -> None:
    await ready(env, call)
    env.set_response(lambda _: b"", to=call)
    with pytest.raises(ChannelUnavailable):
        await CALLS[call](env)
    assert env.calls(call), "the call under test was made"


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_with_429_or_5xx_is_an_unknown_outcome(env: Env, call: CallKind, status: int) -> None:
    await ready(env, call)

    def broken(request: WireRequest) -> WireResponse:
        return env.driver.refusal_response(request, env.driver.refusal_code)._replace(status=status)

    env.set_response(broken, to=call)
    with pytest.raises(ChannelUnavailable):
        await CALLS[call](env)


@pytest.mark.parametrize("preceding", PRECEDING)
async def test_a_call_whose_preceding_call_fails_is_an_unknown_outcome(env: Env, preceding: CallKind) -> None:
    """Without a token or a key to verify with, nothing is known."""
    await env.query()
    if not env.calls(preceding):
        pytest.skip("this channel has no such call")
    env.adapter = env.open()
    env.set_response(lambda _: b"", to=preceding)
    with pytest.raises(ChannelUnavailable):
        await env.query()
