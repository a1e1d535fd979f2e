"""Disputes in a real Postgres: written by the door, once for a payment and an id, and only forward."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from core.dispute import DisputeKind, DisputeState
from core.errors import InvalidRequest
from core.evidence import Disputed, Source
from core.lifecycle import on_dispute
from core.order import CaseReason, PaymentKey
from storage.postgres.database import Database
from storage.postgres.disputes import list_disputes
from storage.postgres.door.transition import Committed
from tests.storage.postgres.tools import (
    commit_evidence,
    get_state,
    moved,
    number,
    paid,
    placed,
    rows,
    started,
    terms_of,
)

KEY = number("A-1")
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLAIM = Disputed(
    channel_account="alipay",
    out_trade_no=KEY.out_trade_no,
    dispute_id="d-1",
    dispute_kind=DisputeKind.CLAIM,
    state=DisputeState.OPEN,
    disputed_amount=8888,
    disputed_currency="CNY",
    dispute_reason="not received",
    respond_by=AT + timedelta(days=7),
    changed_at=AT,
)


async def paid_order(db: Database) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", paid())


async def disputed(db: Database, **changes: Any) -> Committed:
    evidence = replace(CLAIM, **changes)
    return await moved(db, "A-1", lambda state: on_dispute(state, KEY, evidence, Source.CALLBACK))


async def test_a_dispute_is_written_with_its_event_case_and_notification(db: Database) -> None:
    await paid_order(db)
    committed = await disputed(db)
    state = await get_state(db)
    [dispute] = state.disputes
    assert (dispute.dispute_id, dispute.amount, dispute.respond_by) == ("d-1", 8888, CLAIM.respond_by)
    assert (KEY, CaseReason.DISPUTED) in state.open_cases
    assert committed.notification_id is not None
    assert [row["kind"] for row in await rows(db, "order_events", "kind", "version = 3")] == ["disputed"]


async def test_a_dispute_moves_forward_in_its_row(db: Database) -> None:
    await paid_order(db)
    await disputed(db)
    await disputed(db, state=DisputeState.WON, changed_at=AT + timedelta(days=1), outcome="won")
    await disputed(db)
    [row] = await rows(db, "disputes", "state, outcome, reason")
    assert row == {"state": "won", "outcome": "won", "reason": "not received"}
    assert (await get_state(db)).open_cases == frozenset()


async def test_one_dispute_may_be_about_several_payments(db: Database) -> None:
    await paid_order(db)
    await placed(db, "A-2")
    other = number("A-2")
    await commit_evidence(db, "A-2", paid("A-2"))
    await disputed(db)
    evidence = replace(CLAIM, out_trade_no=other.out_trade_no)
    await moved(db, "A-2", lambda state: on_dispute(state, other, evidence, Source.CALLBACK))
    assert len(await rows(db, "disputes")) == 2


@pytest.mark.parametrize(
    "move",
    [
        "state = 'open'",
        "state = 'under_review'",
        "kind = 'inquiry'",
    ],
)
async def test_a_dispute_never_goes_back(db: Database, move: str) -> None:
    await paid_order(db)
    await disputed(db, state=DisputeState.LOST)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(f"UPDATE disputes SET {move}")  # noqa: S608 - ours


async def test_a_payment_keeps_the_world_in_which_it_was_started(db: Database) -> None:
    await placed(db, payment=terms_of(KEY, live=False))
    assert (await get_state(db)).live is False
    await started(db, "A-1", PaymentKey("wechat", "wechat-A-1"), live=False)
    await started(db, "A-1", PaymentKey("stripe", "stripe-A-1"), live=True)
    state = await get_state(db)
    assert ([payment.live for payment in state.payments], state.live) == ([False, False], False)


# -- lists for operators -----------------------------------------------------------------------------------------------


async def of_order(db: Database, order_no: str, **changes: Any) -> None:
    """An order with one dispute of this id."""
    await placed(db, order_no)
    await commit_evidence(db, order_no, paid(order_no))
    key = number(order_no)
    evidence = replace(CLAIM, out_trade_no=key.out_trade_no, dispute_id=f"d-{order_no}", **changes)
    await moved(db, order_no, lambda state: on_dispute(state, key, evidence, Source.CALLBACK))


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_disputes_that_are_not_over_are_listed_by_the_moment_to_answer(db: Database, limit: int) -> None:
    """Those without one come last; the ones at the same moment by their keys."""
    for order_no, days in {"A-1": 7, "A-2": 1, "A-3": None, "A-4": 1, "A-5": None}.items():
        await of_order(db, order_no, respond_by=None if days is None else AT + timedelta(days=days))
    await of_order(db, "A-6", state=DisputeState.WON)
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = await list_disputes(db, cursor=cursor, limit=limit)
        seen += [dispute.order_no for dispute in page]
        if cursor is None:
            break
    assert seen == ["A-2", "A-4", "A-1", "A-3", "A-5"]
    assert (await list_disputes(db, account="wechat"))[0] == []


async def test_disputes_that_are_over_are_listed_newest_first(db: Database) -> None:
    for n, state in enumerate((DisputeState.WON, DisputeState.LOST, DisputeState.WON, DisputeState.WON)):
        await of_order(db, f"A-{n}", state=state, changed_at=AT + timedelta(days=n))
    first, cursor = await list_disputes(db, state=DisputeState.WON, limit=2)
    rest, end = await list_disputes(db, state=DisputeState.WON, limit=2, cursor=cursor)
    assert [dispute.order_no for dispute in (*first, *rest)] == ["A-3", "A-2", "A-0"]
    assert end is None
    assert [each.order_no for each in (await list_disputes(db, state=DisputeState.LOST))[0]] == ["A-1"]


@pytest.mark.parametrize(
    "wrong", [{"state": DisputeState.OPEN}, {"cursor": "x"}, {"cursor": "WyIyMDI2LTAzLTAxVDEyOjAwOjAwWiIsIngiXQ"}]
)
async def test_a_wrong_choice_of_disputes_is_refused(db: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await list_disputes(db, **wrong)
