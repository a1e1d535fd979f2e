"""The last line of defence: constraints and triggers refuse what the rules of core forbid, whatever code runs."""

import itertools
from collections.abc import Sequence

import asyncpg
import pytest

from core.order import ORDER_MOVES, PAYMENT_MOVES, OrderStatus, PaymentStatus
from storage.postgres.database import Database
from tests.storage.postgres.tools import closed, commit_evidence, count, paid, placed

ORDER_FIELDS = {
    OrderStatus.PAID: "paid_at = now(), paid_by_account = 'alipay', paid_by_out_trade_no = 'alipay-A-1'",
    OrderStatus.CLOSED: "paid_at = NULL, paid_by_account = NULL, paid_by_out_trade_no = NULL, closed_at = now()",
}
PAYMENT_FIELDS = {PaymentStatus.PAID: "paid_at = now(), channel_transaction_id = 't-1'"}
UNPAID_ORDER = "paid_at = NULL, paid_by_account = NULL, paid_by_out_trade_no = NULL"
UNPAID_PAYMENT = "paid_at = NULL, channel_transaction_id = NULL"


async def move_order(db: Database, status: OrderStatus) -> None:
    fields = ORDER_FIELDS.get(status, UNPAID_ORDER)
    await db.execute(f"UPDATE orders SET version = version + 1, status = $1, {fields}", status)  # noqa: S608 - ours


async def move_payment(db: Database, status: PaymentStatus) -> None:
    fields = PAYMENT_FIELDS.get(status, UNPAID_PAYMENT)
    await db.execute(f"UPDATE payments SET status = $1, {fields}", status)  # noqa: S608 - ours


ORDER_PATHS: dict[OrderStatus, Sequence[OrderStatus]] = {
    OrderStatus.CREATED: (),
    OrderStatus.PAYING: (OrderStatus.PAYING,),
    OrderStatus.PAID: (OrderStatus.PAID,),
    OrderStatus.CLOSED: (OrderStatus.CLOSED,),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(OrderStatus, OrderStatus)))
async def test_an_order_makes_the_moves_of_the_table_and_no_other(
    db: Database, before: OrderStatus, after: OrderStatus
) -> None:
    await placed(db, without_payment=True)
    for status in ORDER_PATHS[before]:
        await move_order(db, status)
    if after == before or after in ORDER_MOVES[before]:
        await move_order(db, after)
        assert await count(db, "orders", f"status = '{after}'") == 1
    else:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await move_order(db, after)
        assert refused.value.constraint_name == "orders_legal_move"


@pytest.mark.parametrize(("before", "after"), list(itertools.product(PaymentStatus, PaymentStatus)))
async def test_a_payment_makes_the_moves_of_the_table_and_no_other(
    db: Database, before: PaymentStatus, after: PaymentStatus
) -> None:
    await placed(db)
    if before is not PaymentStatus.OPEN:
        await move_payment(db, before)
    if after == before or after in PAYMENT_MOVES[before]:
        await move_payment(db, after)
        assert await count(db, "payments", f"status = '{after}'") == 1
    else:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await move_payment(db, after)
        assert refused.value.constraint_name == "payments_legal_move"


@pytest.mark.parametrize("step", [-1, 0, 2, 100])
async def test_a_version_moves_by_one(db: Database, step: int) -> None:
    await placed(db)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await db.execute("UPDATE orders SET version = version + $1, subject = 'Two pots of tea'", step)
    assert refused.value.constraint_name == "orders_version_step"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE orders SET version = version + 1, paid_at = NULL",
        "UPDATE orders SET version = version + 1, paid_by_account = NULL",
        "UPDATE orders SET version = version + 1, paid_by_out_trade_no = NULL",
        "UPDATE orders SET version = version + 1, amount = 0",
        "UPDATE orders SET version = version + 1, currency = 'cny'",
        "UPDATE orders SET version = version + 1, currency = 'CNYY'",
        "UPDATE orders SET version = version + 1, status = 'failed'",
        "UPDATE payments SET paid_at = NULL",
        "UPDATE payments SET channel_transaction_id = NULL",
        "UPDATE payments SET amount = -1",
        "UPDATE payments SET refunded_amount = -1",
        "UPDATE payments SET channel_account = ''",
        "UPDATE payments SET origin = 'theirs'",
        "UPDATE payments SET status = 'failed'",
        "UPDATE payments SET attempt_no = 0",
    ],
)
async def test_what_a_paid_order_cannot_be(db: Database, sql: str) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", paid())
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE orders SET version = version + 1, paid_at = now(), paid_by_account = 'a', paid_by_out_trade_no = 'n'",
        "UPDATE orders SET version = version + 1, status = 'paid'",
        "UPDATE orders SET version = version + 1, status = 'closed'",
        "UPDATE payments SET paid_at = now(), channel_transaction_id = 't-1'",
        "UPDATE payments SET status = 'paid'",
        "UPDATE pending SET arm_no = 0",
        "UPDATE pending SET kind = 'deadline' WHERE kind = 'query'",
        "UPDATE pending SET kind = 'query' WHERE kind = 'deadline'",
        "UPDATE pending SET kind = 'refund'",
        "UPDATE pending SET out_trade_no = 'A-2' WHERE kind = 'deadline'",
    ],
)
async def test_what_an_unpaid_order_cannot_be(db: Database, sql: str) -> None:
    await placed(db)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(sql)


@pytest.mark.parametrize("table", ["orders", "payments"])
async def test_an_order_with_a_history_is_not_deleted_by_mistake(db: Database, table: str) -> None:
    await placed(db)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await db.execute("DELETE FROM orders")
    assert await count(db, table) == 1


async def test_two_payments_cannot_have_one_transaction_of_an_account(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
    await commit_evidence(db, "A-1", paid("A-1", transaction="t-1"))
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await db.execute(
            "UPDATE payments SET status = 'paid', paid_at = now(), channel_transaction_id = 't-1' WHERE status = 'open'"
        )
    assert refused.value.constraint_name == "payments_transaction"


async def test_payments_without_a_transaction_do_not_conflict(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
        await commit_evidence(db, order_no, closed(order_no))
    assert await count(db, "payments", "channel_transaction_id IS NULL") == 2
