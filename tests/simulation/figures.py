"""`make figures`: live the same worlds with some of the measures against lost payments only, and write what each of
them is worth into docs/recovery.md and its picture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from cli.progress import Progress
from demo.embedded import temporary_directory
from tests.servers import ROOT
from tests.simulation.nets import NETS
from tests.simulation.outcome import Outcome
from tests.simulation.postgres import Cluster, cluster
from tests.simulation.recovery import PROFILES, Lived, Run, columns, page, picture, strange_ways
from tests.simulation.runner import Plan, Worlds, commit_of


class Task(NamedTuple):
    """A world to be lived."""

    profile: str
    net: str
    seed: int


class PartNotOff(Exception):
    """A payment became paid in a way that its net does not have, so the figures would be wrong."""


@click.command(epilog="Example: SEED=7 ORDERS=200 WORLDS=2 make figures")
@click.option("--seed", type=int, default=1, show_default=True, envvar="SEED", show_envvar=True, help="The first seed.")
@click.option(
    "--orders", type=click.IntRange(1, 20_000), default=200, show_default=True, envvar="ORDERS", show_envvar=True,
    help="Orders of each world.",
)  # fmt: skip
@click.option(
    "--worlds", type=click.IntRange(1, 1_000), default=2, show_default=True, envvar="WORLDS", show_envvar=True,
    help="Worlds of each net in each profile; each has the seed of the one before it plus one.",
)  # fmt: skip
@click.option("--net", "nets", type=click.Choice(list(NETS)), multiple=True, help="All by default.")
@click.option(
    "--profile", "profiles", type=click.Choice(list(PROFILES)), multiple=True, help="Profiles; all by default."
)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, help="Worlds at a time.")
@click.option(
    "--results", type=click.Path(path_type=Path, dir_okay=False),
    help="JSON-lines file of finished worlds: those of this commit in it are not lived again.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), default=ROOT / "docs",
    show_default="docs", help="Folder into which recovery.md and recovery.svg are written.",
)  # fmt: skip
def main(
    *,
    seed: int,
    orders: int,
    worlds: int,
    nets: Sequence[str],
    profiles: Sequence[str],
    jobs: int,
    results: Path | None,
    folder: Path,
) -> None:
    """Live the same worlds with more and more measures, and write docs/recovery.md. Exit code 1: all of them together
    have lost an order, or paid a false one.
    """
    args = " ".join([*(f"--net {name}" for name in nets), *(f"--profile {name}" for name in profiles)])
    run = Run(seed=seed, orders=orders, worlds=worlds, commit=commit_of(ROOT), args=args)
    tasks = [
        Task(profile, net, number)
        for profile in profiles or PROFILES
        for number in run.seeds(profile)
        for net in nets or NETS
    ]
    tasks.sort(key=lambda task: task.seed)  # so that what is ended early has something of each
    made = columns(live_all(run, tasks, jobs, results))
    (folder / "recovery.md").write_text(page(run, made))
    (folder / "recovery.svg").write_text(picture(run, made))
    whole = [column.cells["nodrop"] for column in made if "nodrop" in column.cells]
    click.echo(f"wrote {folder / 'recovery.md'} and {folder / 'recovery.svg'}")
    sys.exit(1 if any(cell.lost or cell.false for cell in whole) else 0)


def live_all(run: Run, tasks: Sequence[Task], jobs: int, results: Path | None) -> list[Lived]:
    """Live the worlds that the file of results lacks. Raises WorldFailed, PartNotOff."""
    known = {_task(lived): lived for lived in read(results) if _is_of(run, lived)}
    lived = [known[task] for task in tasks if task in known]
    left = [task for task in tasks if task not in known]
    if not left:
        return lived
    with temporary_directory() as home, cluster(home / "postgres") as server, Progress() as progress:
        for each in _live(server, run, left, jobs):
            lived.append(each)
            if results is not None:
                with results.open("ab") as file:
                    file.write(msgspec.json.encode(each) + b"\n")
            progress.update("worlds", len(lived), len(tasks), f"{sum(one.outcome.orders for one in lived)} orders")
        progress.end_bar()
    return lived


def read(results: Path | None) -> list[Lived]:
    """Return the worlds in a file of results."""
    if results is None or not results.exists():
        return []
    return [msgspec.json.decode(line, type=Lived) for line in results.read_bytes().splitlines() if line]


def checked(profile: str, commit: str, outcome: Outcome) -> Lived:
    """Return what is kept of a world. Raises PartNotOff."""
    strange = strange_ways(outcome)
    if strange:
        ways = ", ".join(strange)
        raise PartNotOff(f"world {outcome.seed}, {outcome.profile}, net {outcome.net}: payments became paid by {ways}")
    kept = msgspec.structs.replace(outcome, found=(), faults=(), stories={})
    return Lived(commit=commit, profile=profile, outcome=kept)


def _live(server: Cluster, run: Run, tasks: Sequence[Task], jobs: int) -> Iterator[Lived]:
    def live(task: Task) -> Lived:
        plan = Plan(
            seed=task.seed, orders=run.orders_of(task.profile), profile=task.profile, net=task.net, worlds=1, jobs=1
        )
        return checked(task.profile, run.commit, Worlds(server, plan).live(task.seed))

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(live, task) for task in tasks]
        try:
            for each in as_completed(waiting):
                yield each.result()
        finally:
            for each in waiting:
                each.cancel()


def _task(lived: Lived) -> Task:
    return Task(lived.profile, lived.outcome.net, lived.outcome.seed)


def _is_of(run: Run, lived: Lived) -> bool:
    return lived.commit == run.commit and lived.outcome.orders == run.orders_of(lived.profile)


if __name__ == "__main__":
    main(prog_name="python -m tests.simulation.figures")
