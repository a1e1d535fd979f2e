"""Creating, closing, refunding, statements: asked twice they happen once, and only a verified refusal is definite."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from channels.base import Channel, Created, RefundState
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.evidence import Closed, Missing, Paid
from simulator.faults import CallKind, FaultProfile
from simulator.ledger import PaymentStatus
from tests.channels.conftest import Far
from tests.channels.driver import AMOUNT, NUMBER, PAID_AT, TODAY, TRANSACTION, Driver, Said, payment
from tests.channels.wire import Answered, Asked


async def test_creating_gives_the_user_something_to_pay_with(far: Far) -> None:
    created = await far.create()
    assert created.checkout.value
    assert created.checkout.kind in ("redirect", "qr", "client")
    (there,) = far.payments()
    assert (there.terms.out_trade_no, there.terms.amount, there.terms.currency) == (NUMBER, AMOUNT, "CNY")
    assert there.terms.subject == "Tea, 250 g"
    assert there.terms.callback_url == "http://127.0.0.1:9/callbacks/main"


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
    with pytest.raises(ChannelRefused):
        await far.create(replace(payment(), amount=AMOUNT + 1))
    assert far.payments()[0].terms.amount == AMOUNT


async def test_the_channel_is_told_until_when_it_may_take_money(far: Far) -> None:
    """Otherwise an order could be closed here while it can still be paid there."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
    created = await far.create(payment(payable_until=until))
    assert far.payments()[0].terms.expires_at == until
    assert created.payable_until in (None, until)


async def test_a_refusal_of_a_creation_carries_the_channels_code(far: Far) -> None:
    refusal = far.driver.render_refusal("INVALID_PARAMETER")
    far.answers(lambda asked: far.driver.sign_answer(asked, 400, refusal))
    with pytest.raises(ChannelRefused) as caught:
        await far.create()
    assert caught.value.code == "INVALID_PARAMETER"


async def test_an_unsigned_refusal_of_a_creation_is_not_definite(far: Far) -> None:
    """A router between the two can answer 404; with a refusal a payment would be given up."""
    refusal = far.driver.render_refusal("INVALID_PARAMETER")
    far.answers(lambda _: Answered(400, {}, refusal))
    with pytest.raises(ChannelUnreadable):
        await far.create()


@pytest.mark.parametrize(
    "said",
    [
        Said(status="unpaid", number=NUMBER[:-1] + "9"),
        Said(status="unpaid", merchant="m-2002"),
        Said(status="unpaid", amount=AMOUNT + 1),
        Said(status="unpaid", currency="JPY"),
    ],
    ids=["number", "merchant", "amount", "currency"],
)
async def test_the_checkout_of_another_payment_is_not_handed_out(far: Far, said: Said) -> None:
    far.says(said)
    with pytest.raises(ChannelUnreadable):
        await far.create()


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://[", "data:text/html,x", "//evil.example", "http://", ""]
)
async def test_a_user_is_sent_to_web_addresses_only(far: Far, url: str) -> None:
    body = far.driver.render(Said(status="unpaid")).replace(b"https://channel.example/pay/1", url.encode())
    far.answers(lambda asked: far.driver.sign_answer(asked, 200, body))
    with pytest.raises(ChannelUnreadable):
        await far.create()


async def test_closing_twice_is_as_good_as_once(far: Far) -> None:
    await far.create()
    await far.adapter.close_payment(payment())
    await far.adapter.close_payment(payment())
    assert far.payments()[0].status is PaymentStatus.CLOSED


async def test_closing_what_is_paid_raises_nothing_and_leaves_the_word_to_the_query(far: Far) -> None:
    await far.create()
    far.pay()
    await far.adapter.close_payment(payment())
    assert isinstance(await far.adapter.query_payment(payment()), Paid)


async def test_closing_what_is_not_there_raises_nothing_and_leaves_the_word_to_the_query(far: Far) -> None:
    await far.adapter.close_payment(payment())
    assert isinstance(await far.adapter.query_payment(payment()), Missing)


async def test_a_close_whose_answer_was_lost_is_an_unknown_outcome_and_may_have_happened(far: Far) -> None:
    await far.create()
    far.far_side.faults.profile = FaultProfile(close_answer_lost=1.0, affected=(CallKind.CLOSE,))
    with pytest.raises(ChannelUnavailable):
        await far.adapter.close_payment(payment())
    far.far_side.faults.profile = FaultProfile()
    assert isinstance(await far.adapter.query_payment(payment()), Closed)


async def test_a_refusal_to_close_is_told(far: Far) -> None:
    await far.create()
    refusal = far.driver.render_refusal("NOT_ALLOWED")
    far.answers(lambda asked: far.driver.sign_answer(asked, 409, refusal))
    with pytest.raises(ChannelRefused):
        await far.adapter.close_payment(payment())


async def test_refunding_twice_under_one_number_gives_back_once(far: Far) -> None:
    await far.create()
    far.pay()
    for _ in range(2):
        assert await far.adapter.refund_payment(payment(), "R-000001", 1000) is RefundState.SUCCEEDED
    assert far.payments()[0].refunded_amount == 1000
    assert await far.adapter.query_refund(payment(), "R-000001") is RefundState.SUCCEEDED


