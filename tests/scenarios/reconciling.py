"""Orders that only a statement brings back: paid at the channel with no callback and no possible query here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from io import BytesIO
from typing import NamedTuple

import msgspec

from channels.adapters import open_channel
from channels.transport import Transport
from demo.run import CURRENCIES
from simulator.servers import CHANNELS
from simulator.shoppers.shop import ShopOrder
from storage.postgres.orders import find_state
from tests.scenarios.scenario import ENVIRONMENT, Scenario
from tests.servers import ROOT

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
"""Channels at which the buyer only agrees. The money is taken by the shop's own page, as by PayPal's button."""

BIG = "big"

# The kernel counts as a process's memory what its parent had when it started it, so the parent is small.
_MEASURING = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


class Ran(NamedTuple):
    """A `nodrop reconcile` that has ended. `peak_mb` is what it had in memory at most."""

    code: int
    counts: dict[str, int]
    out: str
    peak_mb: float


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
    async with Transport(timeout_s=60) as transport:
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


async def reconcile(scenario: Scenario, account: str, *arguments: str) -> Ran:
    """`nodrop reconcile` as an operator types it."""
    return await asyncio.to_thread(_reconcile, scenario.stack.environ, account, arguments)


def _reconcile(environ: dict[str, str], account: str, arguments: tuple[str, ...]) -> Ran:
    nodrop = (sys.executable, "-m", "cli", "reconcile", "--account", account, "--json", *arguments)
    argv = (sys.executable, "-I", "-S", "-c", _MEASURING, *nodrop)
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout, done
    counts = msgspec.json.decode(done.stdout)["run"]["counts"]
    return Ran(done.returncode, counts, done.stdout, int(done.stderr.splitlines()[-1]) / 1024)


async def statement_of(scenario: Scenario, account: str, order: ShopOrder) -> bytes:
    """The channel's statement of the day on which this order was paid, as an operator downloads it."""
    into = BytesIO()
    paid_at = (await scenario.ledger_payment(order)).paid_at
    assert paid_at is not None
    async with Transport(timeout_s=60) as transport:
        channel = open_channel(await scenario.stack.open_account(account), transport)
        await channel.fetch_statement(paid_at.astimezone(channel.statement_zone).date(), into)
    return into.getvalue()
