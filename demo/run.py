"""`nodrop demo`: lose callbacks on purpose, break everything once, and prove from outside that no order was lost."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from channels.adapters import open_channel
from channels.transport import Transport
from cli.progress import Progress
from cli.reconcile import NEEDS_PERSON
from demo.embedded import EmbeddedError, temporary_directory
from demo.report import Report, gather, lines
from demo.stack import ROOT, Stack
from simulator.kernel.faults import FaultProfile
from simulator.shoppers.visits import Kind, Plan, Visit, run
from storage.postgres.database import Database

UNIT_S = 0.25
EXPIRES_S = 10
CONCURRENCY = 64
SETTLED_S = 0.5
RECONCILE_TRIES = 8
QUIET_S = 75.0
"""How long the dust may take to settle: a lease left by the killed worker (30 s) and the queries after it."""

CURRENCIES = {
    "sandbox": ("CNY", "USD", "JPY", "KWD"),
    "alipay": ("CNY",),
    "wechatpay": ("CNY",),
    "stripe": ("CNY", "USD", "JPY"),
    "paypal": ("USD", "JPY"),
}
"""An account at every channel, named like its channel, and what it is paid in."""
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
)
"""Forty of a hundred callbacks never come, others late, doubled, forged, wrong; ten of a hundred queries fail."""

SHARES = {
    "lost": "callbacks that never come",
    "late": "callbacks that come seconds late",
    "doubled": "callbacks that come twice at once",
    "forged": "unpaid payments for which somebody else claims that they were paid",
    "wrong_amount": "callbacks, well signed, with an amount that is not the payment's",
    "answered_5xx": "calls that the channel answers with 500 to 503",
    "cut": "answers cut off in the middle",
    "slow": "answers that take a second",
    "settles_after_close": "payments whose money arrives after they were closed",
}


def _share_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, what in reversed(SHARES.items()):
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            type=click.FloatRange(0, 1),
            default=getattr(HARSH, name),
            show_default=True,
            envvar=name.upper(),
            help=f"Share of {what}. {name.upper()}= does the same.",
        )(command)
    return command


@click.command(
    epilog="Example: SEED=7 LOST=0.8 make demo",
    help=(
        "Run the whole service on this machine against five channels that lose 40 % of their callbacks, kill the "
        "worker, flush Redis and restart Postgres on the way, reconcile with the channels' statements at the end of "
        "the day, and check from outside that nothing was lost. A minute is shortened to a quarter of a second. Exit "
        "code 1 if an invariant is broken."
    ),
)
@click.option("--orders", type=click.IntRange(1, 5000), default=500, show_default=True, envvar="ORDERS")
@click.option("--seed", type=int, default=1, show_default=True, envvar="SEED", help="Repeats a run's faults.")
@click.option("--chaos/--no-chaos", default=True, show_default=True, help="Kill, flush and restart on the way.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@_share_options
def demo(*, orders: int, seed: int, chaos: bool, as_json: bool, **shares: float) -> None:
    profile = msgspec.structs.replace(HARSH, **shares)
    try:
        report = asyncio.run(_run(orders, seed, profile, chaos=chaos))
    except (EmbeddedError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        click.echo("\n".join(lines(report)))
    sys.exit(0 if report.is_good else 1)


async def _run(orders: int, seed: int, profile: FaultProfile, *, chaos: bool) -> Report:
    began, began_at = time.monotonic(), datetime.now(UTC)
    with temporary_directory() as directory, Progress() as progress:
        progress.say("starting Postgres, Redis, the API, a worker, five channels and the merchant …")
        async with Stack(directory, unit_s=UNIT_S, seed=seed, accounts={name: name for name in CURRENCIES}) as stack:
            await stack.control("PUT", "channel", "/control/faults", profile)
            progress.say(f"placing {orders} orders; {profile.lost:.0%} of their callbacks will never come")
            monkey = _Chaos(stack, orders, progress) if chaos else None
            visits = await _shop(stack, orders, seed, monkey, progress)
            db = await stack.open_database()
            try:
                progress.say("the shop is closed; what is open has to become definite")
                await _settle(db, progress)
                progress.say("the day is over: reconciling with the channels' statements")
                await asyncio.sleep(profile.settle_after_s + SETTLED_S)
                await asyncio.gather(*(_reconcile(stack, name, began_at) for name in CURRENCIES))
                await _settle(db, progress)
                done = monkey.done if monkey is not None else []
                duration_s = time.monotonic() - began
                return await gather(stack, db, visits, seed=seed, chaos=done, duration_s=duration_s)
            finally:
                await db.close()


async def _shop(stack: Stack, orders: int, seed: int, monkey: _Chaos | None, progress: Progress) -> tuple[Visit, ...]:
    plan = Plan(
        shoppers=orders,
        accounts=tuple(CURRENCIES),
        currencies=CURRENCIES,
        notify_url=stack.notify_url,
        seed=seed,
        weights=KINDS,
        expires_in_s=EXPIRES_S,
    )
    done = paid = 0
    running: set[asyncio.Task[None]] = set()

    def on_progress(visit: Visit) -> None:
        nonlocal done, paid
        done += 1
        paid += bool(visit.paid)
        progress.update("shopping", done, orders, f"{paid} paid at the channel")
        task = None if monkey is None else monkey.at(done)
        if task is not None:
            running.add(task)
            task.add_done_callback(running.discard)

    async with stack.shop() as shop:
        visits = await run(shop, plan, concurrency=CONCURRENCY, on_progress=on_progress)
    await asyncio.gather(*running)
    return visits


_OPEN = """
SELECT (SELECT count(*) FROM pending)
     + (SELECT count(*) FROM callbacks WHERE handled_at IS NULL AND dead_at IS NULL)
     + (SELECT count(*) FROM notifications
         WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL)"""


async def _settle(db: Database, progress: Progress) -> None:
    """Until nothing is pending, or for the quiet time. What is left over then is for the invariants to judge."""
    deadline = time.monotonic() + QUIET_S
    most = 0
    while time.monotonic() < deadline:
        left = await db.fetchval(_OPEN)
        most = max(most, left)
        progress.update("settling", most - left, most, f"{left} still open")
        if left == 0:
            return
        await asyncio.sleep(0.25)


async def _reconcile(stack: Stack, name: str, began_at: datetime) -> None:
    """`nodrop reconcile` for the day of the run, or for both if midnight came: the net below all nets, which a worker
    uses once a day. It finds the money that came after its payment was closed and whose callback was lost.

    Raises:
        RuntimeError: the channel's faults have stopped it each time.
    """
    account = await stack.open_account(name)
    async with Transport(timeout_s=1.0) as transport:
        zone = open_channel(account, transport).statement_zone
    for day in sorted({at.astimezone(zone).date() for at in (began_at, datetime.now(UTC))}):
        for _ in range(RECONCILE_TRIES):
            command = [sys.executable, "-m", "cli", "reconcile", "--account", name, "--date", day.isoformat()]
            ran = await asyncio.create_subprocess_exec(
                *command, env=stack.environ, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL
            )
            if await ran.wait() in (0, NEEDS_PERSON):
                break
        else:
            raise RuntimeError(f"the statement of {name} could not be reconciled")


class _Chaos:
    """Three accidents, at a quarter, a half and three quarters of the orders."""

    def __init__(self, stack: Stack, orders: int, progress: Progress) -> None:
        self.done: list[str] = []
        self._stack = stack
        self._progress = progress
        self._plan: dict[int, tuple[str, Callable[[], Awaitable[None]]]] = {
            max(1, orders // 4): ("worker killed with SIGKILL, and started again", self._kill_worker),
            max(2, orders // 2): ("Redis flushed", self._flush_redis),
            max(3, orders * 3 // 4): ("Postgres restarted", self._restart_postgres),
        }

    def at(self, count: int) -> asyncio.Task[None] | None:
        """What happens when so many shoppers are through."""
        if count not in self._plan:
            return None
        name, act = self._plan[count]

        async def happen() -> None:
            self._progress.say(name)
            await act()
            self.done.append(name)

        return asyncio.create_task(happen())

    async def _kill_worker(self) -> None:
        worker = self._stack.workers[0]
        await worker.kill()
        await asyncio.sleep(1.0)
        await worker.start()

    async def _flush_redis(self) -> None:
        await self._stack.flush_redis()

    async def _restart_postgres(self) -> None:
        await asyncio.to_thread(self._stack.postgres.restart)
