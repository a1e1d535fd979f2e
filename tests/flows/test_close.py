"""The deadline: query, close at the channel, query again, and only then closed. Money after close is not lost."""

import pytest

from core.decision import Outcome
from core.errors import InvalidRequest, NotFound, OrderPaid
from core.lifecycle import LatePolicy
from core.order import OrderState, OrderStatus, PaymentStatus, PublicStatus, public_status
from flows.accept import accept_late
from flows.close import close_scheduled, request_close
from flows.place import PaymentRequest, start_payment
from flows.query import query_scheduled
from flows.refresh import refresh_order
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import Payment as LedgerPayment
from storage.postgres import notifications
from tests.flows.conftest import FlowHarness, Row

HOOK = "https://merchant.example/hook"


async def deadline(harness: FlowHarness, state: OrderState) -> Row:
    row = await harness.row("", state.order.order_no)
    assert row is not None
    return row


async def close(harness: FlowHarness, state: OrderState) -> Outcome:
    return await close_scheduled(harness.resources, state.order.order_no, (await deadline(harness, state)).arm_no)


def calls(harness: FlowHarness, state: OrderState) -> list[str]:
    """What the channel was asked about the order's first payment, in order."""
    number = state.payments[0].out_trade_no
    return [str(arrival.kind) for arrival in harness.far_side.traffic.since(0.0) if arrival.number == number]


async def test_before_its_time_an_order_is_not_closed(harness: FlowHarness) -> None:
    state = await harness.placed()
    assert await close(harness, state) is Outcome.NOT_YET
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    assert calls(harness, state) == ["create"]


async def test_at_the_deadline_the_channel_is_asked_closed_and_asked_again_before_the_order_closes(
    harness: FlowHarness,
) -> None:
    state = await harness.overdue(await harness.placed(notify_url=HOOK))
    assert await close(harness, state) is Outcome.CLOSED
    assert calls(harness, state) == ["create", "query", "close", "query"]
    closed = await harness.state(state)
    assert (closed.order.status, closed.payments[0].status) == (OrderStatus.CLOSED, PaymentStatus.CLOSED)
    assert harness.status_at_channel(state.payments[0]) == "closed"
    assert await harness.one("SELECT count(*) FROM pending") == 0
    assert await harness.one("SELECT type FROM notifications") == "order.closed"


async def test_money_found_at_the_deadline_pays_the_order(harness: FlowHarness) -> None:
    """Every callback was lost, and the user paid in the last minute."""
    state = await harness.placed()
    harness.pay(state.payments[0])
    state = await harness.overdue(state)
    assert await close(harness, state) is Outcome.NOTHING_NEW
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert calls(harness, state) == ["create", "query"]
    assert await harness.one("SELECT count(*) FROM pending") == 0


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.QUERY,), answered_5xx=1.0),
        FaultProfile(affected=(CallKind.QUERY,), html_error=1.0),
        FaultProfile(affected=(CallKind.CLOSE,), answered_5xx=1.0),
        FaultProfile(down=True),
    ],
    ids=["queries fail", "queries are nonsense", "closing fails", "down"],
)
async def test_nothing_is_closed_here_while_the_channel_does_not_tell(
    harness: FlowHarness, profile: FaultProfile
) -> None:
    state = await harness.overdue(await harness.placed())
    harness.far_side.faults.profile = profile
    before = await deadline(harness, state)
    assert await close(harness, state) is Outcome.NOT_YET
    row = await deadline(harness, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt + 1, before.arm_no + 1, False)
    assert 235 < row.due_in_s <= 240
    assert (await harness.state(state)).order.status is OrderStatus.PAYING

    harness.far_side.faults.profile = FaultProfile()
    assert await close(harness, state) is Outcome.CLOSED


async def test_a_close_whose_answer_was_lost_closes_by_the_query_that_follows(harness: FlowHarness) -> None:
    state = await harness.overdue(await harness.placed())
    harness.far_side.faults.profile = FaultProfile(close_answer_lost=1.0)
    assert await close(harness, state) is Outcome.NOT_YET
    assert await close(harness, state) is Outcome.CLOSED


async def test_a_deadlines_job_of_an_older_scheduling_does_nothing(harness: FlowHarness) -> None:
    state = await harness.overdue(await harness.placed())
    stale = (await deadline(harness, state)).arm_no
    harness.far_side.faults.profile = FaultProfile(down=True)
    await close(harness, state)
    harness.far_side.faults.profile = FaultProfile()
    assert await close_scheduled(harness.resources, state.order.order_no, stale) is Outcome.STALE
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


