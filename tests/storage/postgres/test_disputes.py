"""Disputes in a real Postgres: written by the door, once for a payment and an id, and only forward."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from core.dispute import DisputeKind, DisputeState
from core.evidence import Disputed, Source
from core.lifecycle import on_dispute
from core.order import CaseReason, PaymentKey
from storage.postgres.database import Database
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
    await started(db, "A-1", PaymentKey("wechat", "wechat-A-1"), live=True)
    assert (await get_state(db)).live is None
