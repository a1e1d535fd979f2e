"""The command `python -m tests.chaos` and `make chaos`: disturbances in turn, JSON on standard output."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import click
import msgspec

from bench.machine import Machine, describe
from cli.progress import Progress
from demo.embedded import EmbeddedError, temporary_directory
from demo.report import Report
from tests.chaos import clock, disk, kill, postgres, redis, release, soak, storm, streams
from tests.chaos.ground import Disturbance
from tests.chaos.run import Outcome, run

DISTURBANCES: Mapping[str, Disturbance] = MappingProxyType(
    {
        each.name: each
        for each in (
            kill.DISTURBANCE,
            redis.DISTURBANCE,
            postgres.DISTURBANCE,
            storm.DISTURBANCE,
            clock.DISTURBANCE,
            disk.DISTURBANCE,
            release.DISTURBANCE,
            streams.DISTURBANCE,
            soak.DISTURBANCE,
        )
    }
)
ALONE = frozenset({"soak"})
"""Run only by name: it takes as long as all the others."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON on standard output: every disturbance with the machine on which it ran."""

    command: str
    began_at: datetime
    seconds: float
    machine: Machine
    outcomes: tuple[Outcome, ...]

    @property
    def is_good(self) -> bool:
        return all(outcome.is_good for outcome in self.outcomes)


@click.command(
    help=(
        "Disturb the whole system under load, each disturbance on a system of its own, and check it from outside: "
        "channels' ledgers, the merchant's effects, pages. Without names all are run but soak. The table is on "
        "standard error, JSON on standard output. Exit code 1 if anything was lost or broken."
    ),
    epilog="Example: python -m tests.chaos kill redis --seconds 30 --seed 7",
)
@click.argument("names", nargs=-1, type=click.Choice(tuple(DISTURBANCES)))
@click.option(
    "--seconds", type=click.FloatRange(1, 7200), help="Length of each disturbance; without it each has its own."
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    envvar="SEED",
    show_envvar=True,
    help="Seed of faults, shoppers and moments; processes go on by themselves, so that it repeats no run exactly.",
)
@click.option("--list", "lists", is_flag=True, help="List the disturbances and end.")
def main(names: tuple[str, ...], seconds: float | None, seed: int, lists: bool) -> None:
    if lists:
        for each in DISTURBANCES.values():
            click.echo(f"{each.name:10} {each.seconds:6.0f} s  {each.summary}")
        return
    chosen = names or tuple(name for name in DISTURBANCES if name not in ALONE)
    try:
        record = asyncio.run(_run(chosen, seconds, seed))
    except (EmbeddedError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(lines(record)), err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(record)).decode())
    sys.exit(0 if record.is_good else 1)


async def _run(names: Sequence[str], seconds: float | None, seed: int) -> Record:
    began, began_at = time.monotonic(), datetime.now(UTC)
    with temporary_directory() as directory:
        machine = describe(directory)
    with Progress() as progress:
        outcomes = [
            await run(DISTURBANCES[name], seconds=seconds or DISTURBANCES[name].seconds, seed=seed, progress=progress)
            for name in names
        ]
    return Record(
        command=" ".join(("python -m tests.chaos", *names)),
        began_at=began_at,
        seconds=round(time.monotonic() - began, 1),
        machine=machine,
        outcomes=tuple(outcomes),
    )


def lines(record: Record) -> list[str]:
    """Return the table for a person."""
    out = ["", f"commit {record.machine.commit}, {record.machine.cores} cores, {record.seconds:.0f} s"]
    for outcome in record.outcomes:
        out += ["", f"{outcome.name}: {outcome.summary}"]
        if outcome.skipped:
            out.append(f"  skipped: {outcome.skipped}")
            continue
        out += [] if outcome.report is None else _summed_up(outcome, outcome.report)
        out += [f"  {each.name:44} {each.value:>10g} {each.unit}  (n {each.n})" for each in outcome.figures]
        out += [f"  BROKEN {sentence}" for sentence in outcome.broken]
    broken = sum(len(outcome.broken) for outcome in record.outcomes)
    return [*out, "", f"{len(record.outcomes)} disturbances, {broken} broken"]


def _summed_up(outcome: Outcome, report: Report) -> list[str]:
    paid = f"{report.paid_at_channel} payments paid at the channels, {report.callback_only_lost} without a callback"
    kept = f"lost {report.lost}, false {report.false}, pages with a wrong status {report.untrue_pages}"
    times = f"p50 {report.repair_p50_s:.2f} s, p99 {report.repair_p99_s:.2f} s"
    return [
        f"  {outcome.shoppers} shoppers, {outcome.not_placed} could not order; {paid}",
        f"  {kept}, not definite {len(report.still_open)}",
        f"  from paid at the channel to paid here: {times}",
    ]


if __name__ == "__main__":
    main()
