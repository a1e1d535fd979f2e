"""Every crash point of an order's life, at every channel: `python -m tests.simulation.crash_points run`."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

import click

from tests.simulation import start

CHANNELS = ("sandbox", "alipay", "wechatpay", "stripe", "paypal")
COURSES = (
    "callback", "query", "compensation", "sweep", "flushed", "parked", "closed", "ended", "refund", "stopped",
    "reconciled",
)  # fmt: skip
AFTER = ("restarted", "taken_over")

WORLD_LIMIT_S = 3600.0

_seed = click.option("--seed", type=click.IntRange(0), default=1, show_default=True, envvar="SEED", show_envvar=True)
_points = click.option(
    "--points", type=click.IntRange(1), default=1000, show_default=True, help="Points of each life at most."
)
_pairs = click.option(
    "--pairs",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Lives of a course with two crashes, drawn by the seed.",
)
_only_steps = click.option(
    "--steps/--calls",
    "only_steps",
    default=True,
    help="Only the named steps (the default), or all calls of stores, too.",
)


@click.group()
def main() -> None:
    """Kill a process at every step of an order's life, and at every call of a store, one life for each point."""


@main.command(epilog="Example: python -m tests.simulation.crash_points run --steps --channel sandbox --pairs 1000")
@_seed
@_points
@_pairs
@_only_steps
@click.option(
    "--paired", type=click.Choice(CHANNELS), multiple=True, default=("sandbox",), help="Channels that have the pairs."
)
@click.option("--channel", "channels", type=click.Choice(CHANNELS), multiple=True, default=CHANNELS)
@click.option("--course", "courses", type=click.Choice(COURSES), multiple=True, default=COURSES)
@click.option("--after", "afters", type=click.Choice(AFTER), multiple=True, default=AFTER)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, help="Worlds at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output.")
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="Write the tables to this page, too.")
def run(
    *,
    seed: int,
    points: int,
    pairs: int,
    only_steps: bool,
    paired: tuple[str, ...],
    channels: tuple[str, ...],
    courses: tuple[str, ...],
    afters: tuple[str, ...],
    jobs: int,
    as_json: bool,
    write: Path | None,
) -> None:
    """Play all lives, those of a channel in a process with a database of its own.

    Exit code 1: a violation, or a named step at which no process died.
    """
    import msgspec

    from demo.embedded import temporary_directory
    from tests.simulation import crash_report, runner
    from tests.simulation.postgres import cluster

    with temporary_directory() as home, cluster(home / "postgres") as server, ThreadPoolExecutor(jobs) as pool:

        def play(channel: str, after: str) -> list[dict[str, Any]]:
            # Where another process takes over, a second crash would leave none.
            is_paired = channel in paired and after == "restarted"
            options = ["--seed", str(seed), "--points", str(points), "--pairs", str(pairs if is_paired else 0)]
            options += ["--channel", channel, "--after", after]
            options += [option for course in courses for option in ("--course", course)]
            options.append("--steps" if only_steps else "--calls")
            title = f"world of {channel}, {after},"
            try:
                line = runner.in_process(server, title, "tests.simulation.crash_points", options, WORLD_LIMIT_S)
            except runner.WorldFailed as error:
                raise click.ClickException(str(error)) from None
            lives: list[dict[str, Any]] = msgspec.json.decode(line)
            return lives

        waiting = [pool.submit(play, *names) for names in product(channels, afters)]
        played: list[dict[str, Any]] = []
        for ended in as_completed(waiting):
            for each in ended.result():
                played.append(each)
                click.echo(crash_report.line(each), err=True)
    report = crash_report.Report(played, channels, courses, afters)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(played)).decode())
    else:
        click.echo(report.text())
    if write is not None:
        command = f"python -m tests.simulation.crash_points {' '.join(sys.argv[1:])}"
        write.write_text(report.page(command), "utf-8")
    sys.exit(1 if report.count_broken() or report.not_reached() else 0)


@main.command()
@_seed
@_points
@_pairs
@_only_steps
@click.option("--channel", type=click.Choice(CHANNELS), required=True)
@click.option("--course", "courses", type=click.Choice(COURSES), multiple=True, required=True)
@click.option("--after", type=click.Choice(AFTER), required=True)
@click.option("--database-url", required=True, help="URL of an empty database of worlds.")
@click.option("--events", type=click.File("w"), help="File to which all events are written.")
def world(
    *,
    seed: int,
    points: int,
    pairs: int,
    only_steps: bool,
    channel: str,
    courses: tuple[str, ...],
    after: str,
    database_url: str,
    events: Any,
) -> None:
    """Play the lives of one channel in this process, and print them as JSON."""
    start.begin(seed)
    import msgspec

    from tests.simulation.crash_lives import After, CrashLives
    from tests.simulation.crash_steps import Course

    lives = CrashLives(seed, channel, After(after), only_steps=only_steps)
    of_world = [Course(course) for course in courses]
    played = start.run(lambda: lives.play(database_url, of_world, points_max=points, pairs=pairs, events=events))
    sys.stdout.buffer.write(msgspec.json.encode(played) + b"\n")
    sys.stdout.flush()
    os._exit(0)  # what dead processes of the world have left must not run


if __name__ == "__main__":
    main(prog_name="python -m tests.simulation.crash_points")
