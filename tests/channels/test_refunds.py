"""Refunds: one for each refund number, with the channel's state, never guessed."""

import pytest
from msgspec.structs import replace

from channels.base import RefundState, StatementRow, TellsRefunds
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.evidence import Paid, Refunded
from simulator.kernel.faults import CallKind, FaultProfile
from tests.channels.conftest import Env, rows_of
from tests.channels.reports import AMOUNT, REFUND_NO
from tests.channels.wire import WireResponse


def _again(env: Env) -> RefundState:
    """State of a repeated refund request."""
    return RefundState.PROCESSING if env.driver.reports_only_successful_refunds else RefundState.SUCCEEDED


async def _queried(env: Env) -> RefundState | None:
    refund = await env.adapter.query_refund(env.row, REFUND_NO)
    return None if refund is None else refund.state


async def test_one_refund_number_requested_twice_is_one_refund(env: Env) -> None:
    await env.buy()
    assert (await env.adapter.refund_payment(env.row, REFUND_NO, 1000)).state is RefundState.SUCCEEDED
    assert (await env.adapter.refund_payment(env.row, REFUND_NO, 1000)).state is _again(env)
    assert env.payments()[0].refunded_amount == 1000
    assert await _queried(env) is RefundState.SUCCEEDED


async def test_the_channels_own_number_of_a_refund_is_the_same_in_every_answer(env: Env) -> None:
    """In the request, its repeat, the query and the statement; another refund has another one. Alipay has none."""
    paid = await env.buy()
    requested = [await env.adapter.refund_payment(env.row, REFUND_NO, 1000) for _ in range(2)]
    other = await env.adapter.refund_payment(env.row, "R-000002", 500)
    queried = await env.adapter.query_refund(env.row, REFUND_NO)
    assert queried is not None
    numbers = {refund.channel_refund_no for refund in (*requested, queried)}
    if not env.driver.gives_refund_numbers:
        assert numbers == {None} == {other.channel_refund_no}
        return
    (number,) = numbers
    assert number not in (None, "", REFUND_NO, other.channel_refund_no)
    assert paid.paid_at is not None
    rows = await rows_of(env, paid.paid_at.astimezone(env.adapter.statement_zone).date())
    stated = {row.channel_refund_no for row in rows if isinstance(row, StatementRow)}
    assert stated == {"", number, other.channel_refund_no}


async def test_a_refund_is_known_to_the_channel_by_its_number(env: Env) -> None:
    """A channel that uses a header would refund twice without it."""
    await env.buy()
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    (request,) = env.calls(CallKind.REFUND)
    if env.driver.idempotency_header:
        assert request.headers.get(env.driver.idempotency_header) == REFUND_NO
    else:
        assert REFUND_NO.encode() in request.body


async def test_two_refund_numbers_are_two_refunds(env: Env) -> None:
    await env.buy()
    for refund_no, amount in (("R-000001", 1000), ("R-000002", AMOUNT - 1000)):
        assert (await env.adapter.refund_payment(env.row, refund_no, amount)).state is RefundState.SUCCEEDED
    assert env.payments()[0].refunded_amount == AMOUNT
    evidence = await env.query()
    assert isinstance(evidence, Refunded if env.driver.queries.refunded(AMOUNT) is not None else Paid)


@pytest.mark.parametrize("given_back", [1000, AMOUNT])
async def test_a_refund_in_the_console_is_never_read_as_a_sale(env: Env, given_back: int) -> None:
    """The answer has its sum or says that it is unknown; a channel that shows no refund in part tells it by number."""
    await env.buy()
    refund_no = env.refund_in_console(given_back)
    evidence = await env.query()
    known = evidence.refunded_amount if isinstance(evidence, Refunded) else 0
    if known == given_back:
        return
    assert known is None or given_back < AMOUNT
    assert isinstance(env.adapter, TellsRefunds)
    assert await env.adapter.query_refunded(env.row, refund_no) == given_back
    assert await env.adapter.query_refunded(env.row, "R-000404") is None


async def test_a_refund_under_way_has_given_nothing_back_yet(env: Env) -> None:
    if not isinstance(env.adapter, TellsRefunds):
        pytest.skip("this channel's query has the total")
    await env.buy()
    env.far_side.faults.profile = FaultProfile(refund_settles_s=3600.0)
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    assert await env.adapter.query_refunded(env.row, REFUND_NO) is None


async def test_one_refund_number_with_another_amount_refunds_nothing_more(env: Env) -> None:
    """With any result of the channel, the money is refunded once."""
    await env.buy()
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    with pytest.raises((ChannelRefused, ChannelUnreadable)):
        await env.adapter.refund_payment(env.row, REFUND_NO, 2000)
    assert env.payments()[0].refunded_amount == 1000


