"""Money that goes back, at a channel that fails, takes its time, or whose answers are lost: once, and to the end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.decision import Outcome
from core.errors import DatabaseUnavailable, InvalidRequest, NotFound
from core.lifecycle import DoublePolicy, LatePolicy
from core.order import OrderState, OrderStatus, PublicStatus, Refund, RefundReason, RefundStatus, public_status
from flows import refund as flow
from flows.accept import accept_late
from flows.close import request_close
from flows.notify import Notifier
from flows.place import PaymentRequest, Watch, place_order, start_payment
from flows.rearm import arm_window
from flows.refund import refund_scheduled, request_refund
from flows.sweep import sweep_once
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kernel.ledger import Refund as LedgerRefund
from storage.postgres import pending, refunds
from tests.flows.conftest import AMOUNT, FlowHarness, order_terms

HOOK = "https://merchant.example/hook"
WAIT = 0.05


async def came_late(harness: FlowHarness, policy: LatePolicy = LatePolicy.REFUND, **config: Any) -> OrderState:
    """An order that was closed at its channel, and the money that was under way arrived all the same."""
    account = await harness.add_account(f"late-{policy}", late_policy=policy, **config)
    state = await harness.placed(account, notify_url=HOOK)
    assert (await request_close(harness.resources, state.order.order_no)).order.status is OrderStatus.CLOSED
    paid = harness.far_side.ledger.settle_late(harness.key_of(state.payments[0]), harness.far_side.now())
    assert isinstance(paid, LedgerPayment)
    await harness.receive(account, harness.callback(state.payments[0], transaction=paid.transaction_id))
    return await harness.state(state)


def refund_of(state: OrderState) -> Refund:
    return state.refunds[-1]


async def arm_no(harness: FlowHarness, state: OrderState) -> int:
    found = await harness.one("SELECT arm_no FROM refunds WHERE refund_no = $1", refund_of(state).refund_no)
    assert isinstance(found, int)
    return found


async def work(harness: FlowHarness, state: OrderState) -> Outcome:
    """The refund's job, whenever it is due."""
    return await refund_scheduled(harness.resources, refund_of(state).refund_no, await arm_no(harness, state))


async def due_in_s(harness: FlowHarness) -> float:
    found = await harness.one("SELECT extract(epoch FROM due_at - now())::float8 FROM refunds")
    assert isinstance(found, float)
    return found


def at_channel(harness: FlowHarness) -> list[LedgerRefund]:
    """Every refund that the channel has made or promised."""
    return list(harness.far_side.ledger.refunds())


def calls(harness: FlowHarness) -> list[str]:
    """What the channel was asked about refunds, in order."""
    asked = (str(arrival.kind) for arrival in harness.far_side.traffic.since(0.0))
    return [kind for kind in asked if "refund" in kind]


async def notified(harness: FlowHarness) -> list[str]:
    sql = "SELECT string_agg(type, ' ' ORDER BY version) FROM notifications"
    return str(await harness.one(sql)).split()


# -- from the money to the end -----------------------------------------------------------------------------------------


async def test_late_money_goes_back_and_the_case_is_answered(harness: FlowHarness) -> None:
    state = await came_late(harness)
    assert (refund_of(state).status, refund_of(state).amount) == (RefundStatus.REQUESTED, AMOUNT)
    assert await harness.cases(state.order.order_no) == ["paid_late"]
    assert public_status(state.order, state.payments) is PublicStatus.REVIEW

    assert await work(harness, state) is Outcome.REFUNDED

    after = await harness.state(state)
    assert (after.order.status, refund_of(after).status) == (OrderStatus.CLOSED, RefundStatus.SUCCEEDED)
    assert after.payments[0].refunded_amount == AMOUNT
    assert public_status(after.order, after.payments) is PublicStatus.REFUNDED
    assert await harness.cases(state.order.order_no) == []
    assert await notified(harness) == ["order.closed", "order.paid_late", "order.refunded"]
    assert calls(harness) == ["refund"]
    [made] = at_channel(harness)
    assert (made.refund_no, made.amount) == (refund_of(after).refund_no, AMOUNT)


async def test_a_second_payments_money_goes_back_and_the_order_stays_paid(harness: FlowHarness) -> None:
    await harness.add_account("second", double_policy=DoublePolicy.REFUND)
    state = await harness.placed(notify_url=HOOK)
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="second"))).state
    for payment in state.payments:
        harness.pay(payment)
        transaction = harness.transaction_of(payment)
        await harness.receive(payment.channel_account, harness.callback(payment, transaction=transaction))
    state = await harness.state(state)
    assert refund_of(state).reason is RefundReason.DOUBLE

    assert await work(harness, state) is Outcome.REFUNDED

    after = await harness.state(state)
    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert [payment.refunded_amount for payment in after.payments] == [0, AMOUNT]
    assert await harness.cases(state.order.order_no) == []
    assert await notified(harness) == ["order.paid", "order.double_payment", "order.refunded"]
    assert [refund.out_trade_no for refund in at_channel(harness)] == [state.payments[1].out_trade_no]


