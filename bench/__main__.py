"""The command `python -m bench` and `make bench`: benchmarks one after another, JSON on standard output."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

import click
import msgspec

from bench import (
    backlog,
    callbacks,
    channels,
    console,
    door,
    footprint,
    growth,
    limit,
    merchants,
    orders,
    pages,
    queries,
    queue,
    rearm,
    reconcile,
    sweep,
    usual,
)
from bench.buyer import Unexpected
from bench.chart import draw
from bench.machine import describe, loop_ms
from bench.page import NoPlace, write
from bench.peers.environment import PeerMissing
from bench.report import Report, Result, lines
from bench.rounds import Measure, in_rounds
from bench.sizes import ShowProgress, Sizes
from cli.progress import Progress
from demo.embedded import EmbeddedError, temporary_directory

BENCHMARKS: Mapping[str, Measure] = MappingProxyType(
    {
        "orders": in_rounds(orders.measure),
        "callbacks": in_rounds(callbacks.measure),
        "queries": in_rounds(queries.measure),
        "backlog": backlog.measure,
        "rearm": rearm.measure,
        "footprint": footprint.measure,
        "sweep": sweep.measure,
        "merchants": merchants.measure,
        "door": door.measure,
        "reconcile": reconcile.measure,
        "channels": channels.measure,
        "usual": usual.measure,
        "growth": growth.measure,
        "queue": queue.measure,
        "limit": limit.measure,
        "pages": pages.measure,
        "console": console.measure,
    }
)
_USUAL = Sizes()


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: python -m bench orders --clients 32"
)
@click.argument("benchmarks", nargs=-1, type=click.Choice(list(BENCHMARKS)), metavar="[BENCHMARK]...")
@click.option("--orders", type=click.IntRange(1, 100_000), default=_USUAL.orders, show_default=True)
@click.option("--callbacks", type=click.IntRange(3, 50_000), default=_USUAL.callbacks, show_default=True)
@click.option("--queries", type=click.IntRange(1, 100_000), default=_USUAL.queries, show_default=True)
@click.option("--backlog", type=click.IntRange(1, 100_000), default=_USUAL.backlog, show_default=True)
@click.option("--channel-queries", type=click.IntRange(1, 100_000), default=_USUAL.channel_queries, show_default=True)
@click.option(
    "--channel-callbacks", type=click.IntRange(1, 1_000_000), default=_USUAL.channel_callbacks, show_default=True
)
@click.option(
    "--deliveries",
    type=click.IntRange(2, 100_000),
    default=_USUAL.deliveries,
    show_default=True,
    help="Notifications of merchants for each side of each measurement.",
)
@click.option(
    "--rows",
    type=click.IntRange(100, 1_000_000),
    default=_USUAL.rows,
    show_default=True,
    help="Rows of rearm, sweep, growth and of the statement of reconcile; payments of footprint; orders of door, "
    "console.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 256),
    multiple=True,
    help="Clients of orders (several: repeat it), callbacks and usual; by default 16, 64 and 256 of orders, 32 of "
    "callbacks, 64 of usual.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 20),
    default=_USUAL.repeats,
    show_default=True,
    help="Rounds of orders, callbacks, queries, usual, queue and limit, each on new stores; flushes of rearm.",
)
@click.option(
    "--limit-s",
    type=click.FloatRange(0.1, 600),
    default=_USUAL.limit_s,
    show_default=True,
    help="Time limit of one measurement in seconds; its work up to then counts.",
)
@click.option(
    "--jobs",
    type=click.IntRange(100, 1_000_000),
    default=_USUAL.jobs,
    show_default=True,
    help="Jobs of the quickest in queue; slower ones have a part of them.",
)
@click.option(
    "--requests",
    type=click.IntRange(100, 1_000_000),
    default=_USUAL.requests,
    show_default=True,
    help="Requests and calls of limit, whose orders are --orders.",
)
@click.option("--pages", type=click.IntRange(2, 10_000), default=_USUAL.pages, show_default=True)
@click.option("--streams", type=click.IntRange(2, 2000), default=_USUAL.streams, show_default=True)
@click.option(
    "--queues",
    type=click.Choice(queue.NAMES),
    multiple=True,
    help="Workers of queue (repeat it for several); by default all that can be installed.",
)
@click.option(
    "--profile",
    type=click.Path(file_okay=False, writable=True),
    default="",
    help="Folder for orders.txt and queries.txt: where time goes, from a run of its own.",
)
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File for a chart of orders, usual, queue and growth, as SVG.",
)
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
    help="Page whose tables are replaced by those of this run: docs/performance.md.",
)
def main(benchmarks: tuple[str, ...], chart: Path | None, page: Path | None, **sizes: float) -> None:
    """Measure nodrop on this machine: its real processes on Postgres, with fsync, and Redis.

    BENCHMARK is orders, callbacks, queries, backlog, rearm, footprint, sweep, merchants, door, reconcile, channels,
    usual, growth, queue, limit, pages or console; by default all of them, in about an hour on two cores. Prints JSON on
    standard output and a table on standard error. Exit code 1 if a benchmark failed, or a page of the console was too
    slow.
    """
    names = benchmarks or tuple(BENCHMARKS)
    try:
        report = asyncio.run(_run(names, msgspec.convert(sizes, Sizes)))
    except (EmbeddedError, ExceptionGroup, RuntimeError, Unexpected) as error:
        raise click.ClickException(_reason(error)) from None
    click.echo("\n".join(["", *lines(report)]), err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)))
    if chart is not None:
        chart.write_text(draw(report))
    if page is not None:
        try:
            write(page, report)
        except NoPlace as error:
            raise click.ClickException(str(error)) from None
    if missed := [text for result in report.results for text in result.missed]:
        raise click.ClickException("too slow: " + "; ".join(missed))


async def _run(names: Sequence[str], sizes: Sizes) -> Report:
    began_at, began = datetime.now(UTC), time.monotonic()
    with temporary_directory() as directory:
        machine = describe(directory)
    results, paces = list[Result](), [loop_ms()]
    with Progress() as progress:
        for name in dict.fromkeys(names):
            results.append(await _measure(name, sizes, partial(_show_progress, progress, name)))
            paces.append(loop_ms())
    return Report(
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        began_at=began_at,
        seconds=round(time.monotonic() - began, 1),
        machine=machine,
        loop_ms=tuple(paces),
        results=tuple(results),
    )


async def _measure(name: str, sizes: Sizes, show_progress: ShowProgress) -> Result:
    """A benchmark whose peer cannot be installed here is a result without figures, and costs no other its own."""
    try:
        return await BENCHMARKS[name](sizes, show_progress)
    except PeerMissing as missing:
        show_progress(f"skipped: {missing}")
        return Result(benchmark=name, how="skipped", settings={"skipped": str(missing)}, seconds=0.0, figures=())


def _show_progress(progress: Progress, name: str, text: str) -> None:
    progress.write(f"{name}: {text}")


def _reason(error: BaseException) -> str:
    """Return the first error of a group of clients."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


if __name__ == "__main__":
    main(prog_name="python -m bench")
