"""Creating and closing: asked twice they happen once, and only a refusal that the channel stands for is definite."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from channels.base import NO_PAYER, Channel, ListsUndelivered
from core.errors import ChannelError, ChannelRefused, ChannelUnavailable, ChannelUnreadable, InvalidRequest
from core.evidence import Closed, Evidence, Missing, Paid, Unpaid
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import PaymentStatus
from tests.channels.conftest import CALLBACK_URL, PRECEDING, Far, create, needs_signatures, rows_of
from tests.channels.driver import AMOUNT, NUMBER, OTHER_NUMBER, REFUND_NO, TODAY, Said
from tests.channels.wire import Answered, Asked

NO_WEB_ADDRESSES = ("javascript:alert(1)", "http://[", "data:text/html,x", "//evil.example", "http://", "")
CHECKOUTS = {"redirect": "https://channel.example/pay/1", "qr": "https://qr.example/1", "client": "a-secret-of-one"}


async def test_creating_gives_the_user_something_to_pay_with(far: Far) -> None:
    created = await far.create()
    assert created.checkout.value
    assert created.checkout.kind == far.driver.checkout_kind
    assert (created.channel_reference is not None) == far.adapter.queries_by_reference
    (there,) = far.payments()
    assert (there.terms.out_trade_no, there.terms.amount, there.terms.currency) == (NUMBER, AMOUNT, far.driver.currency)
    assert there.terms.subject == "Tea, 250 g"
    assert there.terms.callback_url == CALLBACK_URL


async def test_every_method_gives_the_user_something_to_pay_with(far: Far) -> None:
    for at, method in enumerate(far.adapter.methods):
        row = replace(far.driver.payment(f"{NUMBER[:-1]}{at}"), method=method)
        created = await far.adapter.create_payment(create(row))
        assert created.checkout.value, method
        assert created.checkout.kind in ("redirect", "qr", "client"), method


async def test_a_method_that_must_know_the_payer_sends_nothing_without(far: Far) -> None:
    """The caller is told what to give, instead of the channel refusing it in its own words."""
    for method, needed in far.driver.payer_needed.items():
        row = replace(far.driver.payment(), method=method)
        with pytest.raises(InvalidRequest, match=needed):
            await far.adapter.create_payment(replace(create(row), payer=NO_PAYER))
    assert far.asked(CallKind.CREATE) == []


async def test_creating_twice_creates_once_and_hands_out_the_same_checkout(far: Far) -> None:
    assert await far.create() == await far.create()
    assert len(far.payments()) == 1


async def test_creating_again_after_a_lost_answer_creates_once(far: Far) -> None:
    far.far_side.faults.profile = FaultProfile(create_answer_lost=1.0)
    with pytest.raises(ChannelUnavailable):
        await far.create()
    far.far_side.faults.profile = FaultProfile()
    created = await far.create()
    assert created.checkout.value
    assert len(far.payments()) == 1


async def test_creating_again_with_other_terms_is_refused(far: Far) -> None:
    await far.create()
    with pytest.raises((ChannelRefused, ChannelUnreadable)):
        await far.create(replace(far.driver.payment(), amount=AMOUNT + 1))
    assert far.payments()[0].terms.amount == AMOUNT


async def test_the_channel_is_told_until_when_it_may_take_money(far: Far) -> None:
    """Otherwise an order could be closed here while it can still be paid there."""
    if far.driver.needs_capture:
        pytest.skip("this channel takes money when it is asked to and not by itself")
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(minutes=45)
    created = await far.create(far.driver.payment(payable_until=until, created_at=now))
    assert far.payments()[0].terms.expires_at == until
    assert created.payable_until in (None, until)


async def test_a_refusal_of_a_creation_carries_the_channels_code(far: Far) -> None:
    far.answers(lambda asked: far.driver.refusal(asked, far.driver.refusal_code), to=CallKind.CREATE)
    with pytest.raises(ChannelRefused) as caught:
        await far.create()
    assert caught.value.code == far.driver.refusal_code


async def test_a_code_that_is_no_word_is_not_repeated(far: Far) -> None:
    """It would go into log lines and answers."""
    far.answers(lambda asked: far.driver.refusal(asked, "canary\r\nX: y"), to=CallKind.CREATE)
    with pytest.raises(ChannelError) as caught:
        await far.create()
    assert "canary" not in repr(caught.value)


async def test_an_unsigned_refusal_of_a_creation_is_not_definite_where_the_channel_signs_them(far: Far) -> None:
    """A router between the two can answer 404; with a refusal a payment would be given up."""
    if not far.driver.refusals_are_signed:
        pytest.skip("this channel does not sign its refusals")
    code = far.driver.refusal_code
    far.answers(lambda asked: far.driver.unsigned_answer(far.driver.refusal(asked, code)), to=CallKind.CREATE)
    with pytest.raises(ChannelUnreadable):
        await far.create()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413])
async def test_a_refusal_in_no_words_of_the_channels_is_not_definite(far: Far, status: int) -> None:
    """A router's page, of which the channel itself may never have heard."""
    for body in (b"<!doctype html><h1>Not here</h1>", b"", b"{}", b"null", b'{"code":"", "message":""}'):
        far.answers(lambda _, body=body: Answered(status, {}, body), to=CallKind.CREATE)  # type: ignore[misc]
        with pytest.raises(ChannelUnreadable):
            await far.create()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("number", Said(status="unpaid", number=OTHER_NUMBER)),
        ("merchant", Said(status="unpaid", merchant="other")),
        ("amount", Said(status="unpaid", amount=AMOUNT + 1)),
        ("currency", Said(status="unpaid", currency="JPY")),
    ],
)
async def test_the_checkout_of_another_payment_is_not_handed_out(far: Far, field: str, said: Said) -> None:
    if field not in far.driver.created_tells:
        pytest.skip("this channel does not tell it when it creates a payment")
    body = far.driver.render_created(far.driver.meant(said), CHECKOUTS[far.driver.checkout_kind])
    far.answers(lambda asked: far.driver.answer(asked, 200, body), to=CallKind.CREATE)
    with pytest.raises(ChannelUnreadable):
        await far.create()


