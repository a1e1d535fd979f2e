"""Run of the demo: orders with faults and accidents, reconciliation, and the report of a check from outside."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from channels.adapters import open_channel
from channels.transport import Transport
from cli.progress import Progress
from cli.reconcile import NEEDS_PERSON
from demo.accidents import Accidents
from demo.embedded import temporary_directory
from demo.open_work import count_open_work, list_open_work
from demo.report import Report, gather
from demo.service import ROOT
from demo.stack import Stack
from simulator.kernel.faults import FaultProfile
from simulator.shoppers.plan import Kind, Plan
from simulator.shoppers.visits import Visit, run
from storage.postgres.database import Database

UNIT_S = 0.25
EXPIRES_S = 10
CONCURRENCY = 64
LATE_MONEY_S = 0.5
RECONCILE_TRIES = 8
RECHECKED_WITHIN_S = 2.0 * EXPIRES_S
SETTLE_S = 60.0
"""The quiet time: limit for the work that is left, mostly queries and deadlines whose n² gaps have grown."""

CURRENCIES = {
    "sandbox": ("CNY", "USD", "JPY", "KWD"),
    "alipay": ("CNY",),
    "wechatpay": ("CNY",),
    "stripe": ("CNY", "USD", "JPY"),
    "paypal": ("USD", "JPY"),
}
"""Currencies of each account. There is one account at every channel, with the channel's name."""
KINDS = {
    Kind.PAYS_AT_ONCE: 5.0,
    Kind.COMES_BACK: 2.0,
    Kind.WALKS_AWAY: 1.0,
    Kind.PAYS_LATE: 1.0,
    Kind.PAYS_TWICE: 1.0,
}

HARSH = FaultProfile(
    lost=0.40,
    late=0.10,
    late_s=3.0,
    reordered=0.05,
    doubled=0.20,
    wrong_amount=0.05,
    stale=0.03,
    forged=0.20,
    forged_checksum=0.20,
    event_never_generated=0.03,
    answered_5xx=0.05,
    html_error=0.01,
    cut=0.02,
    truncated=0.02,
    slow=0.02,
    slow_s=1.0,
    not_found_first=0.10,
    create_answer_lost=0.02,
    close_answer_lost=0.05,
    settles_after_close=0.10,
    settles_later=0.05,
    refunded_in_part=0.30,
)
"""40 of 100 callbacks are lost, others late, doubled, forged or wrong; 10 of 100 queries fail."""


Keep = Callable[[Stack, Report], Awaitable[None]]
"""A caller that wants the processes after the report, and returns when they may end."""


async def run_demo(
    orders: int, seed: int, profile: FaultProfile, *, chaos: bool, reconciles: bool = True, keep: Keep | None = None
) -> Report:
    """Run the demo. Without `reconciles` every order must become definite by queries alone. With `keep` the API has its
    console, and all processes run on until it returns.
    """
    began, began_at = time.monotonic(), datetime.now(UTC)
    with temporary_directory() as directory, Progress() as progress:
        progress.write("Starting Postgres, Redis, the API, a worker, five channels and the merchant")
        accounts = {name: name for name in CURRENCIES}
        env = {"RECONCILE_AT": "off", **({} if keep is None else {"OPS": "1"})}
        async with Stack(directory, unit_s=UNIT_S, seed=seed, accounts=accounts, env=env) as stack:
            await stack.control("PUT", "channel", "/control/faults", profile)
            progress.write(f"Placing {orders} orders; {profile.lost:.0%} of their callbacks are lost")
            accidents = Accidents(stack, orders, progress) if chaos else None
            visits = await _shop(stack, orders, seed, accidents, progress)
            db = await stack.open_database()
            try:
                progress.write(f"The demo ran {orders} orders; waiting until each of them is settled")
                await settle(db, progress)
                await asyncio.sleep(profile.settle_after_s + LATE_MONEY_S)
                if reconciles:
                    progress.write("Reconciling with the channels' statements of the day")
                    await asyncio.gather(*(_reconcile(stack, name, began_at) for name in CURRENCIES))
                await settle(db, progress)
                done = accidents.done if accidents is not None else []
                duration_s = time.monotonic() - began
                still_open = await list_open_work(db, RECHECKED_WITHIN_S)
                report = await gather(
                    stack, db, visits, seed=seed, chaos=done, duration_s=duration_s, still_open=still_open
                )
            finally:
                await db.close()
            if keep is not None:
                progress.end_bar()
                await keep(stack, report)
                progress.write("Stopping all processes")
            return report


def usual_plan(
    stack: Stack, shoppers: int, seed: int, *, expires_s: int = EXPIRES_S, order_prefix: str = "shop"
) -> Plan:
    """Return a plan with shoppers of all kinds at all accounts of the stack, in all their currencies."""
    return Plan(
        shoppers=shoppers,
        accounts=tuple(CURRENCIES),
        currencies=CURRENCIES,
        notify_url=stack.notify_url,
        seed=seed,
        weights=KINDS,
        expires_in_s=expires_s,
        order_prefix=order_prefix,
    )


async def settle(
    db: Database, progress: Progress, *, rechecked_within_s: float = RECHECKED_WITHIN_S, limit_s: float = SETTLE_S
) -> int:
    """Wait until no work is open, or for so long; return the number of rows that are still open."""
    deadline = time.monotonic() + limit_s
    most = 0
    while True:
        left = await count_open_work(db, rechecked_within_s)
        most = max(most, left)
        progress.update("settling", most - left, most, f"{left} open")
        if left == 0 or time.monotonic() >= deadline:
            return left
        await asyncio.sleep(0.25)


async def _shop(
    stack: Stack, orders: int, seed: int, accidents: Accidents | None, progress: Progress
) -> tuple[Visit, ...]:
    plan = usual_plan(stack, orders, seed)
    done = paid = 0
    running: set[asyncio.Task[None]] = set()

    def on_progress(visit: Visit) -> None:
        nonlocal done, paid
        done += 1
        paid += bool(visit.paid)
        progress.update("orders", done, orders, f"{paid} paid at the channel")
        task = None if accidents is None else accidents.start_at(done)
        if task is not None:
            running.add(task)
            task.add_done_callback(running.discard)

    async with stack.shop() as shop:
        visits = await run(shop, plan, concurrency=CONCURRENCY, on_progress=on_progress)
    await asyncio.gather(*running)
    return visits


async def _reconcile(stack: Stack, name: str, began_at: datetime) -> None:
    """Run `nodrop reconcile` for the day of the run, or for both days of a run across midnight.

    A worker does this once a day. It finds money that arrived after its payment was closed and whose callback was lost.

    Raises:
        RuntimeError: every try failed because of the channel's faults.
    """
    account = await stack.open_account(name)
    async with Transport(timeout_s=1.0) as transport:
        zone = open_channel(account, transport).statement_zone
    for day in sorted({at.astimezone(zone).date() for at in (began_at, datetime.now(UTC))}):
        for _ in range(RECONCILE_TRIES):
            command = [sys.executable, "-m", "cli", "reconcile", "--account", name, "--date", day.isoformat()]
            process = await asyncio.create_subprocess_exec(
                *command, env=stack.environ, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL
            )
            if await process.wait() in (0, NEEDS_PERSON):
                break
        else:
            raise RuntimeError(f"the statement of {name} could not be reconciled")