async def test_the_refunds_job_is_armed_with_the_commit(harness: FlowHarness) -> None:
    state = await came_late(harness)
    armed = await harness.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert [job for job in armed if f"r:{refund_of(state).refund_no}:1".encode() in job]


async def test_after_a_flush_of_redis_it_is_armed_again(harness: FlowHarness) -> None:
    state = await came_late(harness)
    await harness.resources.redis.flushdb()
    assert await arm_window(harness.resources, from_s=0.0, until_s=60.0) >= 1
    armed = await harness.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert [job for job in armed if refund_of(state).refund_no.encode() in job]


async def test_a_job_of_an_older_scheduling_asks_nobody(harness: FlowHarness) -> None:
    harness.far_side.faults.profile = FaultProfile(refund_settles_s=3600.0)
    state = await came_late(harness)
    await work(harness, state)
    before = calls(harness)
    assert await refund_scheduled(harness.resources, refund_of(state).refund_no, 1) is Outcome.STALE
    assert calls(harness) == before


# -- a channel that takes its time, or fails ---------------------------------------------------------------------------


async def test_a_refund_in_processing_is_asked_about_after_n_squared_units(harness: FlowHarness) -> None:
    harness.far_side.faults.profile = FaultProfile(refund_settles_s=3600.0)
    state = await came_late(harness)
    for attempt, gap_s in ((2, 240), (3, 540), (4, 960)):
        assert await work(harness, state) is Outcome.REFUND_PROCESSING
        after = refund_of(await harness.state(state))
        assert (after.status, after.attempt) == (RefundStatus.PROCESSING, attempt)
        assert gap_s - 5 < await due_in_s(harness) <= gap_s
    assert calls(harness) == ["refund", "query_refund", "query_refund"]
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    [made] = at_channel(harness)
    harness.far_side.ledger.settle_refund(made.key, harness.far_side.now(), succeeds=True)
    assert await work(harness, state) is Outcome.REFUNDED


async def test_a_refund_that_fails_is_a_case_and_an_operator_can_request_another(harness: FlowHarness) -> None:
    harness.far_side.faults.profile = FaultProfile(refund_fails=1.0)
    state = await came_late(harness)
    assert await work(harness, state) is Outcome.REFUND_FAILED
    assert await harness.cases(state.order.order_no) == ["paid_late", "refund_failed"]
    assert "order.refunded" not in await notified(harness)

    harness.far_side.faults.profile = FaultProfile()
    number = state.payments[0].out_trade_no
    again = await request_refund(harness.resources, state.order.order_no, number, by="ann")
    assert refund_of(again).refund_no == f"r2_{number}"
    assert await work(harness, again) is Outcome.REFUNDED
    assert await harness.cases(state.order.order_no) == []
    assert [str(refund.status) for refund in at_channel(harness)] == ["failed", "succeeded"]


async def test_a_refusal_is_a_failure_once_the_channel_knows_no_such_refund(harness: FlowHarness) -> None:
    """Somebody has given the money back at the channel itself, under another number."""
    state = await came_late(harness)
    refunded_outside(harness, state)
    assert await work(harness, state) is Outcome.REFUND_FAILED
    assert calls(harness) == ["refund", "query_refund"]
    assert refund_of(await harness.state(state)).last_error == "refused: AMOUNT_EXCEEDED"
    assert await harness.cases(state.order.order_no) == ["paid_late", "refund_failed"]


async def test_a_refusal_alone_is_not_a_failure(harness: FlowHarness) -> None:
    """Asked whether it has the refund, the channel does not answer: then nothing is known."""
    state = await came_late(harness)
    refunded_outside(harness, state)
    harness.far_side.faults.profile = FaultProfile(affected=(CallKind.QUERY_REFUND,), answered_5xx=1.0)
    assert await work(harness, state) is Outcome.UNCLEAR
    assert refund_of(await harness.state(state)).status is RefundStatus.REQUESTED
    assert await harness.cases(state.order.order_no) == ["paid_late"]


