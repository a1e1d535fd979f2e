"""Many worlds on all cores, each in a process with a database of its own: progress, results, figures, violations.

A violation is reported with its seed, the commit, the order's story, and the few faults that still bring it about.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

import click
import msgspec

from cli.progress import Progress
from demo.embedded import temporary_directory
from tests.servers import ROOT
from tests.simulation.outcome import Outcome
from tests.simulation.postgres import Cluster, cluster
from tests.simulation.shrinking import shrink

WORLD_LIMIT_S = 1800.0
SHRINK_TRIES_MAX = 60
SHOWN_MAX = 20
CONFIDENCE = 3.0
"""None among n: a share under 3/n, at 95 %."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Worlds with the seeds `seed`, `seed` + 1 …, `jobs` of them at a time, with the measures of `net`. One that takes
    longer than `limit_s` has failed.
    """

    seed: int
    orders: int
    profile: str
    net: str = "nodrop"
    worlds: int
    jobs: int
    limit_s: float = WORLD_LIMIT_S


class WorldFailed(Exception):
    """A world did not come to its end: what its process wrote."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of worlds of one profile. `p50_s` is the middle one of theirs, `p99_s` the greatest of theirs."""

    worlds: int
    orders: int
    paid: int
    lost: int
    false: int
    violations: int
    by: dict[str, int]
    p50_s: float
    p99_s: float
    max_s: float
    calls_per_order: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of all worlds. `lost_below`: the bound of the share lost at 95 %, where none was lost."""

    commit: str
    worlds: int
    orders: int
    paid: int
    lost: int
    false: int
    violations: int
    lost_below: float | None
    orders_per_cpu_s: float
    profiles: dict[str, Share]


def run(plan: Plan, *, results: Path | None, shrinks: bool, as_json: bool) -> int:
    """Live the worlds that the file of results lacks, and report; return the exit code."""
    known = {outcome.seed: outcome for outcome in _read(results)}
    seeds = [seed for seed in range(plan.seed, plan.seed + plan.worlds) if seed not in known]
    outcomes = [known[seed] for seed in range(plan.seed, plan.seed + plan.worlds) if seed in known]
    with temporary_directory() as home, cluster(home / "postgres") as server, Progress() as progress:
        worlds = Worlds(server, plan)
        for outcome in worlds.live_all(seeds):
            outcomes.append(outcome)
            if results is not None:
                with results.open("ab") as file:
                    file.write(msgspec.json.encode(outcome) + b"\n")
            done = sum(each.orders for each in outcomes)
            broken = sum(bool(each.found) for each in outcomes)
            progress.update("worlds", len(outcomes), plan.worlds, f"{done} orders, {broken} worlds with violations")
        progress.end_bar()
        for outcome in outcomes:
            if outcome.found:
                click.echo("\n".join(_violation(outcome, worlds if shrinks else None)), err=True)
    summary = summarize(outcomes, commit_of(ROOT))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(summary)).decode())
    else:
        click.echo("\n".join(lines(summary)))
    return 1 if summary.violations else 0


_numbers = count(1)


class Worlds:
    """Processes of worlds, each with a new database."""

    def __init__(self, server: Cluster, plan: Plan) -> None:
        self._server = server
        self._plan = plan

    def live_all(self, seeds: Sequence[int]) -> Iterator[Outcome]:
        """Yield the outcome of each world as it ends. Raises WorldFailed."""
        with ThreadPoolExecutor(self._plan.jobs) as pool:
            waiting: set[Future[Outcome]] = set()
            left = iter(seeds)
            while True:
                while len(waiting) < self._plan.jobs and (seed := next(left, None)) is not None:
                    waiting.add(pool.submit(self.live, seed))
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for each in done:
                    yield each.result()

    def live(self, seed: int, only: Sequence[str] | None = None) -> Outcome:
        """Live one world in a process. Raises WorldFailed."""
        arguments = [
            *("--seed", str(seed), "--orders", str(self._plan.orders), "--profile", self._plan.profile),
            *("--net", self._plan.net),
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".faults") as faults:
            if only is not None:
                faults.write("\n".join(only))
                faults.flush()
                arguments += ["--only", faults.name]
            line = in_process(self._server, f"world {seed}", "tests.simulation", arguments, self._plan.limit_s)
        return msgspec.json.decode(line, type=Outcome)


def in_process(server: Cluster, title: str, module: str, arguments: Sequence[str], limit_s: float) -> bytes:
    """Run `python -m MODULE world …` with a new database; return the last line that it printed. Raises WorldFailed."""
    database = f"world_{next(_numbers)}"
    command = [sys.executable, "-m", module, "world", *arguments, "--database-url", server.new_database(database)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise WorldFailed(f"{title} did not end within {limit_s:g} s") from None
    server.drop_database(database)
    if ended.returncode != 0:
        raise WorldFailed(f"{title} ended with {ended.returncode}:\n{ended.stderr.decode()[-4000:]}")
    return ended.stdout.splitlines()[-1]


# -- reports -----------------------------------------------------------------------------------------------------------


def summarize(outcomes: Sequence[Outcome], commit: str) -> Summary:
    """Return the sums of all worlds."""
    by_profile: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_profile[outcome.profile].append(outcome)
    whole = _share(outcomes)
    return Summary(
        commit=commit,
        worlds=whole.worlds,
        orders=whole.orders,
        paid=whole.paid,
        lost=whole.lost,
        false=whole.false,
        violations=whole.violations,
        lost_below=CONFIDENCE / whole.orders if whole.orders and not whole.lost else None,
        orders_per_cpu_s=round(whole.orders / max(0.01, sum(each.cpu_s for each in outcomes)), 1),
        profiles={name: _share(each) for name, each in sorted(by_profile.items())},
    )


def lines(summary: Summary) -> list[str]:
    """Return the summary for a person."""
    titles = ("worlds", 7), ("orders", 9), ("lost", 6), ("false", 7), ("p50 s", 9), ("p99 s", 10), ("max s", 10)
    out = [
        "",
        f"{summary.worlds} worlds, {summary.orders} orders placed, {summary.paid} payments, commit {summary.commit}",
        "",
        f"{'profile':<20}" + "".join(f"{title:>{width}}" for title, width in (*titles, ("calls", 7))),
    ]
    out += [
        f"{name:<20}{each.worlds:>7}{each.orders:>9}{each.lost:>6}{each.false:>7}{each.p50_s:>9.1f}{each.p99_s:>10.1f}"
        f"{each.max_s:>10.1f}{each.calls_per_order:>7.1f}"
        for name, each in summary.profiles.items()
    ]
    bound = "" if summary.lost_below is None else f"; the share lost is below {summary.lost_below:.1e} at 95 %"
    return [*out, "", f"lost {summary.lost}, false {summary.false}, violations {summary.violations}{bound}"]


def commit_of(directory: Path) -> str:
    """Return the commit of a checkout, with a plus if it has changes."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],  # noqa: S607 - the one in PATH
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def _share(outcomes: Sequence[Outcome]) -> Share:
    by: Counter[str] = Counter()
    for outcome in outcomes:
        by.update(outcome.figures.by)
    orders = sum(each.figures.orders for each in outcomes)
    times = [each.figures.times for each in outcomes]
    return Share(
        worlds=len(outcomes),
        orders=orders,
        paid=sum(each.figures.paid for each in outcomes),
        lost=sum(each.figures.lost for each in outcomes),
        false=sum(each.figures.false for each in outcomes),
        violations=sum(len(each.found) for each in outcomes),
        by=dict(sorted(by.items())),
        p50_s=sorted(each.p50_s for each in times)[len(times) // 2],
        p99_s=max(each.p99_s for each in times),
        max_s=max(each.max_s for each in times),
        calls_per_order=round(sum(sum(each.figures.calls.values()) for each in outcomes) / max(1, orders), 2),
    )


def _violation(outcome: Outcome, worlds: Worlds | None) -> Iterator[str]:
    """Yield the lines of a report about a world with violations."""
    yield f"\nVIOLATION in world {outcome.seed}, profile {outcome.profile}, {outcome.orders} orders:"
    yield f"  commit {commit_of(ROOT)}"
    for each in outcome.found[:SHOWN_MAX]:
        yield f"  {each.invariant}: {each.order_no} {each.sentence}"
    for order_no, story in outcome.stories.items():
        yield f"  the story of {order_no}:"
        yield from (f"    {line}" for line in story)
    yield f"  faults: {len(outcome.faults)}"
    if worlds is not None:
        few = shrink([fault.name for fault in outcome.faults], _still_broken(worlds, outcome), SHRINK_TRIES_MAX)
        yield f"  of these {len(few)} still bring it about:"
        yield from (f"    {name}" for name in few)


def _still_broken(worlds: Worlds, outcome: Outcome) -> Callable[[Sequence[str]], bool]:
    """Return the question whether a world with some of the faults has one of the same violations."""
    wanted = {(each.invariant, each.order_no) for each in outcome.found}

    def is_broken(only: Sequence[str]) -> bool:
        return any((each.invariant, each.order_no) in wanted for each in worlds.live(outcome.seed, only).found)

    return is_broken


def _read(results: Path | None) -> list[Outcome]:
    if results is None or not results.exists():
        return []
    return [msgspec.json.decode(line, type=Outcome) for line in results.read_bytes().splitlines() if line]
