"""Giving money back: once for each refund number, told as it stands, and never guessed."""

import pytest
from msgspec.structs import replace

from channels.base import RefundState
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.evidence import Paid, Refunded
from simulator.kernel.faults import CallKind, FaultProfile
from tests.channels.conftest import Far
from tests.channels.driver import AMOUNT, REFUND_NO
from tests.channels.wire import Answered


def _again(far: Far) -> RefundState:
    """What a refund that was made before is called when it is asked for once more."""
    return RefundState.PROCESSING if far.driver.tells_success_of_refunds_only else RefundState.SUCCEEDED


async def test_refunding_twice_under_one_number_gives_back_once(far: Far) -> None:
    await far.buy()
    assert await far.adapter.refund_payment(far.row, REFUND_NO, 1000) is RefundState.SUCCEEDED
    assert await far.adapter.refund_payment(far.row, REFUND_NO, 1000) is _again(far)
    assert far.payments()[0].refunded_amount == 1000
    assert await far.adapter.query_refund(far.row, REFUND_NO) is RefundState.SUCCEEDED


async def test_a_refund_is_known_to_the_channel_by_its_number(far: Far) -> None:
    """A channel that goes by a header gives back twice what was asked for twice without it."""
    await far.buy()
    await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    (asked,) = far.asked(CallKind.REFUND)
    if far.driver.idempotency_header:
        assert asked.headers.get(far.driver.idempotency_header) == REFUND_NO
    else:
        assert REFUND_NO.encode() in asked.body


async def test_two_refund_numbers_are_two_refunds(far: Far) -> None:
    await far.buy()
    for refund_no, amount in (("R-000001", 1000), ("R-000002", AMOUNT - 1000)):
        assert await far.adapter.refund_payment(far.row, refund_no, amount) is RefundState.SUCCEEDED
    assert far.payments()[0].refunded_amount == AMOUNT
    told = await far.query()
    assert isinstance(told, Refunded if far.driver.queries.refunded(AMOUNT) is not None else Paid)


async def test_one_refund_number_with_another_amount_gives_nothing_more_back(far: Far) -> None:
    """Whatever the channel calls it, the money goes back once."""
    await far.buy()
    await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    with pytest.raises((ChannelRefused, ChannelUnreadable)):
        await far.adapter.refund_payment(far.row, REFUND_NO, 2000)
    assert far.payments()[0].refunded_amount == 1000


async def test_a_refund_whose_answer_was_lost_is_asked_for_again_under_its_number(far: Far) -> None:
    await far.buy()
    far.answers(lambda _: b"", to=CallKind.REFUND)
    with pytest.raises(ChannelUnavailable):
        await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    far.middleman.spoil = lambda _, answered: answered
    assert await far.adapter.refund_payment(far.row, REFUND_NO, 1000) is _again(far)
    assert await far.adapter.query_refund(far.row, REFUND_NO) is RefundState.SUCCEEDED
    assert far.payments()[0].refunded_amount == 1000


async def test_a_refund_under_way_is_processing(far: Far) -> None:
    await far.buy()
    far.far_side.faults.profile = FaultProfile(refund_settles_s=3600.0)
    assert await far.adapter.refund_payment(far.row, REFUND_NO, 1000) is RefundState.PROCESSING
    is_told = not far.driver.tells_success_of_refunds_only
    assert await far.adapter.query_refund(far.row, REFUND_NO) is (RefundState.PROCESSING if is_told else None)


async def test_a_refund_that_failed_says_so(far: Far) -> None:
    await far.buy()
    far.far_side.faults.profile = FaultProfile(refund_fails=1.0)
    if far.driver.tells_success_of_refunds_only:
        with pytest.raises(ChannelRefused):
            await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
        assert await far.adapter.query_refund(far.row, REFUND_NO) is None
    else:
        state = await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
        assert state in (RefundState.FAILED, RefundState.PROCESSING)
        assert await far.adapter.query_refund(far.row, REFUND_NO) is RefundState.FAILED
    assert far.payments()[0].refunded_amount == 0


async def test_a_refund_of_more_than_was_paid_is_refused(far: Far) -> None:
    await far.buy()
    with pytest.raises(ChannelRefused):
        await far.adapter.refund_payment(far.row, REFUND_NO, AMOUNT + 1)
    assert far.payments()[0].refunded_amount == 0


async def test_a_refusal_of_a_refund_carries_the_channels_code(far: Far) -> None:
    await far.buy()
    far.answers(lambda asked: far.driver.refusal(asked, far.driver.refusal_code), to=CallKind.REFUND)
    with pytest.raises(ChannelRefused) as caught:
        await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    assert caught.value.code == far.driver.refusal_code


async def test_a_refund_that_is_not_there_is_none(far: Far) -> None:
    """Of a payment that is there, with another refund and without."""
    await far.buy()
    assert await far.adapter.query_refund(far.row, "R-000404") is None
    await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    assert await far.adapter.query_refund(far.row, "R-000404") is None


async def test_a_refusal_to_tell_of_a_refund_does_not_say_that_there_is_none(far: Far) -> None:
    """Or it would be asked for again under another number."""
    await far.buy()
    await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    code = far.driver.refusal_code
    for status in (400, 404):
        far.answers(
            lambda asked, status=status: far.driver.refusal(asked, code)._replace(status=status),  # type: ignore[misc]
            to=CallKind.QUERY_REFUND,
        )
        with pytest.raises((ChannelRefused, ChannelUnreadable)):
            await far.adapter.query_refund(far.row, REFUND_NO)


async def test_a_refund_of_another_payment_is_not_taken_for_this_ones(far: Far) -> None:
    await far.buy()
    await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
    far.row = replace(far.driver.payment("0190a7c3d1f2a1b2c3d4e5f60999"))
    await far.create(far.row)
    try:
        assert await far.adapter.query_refund(far.row, REFUND_NO) is None
    except ChannelUnreadable:
        return


async def recorded(far: Far, kind: CallKind) -> Answered:
    """What was answered when another refund was asked for, and asked about."""
    await far.buy()
    await far.adapter.refund_payment(far.row, "R-000002", 500)
    await far.adapter.query_refund(far.row, "R-000002")
    asked = far.asked(kind)[-1]
    (answered,) = [answered for one, answered in far.middleman.passed if one is asked]
    return answered


async def test_an_answer_about_another_refund_is_not_taken_for_this_ones(far: Far) -> None:
    answered = await recorded(far, CallKind.QUERY_REFUND)
    far.answers(lambda _: answered, to=CallKind.QUERY_REFUND)
    try:
        assert await far.adapter.query_refund(far.row, REFUND_NO) is None
    except ChannelUnreadable:
        return


async def test_another_refund_that_was_granted_does_not_grant_this_one(far: Far) -> None:
    """With another number, or where the answer does not name it, with another sum."""
    answered = await recorded(far, CallKind.REFUND)
    far.answers(lambda _: answered, to=CallKind.REFUND)
    with pytest.raises(ChannelUnreadable):
        await far.adapter.refund_payment(far.row, REFUND_NO, 1000)