async def test_the_checkout_that_the_channel_names_is_handed_out(far: Far) -> None:
    """The counterpart of the ones that are not: an answer of the same making is believed."""
    checkout = CHECKOUTS[far.driver.checkout_kind]
    body = far.driver.render_created(Said(status="unpaid"), checkout)
    far.answers(lambda asked: far.driver.answer(asked, 200, body), to=CallKind.CREATE)
    assert checkout in (await far.create()).checkout.value


@pytest.mark.parametrize("address", NO_WEB_ADDRESSES)
async def test_a_user_is_sent_to_web_addresses_only(far: Far, address: str) -> None:
    """And something to pay with is never nothing."""
    if address and far.driver.checkout_kind != "redirect":
        pytest.skip("nobody is sent anywhere")
    body = far.driver.render_created(Said(status="unpaid"), address)
    far.answers(lambda asked: far.driver.answer(asked, 200, body), to=CallKind.CREATE)
    with pytest.raises(ChannelUnreadable):
        await far.create()


async def test_closing_twice_is_as_good_as_once(far: Far) -> None:
    await far.create()
    far.see()
    await far.adapter.close_payment(far.row)
    await far.adapter.close_payment(far.row)
    closes = far.driver.closes
    assert far.payments()[0].status is (PaymentStatus.CLOSED if closes else PaymentStatus.UNPAID)
    assert isinstance(await far.query(), Closed if closes else Unpaid)


async def test_closing_what_is_paid_raises_nothing_and_leaves_the_word_to_the_query(far: Far) -> None:
    await far.buy()
    await far.adapter.close_payment(far.row)
    assert isinstance(await far.query(), Paid)


async def test_closing_what_is_not_there_raises_nothing_and_leaves_the_word_to_the_query(far: Far) -> None:
    await far.adapter.close_payment(far.row)
    assert isinstance(await far.query(), Missing)


async def test_a_close_whose_answer_was_lost_is_an_unknown_outcome_and_may_have_happened(far: Far) -> None:
    if not far.driver.closes:
        pytest.skip("this channel closes nothing on request")
    await far.create()
    far.see()
    far.far_side.faults.profile = FaultProfile(close_answer_lost=1.0, affected=(CallKind.CLOSE,))
    with pytest.raises(ChannelUnavailable):
        await far.adapter.close_payment(far.row)
    far.far_side.faults.profile = FaultProfile()
    assert isinstance(await far.query(), Closed)


async def test_a_refusal_to_close_is_told(far: Far) -> None:
    if not far.driver.closes:
        pytest.skip("this channel closes nothing on request")
    await far.create()
    far.see()
    far.answers(lambda asked: far.driver.refusal(asked, far.driver.refusal_code), to=CallKind.CLOSE)
    with pytest.raises(ChannelRefused):
        await far.adapter.close_payment(far.row)


async def test_a_number_with_signs_that_addresses_use_is_still_one_number(far: Far) -> None:
    """Where `|` and `*` are allowed in numbers, the address is signed exactly as it is sent."""
    for number in far.driver.numbers:
        created = await far.create(far.driver.payment(number))
        assert created.checkout.value
        far.see()
        told = await far.query()
        assert isinstance(told, Unpaid)
        assert told.out_trade_no == number


