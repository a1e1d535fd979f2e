"""Every callback lost and every query failing while the buyers pay: what the channel's statement alone brings back.

Scheduled queries, the sweep and the deadlines are hours away, so whatever becomes paid was found by `nodrop reconcile`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from channels.adapters import open_channel
from channels.transport import Transport
from demo.run import CURRENCIES
from demo.stack import Stack
from simulator.servers import CHANNELS
from simulator.shoppers.shop import ShopOrder
from storage.postgres.orders import find_state
from tests.scenarios.conftest import running_scenario
from tests.scenarios.scenario import AMOUNT, ENVIRONMENT, Scenario
from tests.servers import ROOT, eventually

HOURS_S = "7200"
ALONE = ENVIRONMENT | {
    "BACKOFF_UNIT_S": "3600",
    "SWEEP_GRACE_S": HOURS_S,
    "ORDER_EXPIRES_S": HOURS_S,
    "RECONCILE_AT": "off",
    "LEASE_S": "2",
}
NO_CALLBACKS = {"event_never_generated": 1.0, "callbacks_blocked": True}
NO_QUERIES = {"affected": ["query", "undelivered"], "html_error": 1.0}

CAPTURES = [channel.name for channel in CHANNELS if channel.needs_capture]
"""Where the buyer only agrees. The money is taken there by the shop's own page, as PayPal's button can, not by us."""

ROWS = 100_000
BIG = "big"
GROWTH_MAX_MB = 24
"""Of a run over 100,000 rows beside one over a few: held in memory they would take over a hundred."""

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


class Ran(NamedTuple):
    """A `nodrop reconcile` that has ended. `peak_mb` is what it had in memory at most."""

    code: int
    counts: dict[str, int]
    out: str
    peak_mb: float


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alone_stack(servers_home: Path) -> AsyncIterator[Stack]:
    accounts = {channel.name: channel.name for channel in CHANNELS} | {BIG: "sandbox"}
    async with Stack(servers_home / "alone", unit_s=0.1, fsync=False, accounts=accounts, env=ALONE) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def alone(alone_stack: Stack) -> AsyncIterator[Scenario]:
    async with running_scenario(alone_stack) as scenario:
        yield scenario


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
    await eventually(lambda: everybody_was_told(alone, everything), 20)


async def test_killed_in_the_middle_of_a_long_statement_it_is_carried_on(alone: Scenario, tmp_path: Path) -> None:
    """100,000 rows: what is paid there only is repaired, every other kind is reported, and memory stays flat."""
    orders = await lost(alone, BIG, 4)
    paid = {order.order_no: await alone.ledger_payment(order) for order in orders}
    await alone.faults(**NO_CALLBACKS)
    at = datetime.fromisoformat("2026-01-15T12:00:00+00:00")
    for start in range(1, ROWS + 1, 20_000):
        await alone.db.execute(_BULK_ORDERS, at, start, start + 19_999)
        await alone.db.execute(_BULK_PAYMENTS)
    rows = [bulk_row(number) for number in range(1, ROWS + 1)]
    rows[10] = bulk_row(11, amount=8887)
    rows[50_000] = bulk_row(50_001, currency="USD")
    rows[60_000] = bulk_row(50_000)
    rows[70_000] = bulk_row(70_001, type="refund", refund_no="r-1", amount=100)
    rows[80_000] = "payment,cut off"
    for place, (order_no, payment) in zip((5, 300, 90_000, 99_999), paid.items(), strict=True):
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
    await eventually(lambda: everybody_was_told(alone, orders), 20)
    await alone.db.execute(_FORGET_BULK)


async def lost(scenario: Scenario, account: str, count: int) -> list[ShopOrder]:
    """Paid at the channel, with no callback and no possible query here."""
    await scenario.faults(**NO_CALLBACKS, **NO_QUERIES)
    currency = CURRENCIES.get(account, ("CNY",))[0]
    orders = await scenario.place_many(count, account, currency=currency, expires_in_s=3600)
    for order in orders:
        await scenario.pay(order, None)
        if account in CAPTURES:
            await captured_outside(scenario, account, order)
    return orders


async def captured_outside(scenario: Scenario, account: str, order: ShopOrder) -> None:
    state = await find_state(scenario.db, order.order_no)
    assert state is not None
    async with Transport(timeout_s=5.0) as transport:
        await open_channel(await scenario.stack.open_account(account), transport).capture_payment(state.payments[0])


async def day_of(scenario: Scenario, account: str, order: ShopOrder) -> str:
    """On which day of its channel's calendar it was paid: a test may run around midnight."""
    paid_at = (await scenario.ledger_payment(order)).paid_at
    assert paid_at is not None
    config = await scenario.stack.open_account(account)
    async with Transport(timeout_s=1.0) as transport:
        return paid_at.astimezone(open_channel(config, transport).statement_zone).date().isoformat()


async def everybody_was_told(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    return all([await scenario.was_notified(order, "order.paid") for order in orders])


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


async def reconcile(scenario: Scenario, account: str, *arguments: str) -> Ran:
    """`nodrop reconcile` as an operator types it."""
    return await asyncio.to_thread(_reconcile, scenario.stack.environ, account, arguments)


def _reconcile(environ: dict[str, str], account: str, arguments: tuple[str, ...]) -> Ran:
    argv = (sys.executable, "-m", "cli", "reconcile", "--account", account, "--json", *arguments)
    with subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert out, process.returncode
    counts = msgspec.json.decode(out)["run"]["counts"]
    return Ran(process.returncode, counts, out, usage.ru_maxrss / 1024)


async def killed_in_mid_file(scenario: Scenario, path: Path, log: Path) -> None:
    """SIGKILL when it has done some of its rows."""
    sql = "SELECT next_row FROM reconciliations WHERE finished_at IS NULL AND next_row > 20000"
    argv = (sys.executable, "-m", "cli", "reconcile", "--account", BIG, str(path))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=ROOT, env=scenario.stack.environ, stdout=output, stderr=output
        )
        try:
            next_row = await eventually(lambda: scenario.db.fetchval(sql), 30)
        finally:
            process.kill()
            await process.wait()
    assert next_row < ROWS, log.read_text()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process had in memory comes from the kernel")
