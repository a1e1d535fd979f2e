"""Every callback lost and every query failing while the buyers pay: what the channel's statement alone brings back.

Scheduled queries, the sweep and the deadlines are hours away, so whatever becomes paid was found by `nodrop reconcile`.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.reconciling import BIG, NO_CALLBACKS, day_of, everybody_was_told, lost, reconcile
from tests.scenarios.scenario import AMOUNT, Scenario
from tests.servers import ROOT, eventually

ROWS = 25_000
GROWTH_MAX_MB = 12
"""Of a run over 25,000 rows beside one over a few: held in memory they would take over twenty-five."""

# Paid here long ago, as in the statement below; their events are not needed.
_BULK_ORDERS = """
INSERT INTO orders (order_no, amount, currency, subject, status, version, page_token, created_at, expires_at, paid_at,
                    paid_by_account, paid_by_out_trade_no)
SELECT 'bulk-' || i, 8888, 'CNY', 'Tea', 'paid', 1, 'page-' || i, now(), now(), $1, 'big', 'bulk-' || i
  FROM generate_series($2::int, $3::int) AS i"""
_BULK_PAYMENTS = """
INSERT INTO payments (channel_account, out_trade_no, order_no, attempt_no, origin, amount, currency, status,
                      channel_transaction_id, payable_until, created_at, paid_at)
SELECT 'big', order_no, order_no, 1, 'ours', amount, currency, 'paid', 't-' || order_no, now(), now(), paid_at
  FROM orders WHERE order_no LIKE 'bulk-%' AND order_no NOT IN (SELECT order_no FROM payments)"""
# No channel was paid for these. With all that refers to them gone, foreign keys need not be looked after row by row.
_FORGET_BULK = """
SET LOCAL session_replication_role = replica;
DELETE FROM payments WHERE order_no LIKE 'bulk-%';
DELETE FROM orders WHERE order_no LIKE 'bulk-%'"""


async def test_every_order_is_repaired_by_reconciliation_alone(alone: Scenario) -> None:
    orders = {name: await lost(alone, name, 3) for name in alone.stack.accounts}
    everything = [order for of_account in orders.values() for order in of_account]
    assert {await alone.status(order) for order in everything} == {"paying"}

    await alone.faults(**NO_CALLBACKS)  # queries are answered again; nothing would ask one for an hour
    for name, of_account in orders.items():
        ran = await reconcile(alone, name, "--date", await day_of(alone, name, of_account[0]))
        assert (ran.code, ran.counts.get("repaired")) == (0, 3), (name, ran)
        assert ran.counts.get("malformed", 0) == 0

    assert {await alone.status(order) for order in everything} == {"paid"}
    assert {await alone.paid_by(order) for order in everything} == {"reconciliation"}
    await eventually(lambda: everybody_was_told(alone, everything))


async def test_killed_in_the_middle_of_a_long_statement_it_is_carried_on(alone: Scenario, tmp_path: Path) -> None:
    """25,000 rows: what is paid there only is repaired, every other kind is reported, and memory stays flat."""
    orders = await lost(alone, BIG, 4)
    paid = {order.order_no: await alone.ledger_payment(order) for order in orders}
    await alone.faults(**NO_CALLBACKS)
    at = datetime.fromisoformat("2026-01-15T12:00:00+00:00")
    for start in range(1, ROWS + 1, 5_000):
        await alone.db.execute(_BULK_ORDERS, at, start, start + 4_999)
        await alone.db.execute(_BULK_PAYMENTS)
    rows = [bulk_row(number) for number in range(1, ROWS + 1)]
    rows[10] = bulk_row(11, amount=8887)
    rows[12_500] = bulk_row(12_501, currency="USD")
    rows[15_000] = bulk_row(12_500)
    rows[17_500] = bulk_row(17_501, type="refund", refund_no="r-1", amount=100)
    rows[20_000] = "payment,cut off"
    for place, (order_no, payment) in zip((5, 300, 22_500, 24_999), paid.items(), strict=True):
        assert order_no
        rows[place] = bulk_row(
            0, out_trade_no=payment.out_trade_no, transaction_id=payment.transaction_id, at="2026-01-15T12:00:00Z"
        )
    missing = 8  # the places taken above, and the payments whose rows stood there
    few, many = tmp_path / "few.csv", tmp_path / "many.csv"
    write(few, rows[100:200])
    write(many, rows)
    small = await reconcile(alone, BIG, str(few), "--dry-run")
    assert (small.code, small.counts["agrees"]) == (0, 100)

    await killed_in_mid_file(alone, many, tmp_path / "killed.log")
    ran = await reconcile(alone, BIG, str(many))

    assert ran.code == 3
    assert {kind: count for kind, count in ran.counts.items() if count} == {
        "rows": ROWS,
        "repaired": 4,
        "agrees": ROWS - 9,
        "amount": 1,
        "currency": 1,
        "duplicate": 1,
        "refund": 1,
        "malformed": 1,
        "paid_here_only": missing - 1,
    }
    assert {await alone.status(order) for order in orders} == {"paid"}
    assert {await alone.paid_by(order) for order in orders} == {"reconciliation"}
    assert ran.peak_mb - small.peak_mb < GROWTH_MAX_MB, (small.peak_mb, ran.peak_mb)
    sql = "SELECT count(*) FROM cases WHERE channel_account = 'big' AND resolved_at IS NULL GROUP BY reason ORDER BY 1"
    assert [row["count"] for row in await alone.db.fetch(sql)] == [1, 1, 1, 1, 1, missing - 1]
    await eventually(lambda: everybody_was_told(alone, orders))
    await alone.db.execute(_FORGET_BULK)


def bulk_row(number: int, **changes: object) -> str:
    fields: dict[str, Any] = {
        "type": "payment",
        "out_trade_no": f"bulk-{number}",
        "transaction_id": f"t-bulk-{number}",
        "refund_no": "",
        "amount": AMOUNT,
        "currency": "CNY",
        # Seconds before and after noon, so that what was paid here at noon lies between the first and the last.
        "at": f"2026-01-15T{11 if number < ROWS / 2 else 12}:00:01Z",
    }
    return ",".join(str(value) for value in (fields | changes).values())


def write(path: Path, rows: list[str]) -> None:
    header = "type,out_trade_no,transaction_id,refund_no,amount,currency,at"
    path.write_text("\n".join([header, *rows, ""]))


async def killed_in_mid_file(scenario: Scenario, path: Path, log: Path) -> None:
    """SIGKILL when it has done some of its rows."""
    sql = "SELECT next_row FROM reconciliations WHERE finished_at IS NULL AND next_row > 5000"
    argv = (sys.executable, "-m", "cli", "reconcile", "--account", BIG, str(path))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=ROOT, env=scenario.stack.environ, stdout=output, stderr=output
        )
        try:
            next_row = await eventually(lambda: scenario.db.fetchval(sql))
        finally:
            process.kill()
            await process.wait()
    assert next_row < ROWS, log.read_text()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process had in memory comes from the kernel")
