"""Refunds at a channel that fails, is slow or loses responses: each is made once and followed until it is definite."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from core import admission
from core.admission import Urgency
from core.decision import Outcome
from core.errors import DatabaseUnavailable, NotFound, NotPossible
from core.evidence import Source, Unclear
from core.lifecycle import DoublePolicy, LatePolicy
from core.order import OrderState, OrderStatus, PublicStatus, Refund, RefundReason, RefundStatus, public_status
from flows import refund as refund_flow
from flows.accept import accept_late
from flows.ask import query_now
from flows.place import PaymentRequest, Watch, place_order, start_payment
from flows.rearm import arm_window
from flows.refund import refund_scheduled
from flows.refund_request import RefundWish, request_refund
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import Refund as LedgerRefund
from storage.postgres import pending, refunds
from tests.flows.conftest import AMOUNT, HOOK, FlowHarness, order_terms

LEASE_S = 0.05


def refund_of(state: OrderState) -> Refund:
    return state.refunds[-1]


async def arm_no(harness: FlowHarness, state: OrderState) -> int:
    value = await harness.fetch_value("SELECT arm_no FROM refunds WHERE refund_no = $1", refund_of(state).refund_no)
    assert isinstance(value, int)
    return value


async def give_back(harness: FlowHarness, order_no: str, out_trade_no: str) -> OrderState:
    """Refund all that is left of a payment, as an operator."""
    wish = RefundWish(order_no=order_no, out_trade_no=out_trade_no)
    return (await request_refund(harness.resources, wish, by="ann", reason="the buyer asked")).state


async def run_refund_job(harness: FlowHarness, state: OrderState) -> Outcome:
    """Run the job of the refund as if it were due."""
    await harness.make_due()
    return await refund_scheduled(harness.resources, refund_of(state).refund_no, await arm_no(harness, state))


async def due_in_s(harness: FlowHarness) -> float:
    value = await harness.fetch_value("SELECT extract(epoch FROM due_at - now())::float8 FROM refunds")
    assert isinstance(value, float)
    return value


def channel_refunds(harness: FlowHarness) -> list[LedgerRefund]:
    """Refunds that the channel has accepted."""
    return list(harness.simulation.ledger.refunds())


def refund_calls(harness: FlowHarness) -> list[str]:
    """Calls about refunds, in the order of arrival."""
    call_kinds = (str(arrival.kind) for arrival in harness.simulation.traffic.since(0.0))
    return [kind for kind in call_kinds if "refund" in kind]


async def notification_types(harness: FlowHarness) -> list[str]:
    sql = "SELECT string_agg(type, ' ' ORDER BY version) FROM notifications"
    return str(await harness.fetch_value(sql)).split()


# -- refunds that succeed --------------------------------------------------------------------------------------------


async def test_late_money_is_refunded_and_its_case_is_resolved(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    assert (refund_of(state).status, refund_of(state).amount) == (RefundStatus.REQUESTED, AMOUNT)
    assert await harness.cases(state.order.order_no) == ["paid_late"]
    assert public_status(state.order, state.payments) is PublicStatus.REVIEW

    assert await run_refund_job(harness, state) is Outcome.REFUNDED

    after = await harness.state(state)
    assert (after.order.status, refund_of(after).status) == (OrderStatus.CLOSED, RefundStatus.SUCCEEDED)
    assert after.payments[0].refunded_amount == AMOUNT
    assert public_status(after.order, after.payments) is PublicStatus.REFUNDED
    assert await harness.cases(state.order.order_no) == []
    assert await notification_types(harness) == ["order.closed", "order.paid_late", "order.refunded"]
    assert refund_calls(harness) == ["refund"]
    [channel_refund] = channel_refunds(harness)
    assert (channel_refund.refund_no, channel_refund.amount) == (refund_of(after).refund_no, AMOUNT)


async def test_a_double_payment_is_refunded_and_the_order_stays_paid(harness: FlowHarness) -> None:
    await harness.add_account("second", double_policy=DoublePolicy.REFUND)
    state = await harness.placed_order(notify_url=HOOK)
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="second"))).state
    for payment in state.payments:
        harness.pay(payment)
        transaction = harness.transaction_of(payment)
        await harness.receive(payment.channel_account, harness.callback(payment, transaction=transaction))
    state = await harness.state(state)
    assert refund_of(state).reason is RefundReason.DOUBLE

    assert await run_refund_job(harness, state) is Outcome.REFUNDED

    after = await harness.state(state)
    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert [payment.refunded_amount for payment in after.payments] == [0, AMOUNT]
    assert await harness.cases(state.order.order_no) == []
    assert await notification_types(harness) == ["order.paid", "order.double_payment", "order.refunded"]
    assert [refund.out_trade_no for refund in channel_refunds(harness)] == [state.payments[1].out_trade_no]


async def test_the_refund_job_is_armed_after_the_commit(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    queued_jobs = await harness.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert [job for job in queued_jobs if f"r:{refund_of(state).refund_no}:1".encode() in job]


async def test_a_refund_job_is_armed_again_after_a_redis_flush(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    await harness.resources.redis.flushdb()
    assert await arm_window(harness.resources, from_s=0.0, until_s=60.0) >= 1
    queued_jobs = await harness.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert [job for job in queued_jobs if refund_of(state).refund_no.encode() in job]


async def test_a_job_with_an_old_arm_number_makes_no_call(harness: FlowHarness) -> None:
    harness.simulation.faults.profile = FaultProfile(refund_settles_s=3600.0)
    state = await harness.order_with_late_money()
    await run_refund_job(harness, state)
    before = refund_calls(harness)
    assert await refund_scheduled(harness.resources, refund_of(state).refund_no, 1) is Outcome.STALE
    assert refund_calls(harness) == before


# -- a channel that is slow or fails ---------------------------------------------------------------------------------


async def test_a_processing_refund_is_queried_after_n_squared_units(harness: FlowHarness) -> None:
    harness.simulation.faults.profile = FaultProfile(refund_settles_s=3600.0)
    state = await harness.order_with_late_money()
    for attempt, gap_s in ((2, 240), (3, 540), (4, 960)):
        assert await run_refund_job(harness, state) is Outcome.REFUND_PROCESSING
        after = refund_of(await harness.state(state))
        assert (after.status, after.attempt) == (RefundStatus.PROCESSING, attempt)
        assert gap_s - 5 < await due_in_s(harness) <= gap_s
    assert refund_calls(harness) == ["refund", "query_refund", "query_refund"]
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    [channel_refund] = channel_refunds(harness)
    harness.simulation.ledger.settle_refund(channel_refund.key, harness.simulation.now(), succeeds=True)
    assert await run_refund_job(harness, state) is Outcome.REFUNDED


async def test_a_failed_refund_opens_a_case_and_an_operator_can_request_another(harness: FlowHarness) -> None:
    harness.simulation.faults.profile = FaultProfile(refund_fails=1.0)
    state = await harness.order_with_late_money()
    assert await run_refund_job(harness, state) is Outcome.REFUND_FAILED
    assert await harness.cases(state.order.order_no) == ["paid_late", "refund_failed"]
    assert "order.refunded" not in await notification_types(harness)

    harness.simulation.faults.profile = FaultProfile()
    number = state.payments[0].out_trade_no
    state_after_request = await give_back(harness, state.order.order_no, number)
    assert refund_of(state_after_request).refund_no == f"r2_{number}"
    assert await run_refund_job(harness, state_after_request) is Outcome.REFUNDED
    assert await harness.cases(state.order.order_no) == []
    assert [str(refund.status) for refund in channel_refunds(harness)] == ["failed", "succeeded"]


async def test_a_refused_refund_that_a_query_does_not_find_has_failed(harness: FlowHarness) -> None:
    """The money was refunded at the channel itself, under another number."""
    state = await harness.order_with_late_money()
    refunded_outside(harness, state)
    assert await run_refund_job(harness, state) is Outcome.REFUND_FAILED
    assert refund_calls(harness) == ["refund", "query_refund"]
    assert refund_of(await harness.state(state)).last_error == "refused: AMOUNT_EXCEEDED"
    assert await harness.cases(state.order.order_no) == ["paid_late", "refund_failed"]


async def test_a_refused_refund_is_unclear_until_a_query_answers(harness: FlowHarness) -> None:
    """The query for the refund gets no response, so nothing is known."""
    state = await harness.order_with_late_money()
    refunded_outside(harness, state)
    harness.simulation.faults.profile = FaultProfile(affected=(CallKind.QUERY_REFUND,), answered_5xx=1.0)
    assert await run_refund_job(harness, state) is Outcome.UNCLEAR
    assert refund_of(await harness.state(state)).status is RefundStatus.REQUESTED
    assert await harness.cases(state.order.order_no) == ["paid_late"]


def refunded_outside(harness: FlowHarness, state: OrderState) -> None:
    key, now = harness.key_of(state.payments[0]), harness.simulation.now()
    channel_refund = harness.simulation.ledger.refund(key, "by-hand-1", AMOUNT, now)
    assert isinstance(channel_refund, LedgerRefund)
    harness.simulation.ledger.settle_refund(channel_refund.key, now, succeeds=True)


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(down=True),
        FaultProfile(affected=(CallKind.REFUND,), answered_5xx=1.0),
        FaultProfile(affected=(CallKind.REFUND,), html_error=1.0),
        FaultProfile(affected=(CallKind.REFUND,), timed_out=1.0),
    ],
    ids=["down", "5xx", "unreadable", "timed out"],
)
async def test_a_refund_request_without_a_response_is_unclear(harness: FlowHarness, profile: FaultProfile) -> None:
    state = await harness.order_with_late_money()
    harness.simulation.faults.profile = profile
    with harness.short_timeouts():
        assert await run_refund_job(harness, state) is Outcome.UNCLEAR
    after = refund_of(await harness.state(state))
    assert (after.status, after.attempt) == (RefundStatus.REQUESTED, 2)
    assert after.last_error
    assert 235 < await due_in_s(harness) <= 240
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    harness.simulation.faults.profile = FaultProfile()
    assert await run_refund_job(harness, state) is Outcome.REFUNDED
    assert len(channel_refunds(harness)) == 1


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.REFUND,), cut=1.0),
        FaultProfile(affected=(CallKind.REFUND,), truncated=1.0),
        FaultProfile(affected=(CallKind.REFUND,), slow=1.0, slow_s=8.0),
    ],
    ids=["cut", "truncated", "too slow"],
)
async def test_a_refund_whose_response_was_lost_is_made_once(harness: FlowHarness, profile: FaultProfile) -> None:
    """The channel has made the refund. It is queried before it is requested again."""
    state = await harness.order_with_late_money()
    harness.simulation.faults.profile = profile
    with harness.short_timeouts(channel_s=4.0):  # the request arrives within it
        assert await run_refund_job(harness, state) is Outcome.UNCLEAR
    assert await run_refund_job(harness, state) is Outcome.REFUNDED
    assert refund_calls(harness) == ["refund", "query_refund"]
    assert [refund.amount for refund in channel_refunds(harness)] == [AMOUNT]


async def test_used_up_attempts_open_a_case_and_the_refund_is_queried_daily(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    harness.simulation.faults.profile = FaultProfile(down=True)
    await harness.fetch_value("UPDATE refunds SET attempt = 16 RETURNING attempt")
    assert await run_refund_job(harness, state) is Outcome.EXHAUSTED
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted", "paid_late"]
    assert 86_395 < await due_in_s(harness) <= 86_400
    assert await run_refund_job(harness, state) is Outcome.UNCLEAR
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted", "paid_late"]

    harness.simulation.faults.profile = FaultProfile()
    assert await run_refund_job(harness, state) is Outcome.REFUNDED
    assert await harness.cases(state.order.order_no) == []


async def test_a_refund_of_a_deleted_account_is_unclear(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    await harness.fetch_value("DELETE FROM accounts WHERE name <> 'main' RETURNING name")
    harness.resources.accounts._read_at = -1e9
    assert await run_refund_job(harness, state) is Outcome.UNCLEAR
    assert refund_of(await harness.state(state)).last_error == "unknown_account"


async def test_a_refund_that_waits_for_admission_uses_no_attempt(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    for _ in range(10):
        await harness.resources.admission.report("late-refund", admission.CallKind.REFUND, answered=False)
    assert await run_refund_job(harness, state) is Outcome.NOT_YET
    after = refund_of(await harness.state(state))
    assert (after.attempt, refund_calls(harness)) == (1, [])
    assert await due_in_s(harness) < 60


# -- killed and simultaneous workers ---------------------------------------------------------------------------------


async def test_a_worker_killed_before_its_commit_makes_one_refund(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ends, and the next worker queries the channel before it requests anything."""
    state = await harness.order_with_late_money()

    async def fail_commit(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr(refund_flow, "commit_decision", fail_commit)
        with pytest.raises(DatabaseUnavailable):
            await run_refund_job(harness, state)
    assert refund_of(await harness.state(state)).status is RefundStatus.REQUESTED
    assert await run_refund_job(harness, state) is Outcome.STALE, "its lease is still held"

    await harness.fetch_value("UPDATE refunds SET due_at = due_at - interval '1 h', leased_until = now() RETURNING 1")
    assert await harness.sweep("refunds") == 1
    assert refund_of(await harness.state(state)).status is RefundStatus.SUCCEEDED
    assert refund_calls(harness) == ["refund", "query_refund"]
    assert len(channel_refunds(harness)) == 1


async def test_the_sweep_makes_the_refund_of_a_worker_killed_before_its_request(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    assert await refunds.claim(harness.resources.db, refund_of(state).refund_no, LEASE_S, arm_no=1) is not None
    await harness.fetch_value("UPDATE refunds SET due_at = due_at - interval '1 h', leased_until = now() RETURNING 1")
    assert await harness.sweep("refunds") == 1
    assert refund_calls(harness) == ["query_refund", "refund"]
    assert refund_of(await harness.state(state)).status is RefundStatus.SUCCEEDED


async def test_simultaneous_workers_make_one_refund(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    outcomes = await asyncio.gather(
        *(refund_scheduled(harness.resources, refund_of(state).refund_no, 1) for _ in range(10))
    )
    assert sorted(outcomes) == [Outcome.REFUNDED, *[Outcome.STALE] * 9]
    assert refund_calls(harness) == ["refund"]


async def test_a_callback_about_our_own_refund_opens_no_case(harness: FlowHarness) -> None:
    """The callback arrives before the response to our request is committed, and again after it."""
    state = await harness.order_with_late_money()
    callback_fields: dict[str, Any] = {
        "status": "refunded",
        "refunded": AMOUNT,
        "transaction": harness.transaction_of(state.payments[0]),
    }
    key, now = harness.key_of(state.payments[0]), harness.simulation.now()
    channel_refund = harness.simulation.ledger.refund(key, refund_of(state).refund_no, AMOUNT, now)
    assert isinstance(channel_refund, LedgerRefund)
    harness.simulation.ledger.settle_refund(channel_refund.key, now, succeeds=True)
    account = state.payments[0].channel_account
    await harness.receive(account, harness.callback(state.payments[0], **callback_fields))
    state_after_callback = await harness.state(state)
    assert (state_after_callback.payments[0].refunded_amount, refund_of(state_after_callback).status) == (
        AMOUNT,
        RefundStatus.REQUESTED,
    )
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    assert await run_refund_job(harness, state) is Outcome.REFUNDED
    await harness.receive(account, harness.callback(state.payments[0], **callback_fields))
    assert await harness.cases(state.order.order_no) == []
    assert (await harness.state(state)).payments[0].refunded_amount == AMOUNT


# -- refunds by an operator ------------------------------------------------------------------------------------------


async def test_an_operator_refunds_flagged_money_once(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money(LatePolicy.FLAG)
    assert state.refunds == ()
    number = state.payments[0].out_trade_no
    request: Callable[[], Awaitable[OrderState]] = partial(give_back, harness, state.order.order_no, number)
    states = await asyncio.gather(*(request() for _ in range(4)))
    assert {refund_of(after).refund_no for after in states} == {f"r{number}"}
    with pytest.raises(NotPossible):
        await accept_late(harness.resources, state.order.order_no, by="bob")
    assert await run_refund_job(harness, states[0]) is Outcome.REFUNDED
    assert (await request()).order.version == (await harness.state(state)).order.version
    assert len(channel_refunds(harness)) == 1
    assert await harness.cases(state.order.order_no) == []


async def test_an_operator_cannot_refund_what_is_not_paid_or_not_there(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    number = state.payments[0].out_trade_no
    with pytest.raises(NotPossible, match="not paid"):
        await give_back(harness, state.order.order_no, number)
    for order_no, wrong in (("F-unknown", number), (state.order.order_no, "another-1")):
        with pytest.raises(NotFound):
            await give_back(harness, order_no, wrong)
    assert refund_calls(harness) == []


async def test_a_watched_payment_is_flagged_and_never_refunded(harness: FlowHarness) -> None:
    """The policies of the account do not apply, because nodrop did not create the payment."""
    account = await harness.add_account(
        "watched", late_policy=LatePolicy.REFUND, double_policy=DoublePolicy.REFUND, trust_callback=True
    )
    request = PaymentRequest(account=account, watch=Watch(out_trade_no="elsewhere-000001"))
    state = (await place_order(harness.resources, order_terms(), request, expires_in_s=600.0)).state
    sql = """WITH p AS (UPDATE payments SET status = 'closed'), q AS (DELETE FROM pending)
             UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 RETURNING 1"""
    await harness.fetch_value(sql)
    await harness.receive(account, harness.callback(state.payments[0]))
    after = await harness.state(state)
    assert (await harness.cases(state.order.order_no), after.refunds) == (["paid_late"], ())
    with pytest.raises(NotPossible, match="only watched"):
        await give_back(harness, state.order.order_no, "elsewhere-000001")
    assert await pending.claim(harness.resources.db, state.payments[0].key, LEASE_S) is None
    assert refund_calls(harness) == []


# -- the channel's own number ------------------------------------------------------------------------------------------


async def set_number(harness: FlowHarness, number: str | None) -> None:
    """As if the channel had given another number before, or none."""
    value = "NULL" if number is None else f"'{number}'"
    sql = f"SET LOCAL session_replication_role = replica; UPDATE refunds SET channel_refund_no = {value}"  # noqa: S608 - ours
    await harness.resources.db.execute(sql)


async def test_a_second_number_of_the_channel_is_a_case_and_the_first_one_stays(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    await set_number(harness, "rf-of-before")
    assert await run_refund_job(harness, state) is Outcome.REFUNDED
    refund = refund_of(await harness.state(state))
    assert (refund.status, refund.channel_refund_no) == (RefundStatus.SUCCEEDED, "rf-of-before")
    assert await harness.cases(state.order.order_no) == ["number_reused"]


async def test_a_refund_notice_brings_the_number_of_a_refund_that_lacks_it(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money()
    assert await run_refund_job(harness, state) is Outcome.REFUNDED
    await set_number(harness, None)
    key, refund_no = state.payments[0].key, refund_of(state).refund_no
    notice = Unclear(**key._asdict(), reason="refund_told", refund_no=refund_no, channel_refund_no="rf-told")
    account = await harness.resources.accounts.get(key.channel_account)
    ask = partial(query_now, harness.resources, account, by=Source.CALLBACK, urgency=Urgency.REFRESH, leased=None)
    for _ in range(2):
        await ask((await harness.state(state)).payments[0], notice=notice)
    assert refund_of(await harness.state(state)).channel_refund_no == "rf-told"
    sql = "SELECT count(*) FROM order_events WHERE kind = 'refund_seen'"
    assert await harness.fetch_value(sql) == 1
