"""Lines of a file have what the whole orders have."""

import pytest

from core.order import public_status
from storage.postgres.database import Database
from storage.postgres.order_rows import OrderRow, find_order_rows
from storage.postgres.orders import find_states
from tests.storage.postgres.test_order_lists import fill
from tests.storage.postgres.tools import commit_evidence, number, paid, placed, rows

CHANGES = (
    "SELECT 1",
    "UPDATE payments SET refunded_amount = 1250 WHERE status = 'paid'",
    "UPDATE payments SET refunded_amount = amount WHERE status = 'paid'",
    "UPDATE payments SET is_refund_amount_unknown = true WHERE status = 'paid'",
    "UPDATE payments SET refunded_amount = amount, is_refund_amount_unknown = true WHERE status = 'paid'",
)
DISPUTED = """
INSERT INTO disputes (dispute_id, channel_account, out_trade_no, order_no, kind, state, opened_at, changed_at)
SELECT kind || state, channel_account, out_trade_no, order_no, kind, state, now(), now()
  FROM payments, (VALUES ($2, $3)) AS d(kind, state) WHERE order_no = $1"""


async def whole(db: Database, order_nos: list[str]) -> list[OrderRow]:
    """The lines made of the whole orders."""
    states = await find_states(db, order_nos)
    found = []
    for order_no in order_nos:
        state = states[order_no]
        order, payments = state.order, state.payments
        sums = [payment.refunded_amount for payment in payments]
        found.append(
            OrderRow(
                order_no=order_no,
                created_at=order.created_at,
                status=order.status,
                page_status=public_status(order, payments, state.disputes),
                amount=order.amount,
                currency=order.currency,
                subject=order.subject,
                paid_at=order.paid_at,
                closed_at=order.closed_at,
                accounts=[payment.channel_account for payment in payments],
                out_trade_nos=[payment.out_trade_no for payment in payments],
                channel_transaction_ids=[p.channel_transaction_id for p in payments if p.channel_transaction_id],
                refunded=None if None in sums else sum(filter(None, sums)),
                reasons=sorted(str(reason) for _, reason in state.open_cases),
            )
        )
    return found


@pytest.mark.parametrize("change", CHANGES)
async def test_a_line_has_what_its_order_has(db: Database, change: str) -> None:
    await fill(db)
    await commit_evidence(db, "A-5", paid("A-5"))  # late money
    await db.execute("UPDATE cases SET resolved_at = now() WHERE id = (SELECT max(id) FROM cases)")
    await db.execute(change)
    order_nos = [row["order_no"] for row in await rows(db, "orders", "order_no", "true ORDER BY order_no")]
    assert await find_order_rows(db, [*order_nos, "none"]) == await whole(db, order_nos)


@pytest.mark.parametrize(
    ("kind", "state", "status"),
    [
        ("claim", "open", "disputed"),
        ("claim", "won", "paid"),
        ("inquiry", "open", "paid"),
        ("reversal", "lost", "disputed"),
    ],
)
async def test_money_that_a_dispute_holds_is_disputed(db: Database, kind: str, state: str, status: str) -> None:
    await placed(db, "A-1")
    await commit_evidence(db, "A-1", paid("A-1", key=number("A-1")))
    await db.execute(DISPUTED, "A-1", kind, state)
    (row,) = await find_order_rows(db, ["A-1"])
    assert (row.page_status, [row]) == (status, await whole(db, ["A-1"]))
