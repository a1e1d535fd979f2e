"""Every crash point of an order's life, at every channel: `python -m tests.simulation.crash_points run`."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import click

from tests.simulation import start

CHANNELS = ("sandbox", "alipay", "wechatpay", "stripe", "paypal")
COURSES = ("callback", "query", "closed", "refund")
AFTER = ("restarted", "taken_over")

WORLD_LIMIT_S = 3600.0

_seed = click.option("--seed", type=click.IntRange(0), default=1, show_default=True, envvar="SEED", show_envvar=True)
_points = click.option(
    "--points", type=click.IntRange(1), default=1000, show_default=True, help="Points of each life at most."
)
_pairs = click.option(
    "--pairs", type=click.IntRange(0), default=0, show_default=True, help="Lives with two crashes, drawn by the seed."
)


@click.group()
def main() -> None:
    """Kill a process at every call of a store in an order's life, one life for each point."""


@main.command()
@_seed
@_points
@_pairs
@click.option("--channel", "channels", type=click.Choice(CHANNELS), multiple=True, default=CHANNELS)
@click.option("--course", "courses", type=click.Choice(COURSES), multiple=True, default=COURSES)
@click.option("--after", "afters", type=click.Choice(AFTER), multiple=True, default=AFTER)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, help="Worlds at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output.")
def run(
    *,
    seed: int,
    points: int,
    pairs: int,
    channels: tuple[str, ...],
    courses: tuple[str, ...],
    afters: tuple[str, ...],
    jobs: int,
    as_json: bool,
) -> None:
    """Play all lives, each combination in a process with a database of its own. Exit code 1: a violation."""
    import msgspec

    from demo.embedded import temporary_directory
    from tests.simulation.postgres import cluster

    with temporary_directory() as home, cluster(home / "postgres") as server, ThreadPoolExecutor(jobs) as pool:

        def play(number: int, channel: str, course: str, after: str) -> dict[str, Any]:
            url = server.new_database(f"lives_{number}")
            options = ["--seed", str(seed), "--points", str(points), "--pairs", str(pairs), "--channel", channel]
            options += ["--course", course, "--after", after, "--database-url", url]
            ended = subprocess.run(
                [sys.executable, "-m", "tests.simulation.crash_points", "world", *options],
                capture_output=True,
                timeout=WORLD_LIMIT_S,
                check=False,
            )
            if ended.returncode:
                raise click.ClickException(ended.stderr.decode("utf-8", "replace"))
            server.drop_database(f"lives_{number}")
            played: dict[str, Any] = msgspec.json.decode(ended.stdout.splitlines()[-1])
            return played

        waiting = [pool.submit(play, number, *names) for number, names in enumerate(product(channels, courses, afters))]
        played = []
        for each in waiting:
            played.append(each.result())
            if not as_json:
                click.echo(_line(played[-1]))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(played)).decode())
    else:
        lives, broken = sum(each["orders"] for each in played), sum(_count_broken(each) for each in played)
        click.echo(f"{lives} lives, {sum(len(each['points']) for each in played)} points, {broken} violations")
    sys.exit(1 if any(map(_count_broken, played)) else 0)


def _line(played: dict[str, Any]) -> str:
    names = f"{played['channel']:<10} {played['course']:<9} {played['after']:<11}"
    sums = f"{len(played['points']):>4} points {len(played['missed']):>3} missed"
    sums += f" {len(played['pairs']):>5} of {played['pairs_known']:>5} pairs {_count_broken(played):>3} violations"
    wrong = [f"  {found['invariant']} {found['order_no']}: {found['sentence']}" for found in played["found"]]
    return "\n".join([names + sums, *wrong, *(f"  not settled: {each}" for each in played["unsettled"])])


def _count_broken(played: dict[str, Any]) -> int:
    return len(played["found"]) + len(played["unsettled"])


@main.command()
@_seed
@_points
@_pairs
@click.option("--channel", type=click.Choice(CHANNELS), required=True)
@click.option("--course", type=click.Choice(COURSES), required=True)
@click.option("--after", type=click.Choice(AFTER), required=True)
@click.option("--database-url", required=True, help="URL of an empty database of worlds.")
@click.option("--events", type=click.File("w"), help="File to which all events are written.")
def world(
    *, seed: int, points: int, pairs: int, channel: str, course: str, after: str, database_url: str, events: Any
) -> None:
    """Play the lives of one combination in this process, and print them as JSON."""
    start.begin(seed)
    import msgspec

    from tests.simulation import crash_lives

    lives = crash_lives.CrashLives(seed, channel, crash_lives.Course(course), crash_lives.After(after))
    played = start.run(lambda: lives.play(database_url, points_max=points, pairs=pairs, events=events))
    sys.stdout.buffer.write(msgspec.json.encode(played) + b"\n")
    sys.stdout.flush()
    os._exit(0)  # what dead processes of the world have left must not run


if __name__ == "__main__":
    main(prog_name="python -m tests.simulation.crash_points")
