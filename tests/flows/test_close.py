"""The deadline of an order: query, close at the channel, query again, then close here. Late money is not lost."""

import asyncio
from functools import partial

import pytest

from core import admission
from core.decision import Outcome
from core.errors import NotFound, NotPossible, OrderPaid
from core.evidence import Source
from core.lifecycle import LatePolicy, on_dispute
from core.order import OrderState, OrderStatus, PaymentStatus, PublicStatus, deadline_key, public_status
from flows.accept import accept_late
from flows.close import close_leased, close_scheduled, request_close
from flows.commit import commit_decision
from flows.place import PaymentRequest, start_payment
from flows.query import query_scheduled
from flows.refresh import refresh_order
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import Refund as LedgerRefund
from storage.postgres import notifications, pending
from tests.core.states import disputed
from tests.flows.conftest import AMOUNT, HOOK, FlowHarness, PendingRow


async def deadline_row(harness: FlowHarness, state: OrderState) -> PendingRow:
    row = await harness.pending_row("", state.order.order_no)
    assert row is not None
    return row


def calls_about(harness: FlowHarness, state: OrderState) -> list[str]:
    """Calls about the first payment of the order, in the order of arrival."""
    number = state.payments[0].out_trade_no
    return [str(arrival.kind) for arrival in harness.simulation.traffic.since(0.0) if arrival.number == number]