async def test_what_could_not_be_called_back_about_is_listed_where_the_channel_has_a_list(far: Far) -> None:
    far.far_side.faults.profile = FaultProfile(callbacks_blocked=True)
    paid = await far.buy()
    assert isinstance(far.adapter, ListsUndelivered) is far.driver.tells_undelivered
    if not isinstance(far.adapter, ListsUndelivered):
        return
    found = await far.adapter.fetch_undelivered()
    (told,) = [one for one in found if isinstance(one, Paid)]
    assert (told.out_trade_no, told.amount) == (paid.terms.out_trade_no, AMOUNT)
    assert told.channel_transaction_id == far.row.channel_transaction_id


async def test_what_is_renewed_every_minute_keeps_the_account_working(far: Far) -> None:
    await far.adapter.keep_current()
    await far.buy()


async def fetch_undelivered(channel: Channel) -> tuple[Evidence, ...]:
    assert isinstance(channel, ListsUndelivered)
    return await channel.fetch_undelivered()


# -- every call ----------------------------------------------------------------------------------------------------

CALLS: dict[CallKind, Callable[[Far], Awaitable[object]]] = {
    CallKind.CREATE: lambda far: far.adapter.create_payment(create(far.driver.payment())),
    CallKind.QUERY: lambda far: far.adapter.query_payment(far.row),
    CallKind.CAPTURE: lambda far: far.adapter.capture_payment(far.row),
    CallKind.CLOSE: lambda far: far.adapter.close_payment(far.row),
    CallKind.REFUND: lambda far: far.adapter.refund_payment(far.row, REFUND_NO, 1),
    CallKind.QUERY_REFUND: lambda far: far.adapter.query_refund(far.row, REFUND_NO),
    CallKind.STATEMENT: lambda far: rows_of(far, TODAY),
    CallKind.UNDELIVERED: lambda far: fetch_undelivered(far.adapter),
}


async def ready(far: Far, call: CallKind) -> None:
    """A payment on which the call makes sense; skips what the channel does not have."""
    driver = far.driver
    has = {CallKind.CAPTURE: driver.needs_capture, CallKind.CLOSE: driver.closes}
    if not has.get(call, call is not CallKind.UNDELIVERED or driver.tells_undelivered):
        pytest.skip("this channel has no such call")
    await far.create()
    far.see()
    if call in (CallKind.REFUND, CallKind.QUERY_REFUND):
        await far.buy()
    elif call is CallKind.CAPTURE:
        far.agree()
    far.middleman.passed.clear()


@pytest.mark.parametrize("call", CALLS)
async def test_no_call_believes_what_is_not_signed(far: Far, call: CallKind) -> None:
    needs_signatures(far)
    await ready(far, call)
    if call in far.driver.unsigned_calls:
        pytest.skip("this call brings a file that is proved in another way")
    far.answers(
        lambda asked: far.driver.unsigned_answer(far.driver.answer(asked, 200, far.driver.render(Said()))), to=call
    )
    with pytest.raises(ChannelUnreadable):
        await CALLS[call](far)


TOLD_BY_THE_NEXT_QUERY = (CallKind.CLOSE, CallKind.CAPTURE)


@pytest.mark.parametrize("call", [call for call in CALLS if call not in TOLD_BY_THE_NEXT_QUERY])
@pytest.mark.parametrize("body", [b"", b"<!doctype html><h1>Back soon</h1>", b"null", b"\xff"], ids=str)
async def test_no_call_takes_nonsense_for_success(far: Far, call: CallKind, body: bytes) -> None:
    await ready(far, call)
    far.answers(lambda asked: far.driver.answer(asked, 200, body), to=call)
    with pytest.raises(ChannelUnreadable):
        await CALLS[call](far)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_that_is_not_answered_is_an_unknown_outcome(far: Far, call: CallKind) -> None:
    await ready(far, call)
    far.answers(lambda _: b"", to=call)
    with pytest.raises(ChannelUnavailable):
        await CALLS[call](far)
    assert far.asked(call), "the call under test was made"


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_answered_that_the_channel_is_broken_is_an_unknown_outcome(
    far: Far, call: CallKind, status: int
) -> None:
    await ready(far, call)

    def broken(asked: Asked) -> Answered:
        return far.driver.refusal(asked, far.driver.refusal_code)._replace(status=status)

    far.answers(broken, to=call)
    with pytest.raises(ChannelUnavailable):
        await CALLS[call](far)


@pytest.mark.parametrize("preceding", PRECEDING)
async def test_a_call_whose_preceding_call_fails_is_an_unknown_outcome(far: Far, preceding: CallKind) -> None:
    """Without a token, or without the key to verify with, nothing was learnt."""
    await far.query()
    if not far.asked(preceding):
        pytest.skip("this channel has no such call")
    far.adapter = far.open()
    far.answers(lambda _: b"", to=preceding)
    with pytest.raises(ChannelUnavailable):
        await far.query()