async def test_a_refund_under_way_is_processing(far: Far) -> None:
    await far.create()
    far.pay()
    far.far_side.faults.profile = FaultProfile(refund_settles_s=3600.0)
    assert await far.adapter.refund_payment(payment(), "R-000001", 1000) is RefundState.PROCESSING
    assert await far.adapter.query_refund(payment(), "R-000001") is RefundState.PROCESSING


async def test_a_refund_that_failed_says_so(far: Far) -> None:
    await far.create()
    far.pay()
    far.far_side.faults.profile = FaultProfile(refund_fails=1.0)
    assert await far.adapter.refund_payment(payment(), "R-000001", 1000) is RefundState.FAILED


async def test_a_refund_of_more_than_was_paid_is_refused(far: Far) -> None:
    await far.create()
    far.pay()
    with pytest.raises(ChannelRefused):
        await far.adapter.refund_payment(payment(), "R-000001", AMOUNT + 1)


async def test_a_refund_that_is_not_there_is_none(far: Far) -> None:
    assert await far.adapter.query_refund(payment(), "R-000404") is None


CALLS: dict[str, Callable[[Far], Awaitable[object]]] = {
    "create": lambda far: far.create(),
    "close": lambda far: far.adapter.close_payment(payment()),
    "refund": lambda far: far.adapter.refund_payment(payment(), "R-000001", 1),
    "query refund": lambda far: far.adapter.query_refund(payment(), "R-000001"),
    "statement": lambda far: far.adapter.fetch_statement(TODAY),
}


@pytest.mark.parametrize("call", CALLS)
async def test_no_call_believes_what_is_not_signed(far: Far, call: str) -> None:
    def unsigned(_: Asked) -> Answered:
        return Answered(200, {}, far.driver.render(Said()))

    far.answers(unsigned)
    with pytest.raises(ChannelUnreadable):
        await CALLS[call](far)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_that_is_not_answered_is_an_unknown_outcome(far: Far, call: str) -> None:
    far.answers(lambda _: b"")
    with pytest.raises(ChannelUnavailable):
        await CALLS[call](far)


async def test_a_number_with_signs_that_addresses_use_is_still_one_number(far: Far) -> None:
    """`|` and `*` are allowed in numbers; the address is signed exactly as it is sent."""
    row = payment("ab|cd*ef_gh-12")
    created: Created = await far.create(row)
    assert created.checkout.value
    assert not isinstance(await far.adapter.query_payment(row), Missing)


# -- statements --------------------------------------------------------------------------------------------------------


async def test_a_statement_tells_what_was_paid_and_what_was_refunded(far: Far) -> None:
    await far.create()
    paid = far.pay()
    far.refund(1000)
    assert paid.paid_at is not None
    statement = await far.adapter.fetch_statement(paid.paid_at.date())
    rows = [(row.kind, row.out_trade_no, row.amount) for row in far.adapter.parse_statement(statement)]
    assert rows == [("payment", NUMBER, AMOUNT), ("refund", NUMBER, 1000)]


def test_rows_of_a_statement_are_read_exactly(offline: Channel, driver: Driver) -> None:
    payment_row, refund_row = offline.parse_statement(driver.statement)
    assert (payment_row.kind, payment_row.out_trade_no, payment_row.refund_no) == ("payment", NUMBER, "")
    assert (payment_row.amount, payment_row.currency, payment_row.at) == (AMOUNT, "CNY", PAID_AT)
    assert payment_row.channel_transaction_id == TRANSACTION
    assert (refund_row.kind, refund_row.refund_no, refund_row.amount) == ("refund", "R-000001", 1000)
    assert refund_row.at == PAID_AT + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"8888", "８８８８".encode()),
        (b"8888", b"8_888"),
        (b"8888", b"+8888"),
        (b"8888", b"-8888"),
        (b"8888", b"88.88"),
        (b"8888", b""),
        (b"04:00:00Z", b"04:00:00"),
        (b"04:00:00Z", b"yesterday"),
        (b",CNY,2026", b"2026"),
        (b"CNY", b"\xff\xfe"),
        (b"payment,0", b"pension,0"),
    ],
)
def test_a_row_that_is_not_of_the_form_makes_the_statement_unreadable(
    offline: Channel, driver: Driver, old: bytes, new: bytes
) -> None:
    with pytest.raises(ChannelUnreadable):
        list(offline.parse_statement(driver.statement.replace(old, new)))


@pytest.mark.parametrize(
    "statement", [b"", b"\n", b"<!doctype html><h1>Back soon</h1>", b'{"code":"SYSTEM_ERROR"}', b"\xff"]
)
def test_what_is_no_statement_is_not_read_as_a_day_without_payments(offline: Channel, statement: bytes) -> None:
    with pytest.raises(ChannelUnreadable):
        list(offline.parse_statement(statement))