async def test_a_refund_with_a_lost_response_is_repeated_under_its_number(env: Env) -> None:
    await env.buy()
    env.set_response(lambda _: b"", to=CallKind.REFUND)
    with pytest.raises(ChannelUnavailable):
        await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    env.proxy.alter = lambda _, response: response
    assert (await env.adapter.refund_payment(env.row, REFUND_NO, 1000)).state is _again(env)
    assert await _queried(env) is RefundState.SUCCEEDED
    assert env.payments()[0].refunded_amount == 1000


async def test_a_refund_under_way_is_processing(env: Env) -> None:
    await env.buy()
    env.far_side.faults.profile = FaultProfile(refund_settles_s=3600.0)
    assert (await env.adapter.refund_payment(env.row, REFUND_NO, 1000)).state is RefundState.PROCESSING
    is_told = not env.driver.reports_only_successful_refunds
    assert await _queried(env) is (RefundState.PROCESSING if is_told else None)


async def test_a_failed_refund_is_failed(env: Env) -> None:
    await env.buy()
    env.far_side.faults.profile = FaultProfile(refund_fails=1.0)
    if env.driver.reports_only_successful_refunds:
        with pytest.raises(ChannelRefused):
            await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
        assert await env.adapter.query_refund(env.row, REFUND_NO) is None
    else:
        refund = await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
        assert refund.state in (RefundState.FAILED, RefundState.PROCESSING)
        assert await _queried(env) is RefundState.FAILED
    assert env.payments()[0].refunded_amount == 0


async def test_a_refund_of_more_than_was_paid_is_refused(env: Env) -> None:
    await env.buy()
    with pytest.raises(ChannelRefused):
        await env.adapter.refund_payment(env.row, REFUND_NO, AMOUNT + 1)
    assert env.payments()[0].refunded_amount == 0


async def test_a_refusal_of_a_refund_carries_the_channels_code(env: Env) -> None:
    await env.buy()
    env.set_response(lambda request: env.driver.refusal_response(request, env.driver.refusal_code), to=CallKind.REFUND)
    with pytest.raises(ChannelRefused) as caught:
        await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    assert caught.value.code == env.driver.refusal_code


async def test_a_missing_refund_is_none(env: Env) -> None:
    """For an existing payment, with another refund and without."""
    await env.buy()
    assert await env.adapter.query_refund(env.row, "R-000404") is None
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    assert await env.adapter.query_refund(env.row, "R-000404") is None


async def test_a_refused_refund_query_does_not_mean_missing(env: Env) -> None:
    """Otherwise it would be requested again under another number."""
    await env.buy()
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    code = env.driver.refusal_code
    for status in (400, 404):
        env.set_response(
            lambda request, status=status: env.driver.refusal_response(request, code)._replace(status=status),  # type: ignore[misc]
            to=CallKind.QUERY_REFUND,
        )
        with pytest.raises((ChannelRefused, ChannelUnreadable)):
            await env.adapter.query_refund(env.row, REFUND_NO)


async def test_a_refund_of_another_payment_is_unreadable(env: Env) -> None:
    await env.buy()
    await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
    env.row = replace(env.driver.payment("0190a7c3d1f2a1b2c3d4e5f60999"))
    await env.create(env.row)
    try:
        assert await env.adapter.query_refund(env.row, REFUND_NO) is None
    except ChannelUnreadable:
        return


async def recorded(env: Env, kind: CallKind) -> WireResponse:
    """Recorded responses to the request and the query of another refund."""
    await env.buy()
    await env.adapter.refund_payment(env.row, "R-000002", 500)
    await env.adapter.query_refund(env.row, "R-000002")
    request = env.calls(kind)[-1]
    (response,) = [response for one, response in env.proxy.exchanges if one is request]
    return response


async def test_a_response_about_another_refund_is_not_accepted(env: Env) -> None:
    response = await recorded(env, CallKind.QUERY_REFUND)
    env.set_response(lambda _: response, to=CallKind.QUERY_REFUND)
    try:
        assert await env.adapter.query_refund(env.row, REFUND_NO) is None
    except ChannelUnreadable:
        return


async def test_another_refunds_success_does_not_confirm_this_one(env: Env) -> None:
    """With another number or, where the response has none, with another amount."""
    response = await recorded(env, CallKind.REFUND)
    env.set_response(lambda _: response, to=CallKind.REFUND)
    with pytest.raises(ChannelUnreadable):
        await env.adapter.refund_payment(env.row, REFUND_NO, 1000)