async def test_an_order_is_not_closed_before_its_deadline(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert await harness.run_close_job(state) is Outcome.NOT_YET
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    assert calls_about(harness, state) == ["create"]


async def test_a_deadline_queries_closes_and_queries_again_before_the_order_closes(
    harness: FlowHarness,
) -> None:
    state = await harness.pass_deadline(await harness.placed_order(notify_url=HOOK))
    assert await harness.run_close_job(state) is Outcome.CLOSED
    assert calls_about(harness, state) == ["create", "query", "close", "query"]
    closed = await harness.state(state)
    assert (closed.order.status, closed.payments[0].status) == (OrderStatus.CLOSED, PaymentStatus.CLOSED)
    assert harness.status_at_channel(state.payments[0]) == "closed"
    assert [row.key for row in closed.pending] == [closed.payments[0].key]
    assert await harness.fetch_value("SELECT type FROM notifications") == "order.closed"


async def test_money_found_at_the_deadline_pays_the_order(harness: FlowHarness) -> None:
    """Every callback was lost, and the buyer paid in the last minute."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    state = await harness.pass_deadline(state)
    assert await harness.run_close_job(state) is Outcome.NOTHING_NEW
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert calls_about(harness, state) == ["create", "query"]
    assert await harness.fetch_value("SELECT count(*) FROM pending") == 0


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.QUERY,), answered_5xx=1.0),
        FaultProfile(affected=(CallKind.QUERY,), html_error=1.0),
        FaultProfile(affected=(CallKind.CLOSE,), answered_5xx=1.0),
        FaultProfile(down=True),
    ],
    ids=["queries fail", "queries unreadable", "closing fails", "down"],
)
async def test_an_order_stays_open_while_the_channel_gives_no_clear_result(
    harness: FlowHarness, profile: FaultProfile
) -> None:
    state = await harness.pass_deadline(await harness.placed_order())
    harness.simulation.faults.profile = profile
    before = await deadline_row(harness, state)
    assert await harness.run_close_job(state) is Outcome.NOT_YET
    row = await deadline_row(harness, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt + 1, before.arm_no + 1, False)
    assert 235 < row.due_in_s <= 240
    assert (await harness.state(state)).order.status is OrderStatus.PAYING

    harness.simulation.faults.profile = FaultProfile()
    assert await harness.run_close_job(state) is Outcome.CLOSED


async def test_a_close_without_a_response_is_confirmed_by_the_next_query(harness: FlowHarness) -> None:
    state = await harness.pass_deadline(await harness.placed_order())
    harness.simulation.faults.profile = FaultProfile(close_answer_lost=1.0)
    assert await harness.run_close_job(state) is Outcome.NOT_YET
    assert await harness.run_close_job(state) is Outcome.CLOSED


async def test_a_deadline_job_with_an_old_arm_number_does_nothing(harness: FlowHarness) -> None:
    state = await harness.pass_deadline(await harness.placed_order())
    stale = (await deadline_row(harness, state)).arm_no
    harness.simulation.faults.profile = FaultProfile(down=True)
    await harness.run_close_job(state)
    harness.simulation.faults.profile = FaultProfile()
    assert await close_scheduled(harness.resources, state.order.order_no, stale) is Outcome.STALE
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


async def test_one_unclear_payment_keeps_the_order_open(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed_order()
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    harness.call_fault(state.payments[1], "answered_5xx")
    state = await harness.pass_deadline(state)
    assert await harness.run_close_job(state) is Outcome.NOT_YET
    after = await harness.state(state)
    assert after.order.status is OrderStatus.PAYING
    assert [row.status for row in after.payments] == [PaymentStatus.CLOSED, PaymentStatus.OPEN]


async def test_an_order_without_a_payment_closes_without_a_query(harness: FlowHarness) -> None:
    state = await harness.pass_deadline((await harness.place(None)).state)
    assert await harness.run_close_job(state) is Outcome.CLOSED
    assert harness.call_count() == 0


# -- the merchant closes the order -----------------------------------------------------------------------------------


async def test_a_merchant_closes_an_order_with_the_steps_of_the_deadline(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert (await request_close(harness.resources, state.order.order_no)).order.status is OrderStatus.CLOSED
    assert calls_about(harness, state) == ["create", "query", "close", "query"]
    repeated = await request_close(harness.resources, state.order.order_no)
    assert repeated.order.status is OrderStatus.CLOSED


async def test_a_worker_that_takes_the_moved_deadline_first_is_waited_for(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is due at once, so it often is the first."""
    resources, state = harness.resources, await harness.placed_order()
    workers: list[asyncio.Task[Outcome]] = []

    async def arm(**_: object) -> None:
        leased = await pending.claim(resources.db, deadline_key(state.order.order_no), 20.0)
        if leased is not None:
            workers.append(asyncio.create_task(close_leased(resources, leased)))

    monkeypatch.setattr(resources.follow_ups, "add", arm)
    assert (await request_close(resources, state.order.order_no)).order.status is OrderStatus.CLOSED
    assert [await worker for worker in workers] == [Outcome.CLOSED]
    assert calls_about(harness, state) == ["create", "query", "close", "query"]


@pytest.mark.parametrize("gone", ["refunded", "disputed"])
async def test_closing_an_order_whose_money_is_gone_does_not_call_it_paid(harness: FlowHarness, gone: str) -> None:
    """The answer 409 `order_paid` would have the goods sent."""
    state = await harness.placed_order()
    [payment] = state.payments
    harness.pay(payment)
    if gone == "refunded":
        key, now = harness.key_of(payment), harness.simulation.now()
        refund = harness.simulation.ledger.refund(key, "by-hand-1", AMOUNT, now)
        assert isinstance(refund, LedgerRefund)
        harness.simulation.ledger.settle_refund(refund.key, now, succeeds=True)
    else:
        claim = disputed(channel_account=payment.channel_account, out_trade_no=payment.out_trade_no)
        decide = partial(on_dispute, key=payment.key, evidence=claim, by=Source.CALLBACK)
        await commit_decision(harness.resources, state.order.order_no, decide)

    for _ in range(2):
        after = await request_close(harness.resources, state.order.order_no)
        assert (after.order.status, after.payments[0].status) == (OrderStatus.CLOSED, PaymentStatus.PAID)


async def test_closing_an_order_that_was_just_paid_raises_order_paid(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    with pytest.raises(OrderPaid):
        await request_close(harness.resources, state.order.order_no)
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    with pytest.raises(OrderPaid):
        await request_close(harness.resources, state.order.order_no)


async def test_closing_an_order_while_the_channel_is_down_returns_it_unchanged(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.simulation.faults.profile = FaultProfile(down=True)
    assert (await request_close(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    harness.simulation.faults.profile = FaultProfile()
    assert await harness.run_close_job(state) is Outcome.CLOSED
    with pytest.raises(NotFound):
        await request_close(harness.resources, "F-unknown")


# -- a payment that another system created ---------------------------------------------------------------------------


async def test_an_order_closes_at_its_deadline_and_its_watched_payment_does_not(harness: FlowHarness) -> None:
    """It has no known end. Its channel takes money for it, so it is asked on."""
    state = await harness.pass_deadline(await harness.watched_order())
    assert await harness.run_close_job(state) is Outcome.CLOSED
    closed = await harness.state(state)
    assert (closed.order.status, closed.payments[0].status) == (OrderStatus.CLOSED, PaymentStatus.OPEN)
    assert calls_about(harness, state) == ["query"]
    assert await harness.run_query_job(state) is Outcome.STILL_OPEN

    harness.pay(state.payments[0])
    assert await harness.run_query_job(state) is Outcome.PAID_LATE
    assert await harness.cases(state.order.order_no) == ["paid_late"]


async def test_an_order_with_a_watched_payment_stays_open_while_the_channel_gives_no_clear_result(
    harness: FlowHarness,
) -> None:
    state = await harness.pass_deadline(await harness.watched_order())
    harness.simulation.faults.profile = FaultProfile(html_error=1.0)
    assert await harness.run_close_job(state) is Outcome.NOT_YET
    harness.simulation.faults.profile = FaultProfile()
    assert await harness.run_close_job(state) is Outcome.CLOSED


# -- money after close -----------------------------------------------------------------------------------------------


async def test_accepted_late_money_pays_the_order_and_opens_a_case(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money(LatePolicy.ACCEPT)
    assert (state.order.status, state.payments[0].status) == (OrderStatus.PAID, PaymentStatus.PAID)
    assert await harness.cases(state.order.order_no) == ["paid_late"]


async def test_the_paid_notification_supersedes_the_closed_one(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money(LatePolicy.ACCEPT)
    rows = await harness.resources.db.fetch("SELECT id, type, superseded_at FROM notifications ORDER BY version")
    assert [(row["type"], row["superseded_at"] is None) for row in rows] == [
        ("order.closed", False),
        ("order.paid", True),
    ]
    assert await notifications.claim(harness.resources.db, rows[0]["id"], 20, arm_no=1) is None
    assert await notifications.claim(harness.resources.db, rows[1]["id"], 20, arm_no=1) is not None
    assert state.order.version > 1


async def test_flagged_late_money_leaves_the_order_closed_until_an_operator_accepts_it(
    harness: FlowHarness,
) -> None:
    state = await harness.order_with_late_money(LatePolicy.FLAG)
    assert (state.order.status, state.payments[0].status) == (OrderStatus.CLOSED, PaymentStatus.PAID)
    assert public_status(state.order, state.payments) is PublicStatus.REVIEW
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    accepted = await accept_late(harness.resources, state.order.order_no, by="ann")
    assert (accepted.order.status, accepted.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert await harness.cases(state.order.order_no) == []
    sql = "SELECT string_agg(type || ':' || (superseded_at IS NULL), ' ' ORDER BY version) FROM notifications"
    assert await harness.fetch_value(sql) == "order.closed:false order.paid_late:true order.paid:true"
    repeated = await accept_late(harness.resources, state.order.order_no, by="ann")
    assert repeated.order.version == accepted.order.version


async def test_an_operator_cannot_accept_money_that_is_not_confirmed(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    with pytest.raises(NotPossible):
        await accept_late(harness.resources, state.order.order_no, by="ann")
    with pytest.raises(NotFound):
        await accept_late(harness.resources, "F-unknown", by="ann")
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


async def test_a_closed_order_is_not_queried(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await request_close(harness.resources, state.order.order_no)
    before = harness.call_count()
    await harness.make_due()
    assert await query_scheduled(harness.resources, state.payments[0].key, 1) is Outcome.STALE
    await refresh_order(harness.resources, state.order.order_no)
    assert harness.call_count() == before


@pytest.mark.parametrize("kind", [admission.CallKind.QUERY, admission.CallKind.CLOSE])
async def test_a_channel_that_may_not_be_called_now_uses_no_attempt_of_the_deadline(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, kind: admission.CallKind
) -> None:
    """The rate is used up or the breaker is open: the deadline is due again when that is over, as the same attempt."""
    state = await harness.pass_deadline(await harness.placed_order())
    admit = harness.resources.admission.admit

    async def admit_others(
        account: str, rate_per_s: int, wanted: admission.CallKind, urgency: admission.Urgency, **more: bool
    ) -> admission.Admitted | admission.Wait:
        if wanted is kind:
            return admission.Wait(7.0, "rate")
        return await admit(account, rate_per_s, wanted, urgency, **more)

    with monkeypatch.context() as patched:
        patched.setattr(harness.resources.admission, "admit", admit_others)
        assert await harness.run_close_job(state) is Outcome.NOT_YET
    row = await harness.pending_row("", state.order.order_no)
    assert row is not None
    assert (row.attempt, row.arm_no, row.is_leased) == (1, 2, False)
    assert 0 < row.due_in_s <= 7

    assert await harness.run_close_job(state) is Outcome.CLOSED


async def test_a_query_under_way_uses_no_attempt_of_the_deadline(harness: FlowHarness) -> None:
    state = await harness.pass_deadline(await harness.placed_order())
    assert await pending.claim(harness.resources.db, state.payments[0].key, 20.0) is not None
    with harness.short_timeouts():
        assert await harness.run_close_job(state) is Outcome.NOT_YET
    row = await harness.pending_row("", state.order.order_no)
    assert row is not None
    assert row.attempt == 1
    assert row.due_in_s <= 1