def refunded_outside(harness: FlowHarness, state: OrderState) -> None:
    key, now = harness.key_of(state.payments[0]), harness.far_side.now()
    made = harness.far_side.ledger.refund(key, "by-hand-1", AMOUNT, now)
    assert isinstance(made, LedgerRefund)
    harness.far_side.ledger.settle_refund(made.key, now, succeeds=True)


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(down=True),
        FaultProfile(affected=(CallKind.REFUND,), answered_5xx=1.0),
        FaultProfile(affected=(CallKind.REFUND,), html_error=1.0),
        FaultProfile(affected=(CallKind.REFUND,), timed_out=1.0),
    ],
    ids=["down", "5xx", "nonsense", "timed out"],
)
async def test_not_being_answered_is_never_failure(harness: FlowHarness, profile: FaultProfile) -> None:
    state = await came_late(harness)
    harness.far_side.faults.profile = profile
    assert await work(harness, state) is Outcome.UNCLEAR
    after = refund_of(await harness.state(state))
    assert (after.status, after.attempt) == (RefundStatus.REQUESTED, 2)
    assert after.last_error
    assert 235 < await due_in_s(harness) <= 240
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    harness.far_side.faults.profile = FaultProfile()
    assert await work(harness, state) is Outcome.REFUNDED
    assert len(at_channel(harness)) == 1


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.REFUND,), cut=1.0),
        FaultProfile(affected=(CallKind.REFUND,), truncated=1.0),
        FaultProfile(affected=(CallKind.REFUND,), slow=1.0, slow_s=1.5),
    ],
    ids=["cut", "truncated", "too slow"],
)
async def test_an_answer_lost_after_the_effect_is_one_refund(harness: FlowHarness, profile: FaultProfile) -> None:
    """The channel has done it. It is asked whether it has, before it is asked to do it again."""
    state = await came_late(harness)
    harness.far_side.faults.profile = profile
    assert await work(harness, state) is Outcome.UNCLEAR
    assert await work(harness, state) is Outcome.REFUNDED
    assert calls(harness) == ["refund", "query_refund"]
    assert [refund.amount for refund in at_channel(harness)] == [AMOUNT]


async def test_used_up_attempts_open_a_case_and_it_is_asked_daily(harness: FlowHarness) -> None:
    state = await came_late(harness)
    harness.far_side.faults.profile = FaultProfile(down=True)
    await harness.one("UPDATE refunds SET attempt = 16 RETURNING attempt")
    assert await work(harness, state) is Outcome.EXHAUSTED
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted", "paid_late"]
    assert 86_395 < await due_in_s(harness) <= 86_400
    assert await work(harness, state) is Outcome.UNCLEAR
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted", "paid_late"]

    harness.far_side.faults.profile = FaultProfile()
    assert await work(harness, state) is Outcome.REFUNDED
    assert await harness.cases(state.order.order_no) == []


async def test_an_account_that_is_gone_is_no_failure(harness: FlowHarness) -> None:
    state = await came_late(harness)
    await harness.one("DELETE FROM accounts WHERE name <> 'main' RETURNING name")
    harness.resources.accounts._read_at = -1e9
    assert await work(harness, state) is Outcome.UNCLEAR
    assert refund_of(await harness.state(state)).last_error == "unknown_account"


async def test_waiting_for_the_rate_uses_up_no_attempt(harness: FlowHarness) -> None:
    state = await came_late(harness)
    for _ in range(10):
        await harness.resources.admission.report("late-refund", answered=False)
    assert await work(harness, state) is Outcome.NOT_YET
    after = refund_of(await harness.state(state))
    assert (after.attempt, calls(harness)) == (1, [])
    assert await due_in_s(harness) < 60


# -- processes that die, and many of them ------------------------------------------------------------------------------


