"""One disturbance from its beginning to its report: load, disturbance, quiet, and the check from outside."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec

from cli.progress import Progress
from demo.embedded import temporary_directory
from demo.open_work import list_open_work
from demo.report import Report, gather
from demo.run import settle
from demo.service import NO_TLS
from demo.stack import Stack
from simulator.shoppers.visits import Visit
from tests.chaos.ground import EXPIRES_S, LOW, Disturbance, Figure, Ground, Load
from tests.scenarios.scenario import Scenario, unexpected_errors

SETTLE_S = 120.0
"""The quiet time: limit for the work that is left. A killed worker's lease is 20 s, and gaps have grown."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a disturbance. `skipped`: why it was not run."""

    name: str
    summary: str
    seed: int
    began_at: datetime
    seconds: float = 0.0
    skipped: str = ""
    shoppers: int = 0
    not_placed: int = 0
    done: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    broken: tuple[str, ...] = ()
    report: Report | None = None

    @property
    def is_good(self) -> bool:
        return not self.broken


async def run(
    disturbance: Disturbance, *, seconds: float, seed: int, progress: Progress, expires_s: int = EXPIRES_S
) -> Outcome:
    """Run a disturbance on a system of its own."""
    reason = disturbance.missing()
    if reason:
        progress.write(f"{disturbance.name}: skipped: {reason}")
        return _outcome(disturbance, seed, skipped=reason)
    with temporary_directory() as directory:
        progress.write(f"{disturbance.name}: {disturbance.summary}")
        async with disturbance.open_stack(directory, seed) as stack:
            return await disturb(stack, disturbance, seconds=seconds, seed=seed, progress=progress, expires_s=expires_s)


async def disturb(
    stack: Stack,
    disturbance: Disturbance,
    *,
    seconds: float,
    seed: int,
    progress: Progress,
    expires_s: int = EXPIRES_S,
    known: Collection[str] = (),
) -> Outcome:
    """Disturb a running system under load. `known`: what an earlier disturbance of the same system broke."""
    began, began_at = time.monotonic(), datetime.now(UTC)
    db = await stack.open_database()
    try:
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
            scenario = Scenario(stack, db, http)
            ground = Ground(stack, scenario, name=disturbance.name, seconds=seconds, seed=seed, progress=progress)
            await stack.control("PUT", "channel", "/control/faults", LOW)
            load = Load(
                stack,
                rate_per_s=disturbance.rate_per_s,
                expires_s=expires_s,
                seed=seed,
                prefix=f"{disturbance.name}-{int(began_at.timestamp())}",
                progress=progress,
            )
            async with load:
                await disturbance.disturb(ground)
                progress.end_bar()
                progress.write("Quiet: no shopper comes any more, and no fault")
            progress.end_bar()
            progress.write("The last shopper has gone")
            await stack.control("PUT", "channel", "/control/faults", {})
            await _settle(scenario, ground, 2.0 * expires_s)
            await scenario.aclose()
        still_open = await list_open_work(db, 2.0 * expires_s)
        report = await gather(
            stack,
            db,
            load.visits,
            seed=seed,
            chaos=ground.done,
            duration_s=time.monotonic() - began,
            still_open=still_open,
        )
    finally:
        await db.close()
    logs = [*scenario.new_logs(), *(log.read_bytes() for log in ground.logs if log.exists())]
    broken = [*ground.broken, *_broken(report, load.visits), *(f"unexpected: {e}" for e in unexpected_errors(logs))]
    return _outcome(
        disturbance,
        seed,
        began_at=began_at,
        seconds=round(time.monotonic() - began, 1),
        shoppers=len(load.visits),
        not_placed=sum(not visit.placed for visit in load.visits),
        done=tuple(ground.done),
        figures=tuple(ground.figures),
        broken=tuple(sentence for sentence in broken if sentence not in known),
        report=report,
    )


async def _settle(scenario: Scenario, ground: Ground, rechecked_within_s: float) -> None:
    """Close what the disturbance itself placed, and wait until no work is open, or for the limit."""
    began = time.monotonic()
    for order_no in scenario.placed:
        if await scenario.status(order_no) in ("created", "paying"):
            await scenario.close(order_no)
    left = await settle(ground.db, ground.progress, rechecked_within_s=rechecked_within_s, limit_s=SETTLE_S)
    ground.progress.end_bar()
    ground.progress.write("All work is done" if not left else f"{left} rows are still open")
    ground.measure("all work done after", time.monotonic() - began, "s")


def _broken(report: Report, visits: Sequence[Visit]) -> list[str]:
    """Return all that may not be, as sentences."""
    return [
        *(f"{each.invariant}: {each.order_no} {each.sentence}" for each in report.violations),
        *(f"still open: {row.sentence}" for row in report.still_open),
        *(
            f"{visit.order_no}: its page showed {view.status} {view.since_paying_s} s after the payment"
            for visit in visits
            for view in visit.wrong_views
        ),
    ]


def _outcome(disturbance: Disturbance, seed: int, began_at: datetime | None = None, **more: Any) -> Outcome:
    began_at = began_at or datetime.now(UTC)
    return Outcome(name=disturbance.name, summary=disturbance.summary, seed=seed, began_at=began_at, **more)