async def test_one_payment_that_is_unclear_keeps_the_whole_order_open(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed()
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    harness.call_fault(state.payments[1], "answered_5xx")
    state = await harness.overdue(state)
    assert await close(harness, state) is Outcome.NOT_YET
    after = await harness.state(state)
    assert after.order.status is OrderStatus.PAYING
    assert [row.status for row in after.payments] == [PaymentStatus.CLOSED, PaymentStatus.OPEN]


async def test_an_order_without_a_payment_just_closes(harness: FlowHarness) -> None:
    state = await harness.overdue((await harness.place(None)).state)
    assert await close(harness, state) is Outcome.CLOSED
    assert harness.calls() == 0


# -- the merchant ends it ----------------------------------------------------------------------------------------------


async def test_a_merchant_closes_an_order_as_its_deadline_would(harness: FlowHarness) -> None:
    state = await harness.placed()
    assert (await request_close(harness.resources, state.order.order_no)).order.status is OrderStatus.CLOSED
    assert calls(harness, state) == ["create", "query", "close", "query"]
    again = await request_close(harness.resources, state.order.order_no)
    assert again.order.status is OrderStatus.CLOSED


async def test_a_merchant_who_closes_what_was_just_paid_is_told_so(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    with pytest.raises(OrderPaid):
        await request_close(harness.resources, state.order.order_no)
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    with pytest.raises(OrderPaid):
        await request_close(harness.resources, state.order.order_no)


async def test_a_merchant_who_closes_while_the_channel_is_down_gets_the_order_as_it_is(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.far_side.faults.profile = FaultProfile(down=True)
    assert (await request_close(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    harness.far_side.faults.profile = FaultProfile()
    assert await close(harness, state) is Outcome.CLOSED
    with pytest.raises(NotFound):
        await request_close(harness.resources, "F-nobody")


# -- money after close -------------------------------------------------------------------------------------------------


async def closed_and_then_paid(harness: FlowHarness, policy: LatePolicy) -> OrderState:
    """The channel had closed it, and the money that was under way arrived."""
    account = await harness.add_account(f"late-{policy}", late_policy=policy)
    state = await harness.placed(account, notify_url=HOOK)
    closed = await request_close(harness.resources, state.order.order_no)
    assert closed.order.status is OrderStatus.CLOSED
    paid = harness.far_side.ledger.settle_late(harness.key_of(state.payments[0]), harness.far_side.now())
    assert isinstance(paid, LedgerPayment)
    callback = harness.callback(state.payments[0], transaction=paid.transaction_id)
    await harness.receive(account, callback)
    return await harness.state(state)


async def test_late_money_is_accepted_and_the_order_becomes_paid_with_a_case(harness: FlowHarness) -> None:
    state = await closed_and_then_paid(harness, LatePolicy.ACCEPT)
    assert (state.order.status, state.payments[0].status) == (OrderStatus.PAID, PaymentStatus.PAID)
    assert await harness.cases(state.order.order_no) == ["paid_late"]


async def test_what_says_paid_supersedes_what_said_closed(harness: FlowHarness) -> None:
    state = await closed_and_then_paid(harness, LatePolicy.ACCEPT)
    rows = await harness.resources.db.fetch("SELECT id, type, superseded_at FROM notifications ORDER BY version")
    assert [(row["type"], row["superseded_at"] is None) for row in rows] == [
        ("order.closed", False),
        ("order.paid", True),
    ]
    assert await notifications.claim(harness.resources.db, rows[0]["id"], 20, arm_no=1) is None
    assert await notifications.claim(harness.resources.db, rows[1]["id"], 20, arm_no=1) is not None
    assert state.order.version > 1


async def test_late_money_that_is_flagged_leaves_the_order_closed_until_an_operator_decides(
    harness: FlowHarness,
) -> None:
    state = await closed_and_then_paid(harness, LatePolicy.FLAG)
    assert (state.order.status, state.payments[0].status) == (OrderStatus.CLOSED, PaymentStatus.PAID)
    assert public_status(state.order, state.payments) is PublicStatus.REVIEW
    assert await harness.cases(state.order.order_no) == ["paid_late"]

    accepted = await accept_late(harness.resources, state.order.order_no, by="ann")
    assert (accepted.order.status, accepted.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert await harness.cases(state.order.order_no) == []
    sql = "SELECT string_agg(type || ':' || (superseded_at IS NULL), ' ' ORDER BY version) FROM notifications"
    assert await harness.one(sql) == "order.closed:false order.paid_late:true order.paid:true"
    again = await accept_late(harness.resources, state.order.order_no, by="ann")
    assert again.order.version == accepted.order.version


async def test_an_operator_cannot_accept_money_that_no_channel_has_confirmed(harness: FlowHarness) -> None:
    state = await harness.placed()
    with pytest.raises(InvalidRequest):
        await accept_late(harness.resources, state.order.order_no, by="ann")
    with pytest.raises(NotFound):
        await accept_late(harness.resources, "F-nobody", by="ann")
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


async def test_nobody_asks_about_a_closed_order_any_more(harness: FlowHarness) -> None:
    state = await harness.placed()
    await request_close(harness.resources, state.order.order_no)
    before = harness.calls()
    assert await query_scheduled(harness.resources, state.payments[0].key, 1) is Outcome.STALE
    await refresh_order(harness.resources, state.order.order_no)
    assert harness.calls() == before