async def test_a_worker_killed_between_the_request_and_the_commit_is_one_refund(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ends, and whoever comes next asks the channel before requesting anything."""
    state = await came_late(harness)

    async def killed(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("as if the process had ended here")

    with monkeypatch.context() as patched:
        patched.setattr(flow, "commit_decision", killed)
        with pytest.raises(DatabaseUnavailable):
            await work(harness, state)
    assert refund_of(await harness.state(state)).status is RefundStatus.REQUESTED
    assert await work(harness, state) is Outcome.STALE, "its lease is still held"

    await harness.one("UPDATE refunds SET due_at = due_at - interval '1 h', leased_until = now() RETURNING 1")
    async with Notifier(harness.resources.settings) as notifier:
        assert (await sweep_once(harness.resources, notifier)).refunds == 1
    assert refund_of(await harness.state(state)).status is RefundStatus.SUCCEEDED
    assert calls(harness) == ["refund", "query_refund"]
    assert len(at_channel(harness)) == 1


async def test_a_worker_killed_before_it_asked_leaves_the_refund_to_the_sweep(harness: FlowHarness) -> None:
    state = await came_late(harness)
    assert await refunds.claim(harness.resources.db, refund_of(state).refund_no, WAIT, arm_no=1) is not None
    await harness.one("UPDATE refunds SET due_at = due_at - interval '1 h', leased_until = now() RETURNING 1")
    async with Notifier(harness.resources.settings) as notifier:
        assert (await sweep_once(harness.resources, notifier)).refunds == 1
    assert calls(harness) == ["query_refund", "refund"]
    assert refund_of(await harness.state(state)).status is RefundStatus.SUCCEEDED


async def test_many_workers_at_once_are_one_refund(harness: FlowHarness) -> None:
    state = await came_late(harness)
    outcomes = await asyncio.gather(
        *(refund_scheduled(harness.resources, refund_of(state).refund_no, 1) for _ in range(10))
    )
    assert sorted(outcomes) == [Outcome.REFUNDED, *[Outcome.STALE] * 9]
    assert calls(harness) == ["refund"]


async def test_the_channels_own_callback_about_our_refund_is_no_case(harness: FlowHarness) -> None:
    """It comes before we have committed what the channel answered to our request, and after."""
    state = await came_late(harness)
    said: dict[str, Any] = {
        "status": "refunded",
        "refunded": AMOUNT,
        "transaction": harness.transaction_of(state.payments[0]),
    }
    key, now = harness.key_of(state.payments[0]), harness.far_side.now()
    made = harness.far_side.ledger.refund(key, refund_of(state).refund_no, AMOUNT, now)
    assert isinstance(made, LedgerRefund)
    harness.far_side.ledger.settle_refund(made.key, now, succeeds=True)
    account = state.payments[0].channel_account
    await harness.receive(account, harness.callback(state.payments[0], **said))
    seen = await harness.state(state)
    assert (seen.payments[0].refunded_amount, refund_of(seen).status) == (AMOUNT, RefundStatus.REQUESTED)
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    assert await work(harness, state) is Outcome.REFUNDED
    await harness.receive(account, harness.callback(state.payments[0], **said))
    assert await harness.cases(state.order.order_no) == []
    assert (await harness.state(state)).payments[0].refunded_amount == AMOUNT


# -- an operator decides -----------------------------------------------------------------------------------------------


async def test_an_operator_gives_flagged_money_back_once(harness: FlowHarness) -> None:
    state = await came_late(harness, LatePolicy.FLAG)
    assert state.refunds == ()
    number = state.payments[0].out_trade_no
    request: Callable[[], Awaitable[OrderState]] = lambda: request_refund(  # noqa: E731 - four times the same
        harness.resources, state.order.order_no, number, by="ann"
    )
    states = await asyncio.gather(*(request() for _ in range(4)))
    assert {refund_of(after).refund_no for after in states} == {f"r{number}"}
    with pytest.raises(InvalidRequest):
        await accept_late(harness.resources, state.order.order_no, by="bob")
    assert await work(harness, states[0]) is Outcome.REFUNDED
    assert (await request()).order.version == (await harness.state(state)).order.version
    assert len(at_channel(harness)) == 1
    assert await harness.cases(state.order.order_no) == []


async def test_an_operator_cannot_give_back_what_paid_an_order_or_never_came(harness: FlowHarness) -> None:
    state = await harness.placed()
    number = state.payments[0].out_trade_no
    with pytest.raises(InvalidRequest):
        await request_refund(harness.resources, state.order.order_no, number, by="ann")
    harness.pay(state.payments[0])
    transaction = harness.transaction_of(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], transaction=transaction))
    with pytest.raises(InvalidRequest):
        await request_refund(harness.resources, state.order.order_no, number, by="ann")
    for order_no, wrong in (("F-nobody", number), (state.order.order_no, "another-1")):
        with pytest.raises(NotFound):
            await request_refund(harness.resources, order_no, wrong, by="ann")
    assert calls(harness) == []


async def test_a_watched_payment_is_flagged_and_never_refunded(harness: FlowHarness) -> None:
    """Also where the account's policies say so: nodrop did not create it."""
    account = await harness.add_account(
        "watched", late_policy=LatePolicy.REFUND, double_policy=DoublePolicy.REFUND, trust_callback=True
    )
    request = PaymentRequest(account=account, watch=Watch(out_trade_no="elsewhere-000001"))
    state = (await place_order(harness.resources, order_terms(), request, expires_in_s=600.0)).state
    sql = """WITH p AS (UPDATE payments SET status = 'closed'), q AS (DELETE FROM pending)
             UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 RETURNING 1"""
    await harness.one(sql)
    await harness.receive(account, harness.callback(state.payments[0]))
    after = await harness.state(state)
    assert (await harness.cases(state.order.order_no), after.refunds) == (["paid_late"], ())
    with pytest.raises(InvalidRequest):
        await request_refund(harness.resources, state.order.order_no, "elsewhere-000001", by="ann")
    assert await pending.claim(harness.resources.db, state.payments[0].key, WAIT) is None
    assert calls(harness) == []
