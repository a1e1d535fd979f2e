"""Commands of the simulation: `python -m tests.simulation run | bugs | world`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from tests.simulation import start

PROFILES = (
    *("mix", "calm", "usual", "harsh", "everything", "postgres", "redis", "network", "crashes", "clocks", "storm"),
    *("outages", "callbacks_never", "queries_never", "one_channel_silent", "merchant_hangs"),
)
"""Their names, as `tests.simulation.profiles` has them."""

_seed = click.option(
    "--seed", type=int, required=True, envvar="SEED", show_envvar=True, help="Seed of the first world."
)
_orders = click.option(
    "--orders",
    type=click.IntRange(1, 20_000),
    default=500,
    show_default=True,
    envvar="ORDERS",
    show_envvar=True,
    help="Orders of each world.",
)


def _known(_: click.Context, __: click.Parameter, name: str) -> str:
    """Check the name of a profile, which the product must not be imported for."""
    if name not in PROFILES:
        raise click.BadParameter(f"one of: {', '.join(PROFILES)}")
    return name


_profile = click.option(
    "--profile",
    callback=_known,
    default="mix",
    show_default=True,
    envvar="PROFILE",
    show_envvar=True,
    help="Profile of faults; mix: each world has one that its seed chooses.",
)


@click.group()
def main() -> None:
    """Live worlds: the real service among simulated channels, merchant, shoppers and faults, in virtual time."""


@main.command(epilog="Example: SEED=7 ORDERS=500 WORLDS=4 make simulate")
@_seed
@_orders
@_profile
@click.option(
    "--worlds",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    envvar="WORLDS",
    show_envvar=True,
    help="Number of worlds; each has the seed of the one before it plus one.",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, help="Worlds at a time.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON-lines file of finished worlds: those in it are not lived again.",
)
@click.option("--limit-s", type=click.FloatRange(1), help="Seconds after which a world that does not end has failed.")
@click.option("--shrink/--no-shrink", default=True, show_default=True, help="Look for the few faults of a violation.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on standard output.")
def run(*, limit_s: float | None, results: Path | None, shrink: bool, as_json: bool, **plan: Any) -> None:
    """Live many worlds, each in a process with a database of its own, and judge them. Exit code 1: a violation."""
    from tests.simulation import runner

    worlds = runner.Plan(**plan, limit_s=limit_s or runner.WORLD_LIMIT_S)
    try:
        sys.exit(runner.run(worlds, results=results, shrinks=shrink, as_json=as_json))
    except runner.WorldFailed as error:
        raise click.ClickException(str(error)) from None


@main.command()
@_seed
@click.option("--orders", type=click.IntRange(1, 20_000), default=300, show_default=True, help="Orders of each world.")
@click.option("--worlds", type=click.IntRange(1, 1_000), default=4, show_default=True, help="Worlds for each bug.")
@click.option("--bug", "names", multiple=True, help="Name of a bug; by default all. May be repeated.")
def bugs(*, seed: int, orders: int, worlds: int, names: tuple[str, ...]) -> None:
    """Put known bugs into copies of the product, and see which worlds find them. Exit code 1: one was not found, or a
    world with it did not come to its end.
    """
    from tests.simulation.bugs import BUGS, hunt, lines

    known = {bug.name: bug for bug in BUGS}
    if unknown := set(names) - set(known):
        raise click.BadParameter(f"no such bug: {', '.join(sorted(unknown))}", param_hint="--bug")
    hunts = []
    for name in names or known:
        hunts.append(hunt(known[name], seed=seed, worlds=worlds, orders=orders))
        click.echo(lines(hunts)[-1], err=True)
    click.echo("\n".join(lines(hunts)))
    sys.exit(0 if all(each.is_found for each in hunts) else 1)


@main.command()
@_seed
@_orders
@_profile
@click.option("--database-url", required=True, help="URL of an empty database of worlds.")
@click.option(
    "--only",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with names of faults, one in a line: all others are left out.",
)
@click.option("--events", type=click.Path(path_type=Path, dir_okay=False), help="File to which all events are written.")
@click.option(
    "--settled-h",
    type=click.FloatRange(min=0.1),
    help="Hours after the last fault at which the world is judged; by default two nights pass.",
)
@click.option("--net", default="nodrop", show_default=True, help="Measures that are there: `tests.simulation.nets`.")
def world(
    *,
    seed: int,
    orders: int,
    profile: str,
    database_url: str,
    only: Path | None,
    events: Path | None,
    settled_h: float | None,
    net: str,
) -> None:
    """Live one world in this process, and print its outcome as JSON."""
    start.begin(seed)
    import msgspec

    from tests.simulation import life, nets, profiles

    names = None if only is None else only.read_text().splitlines()
    settled_s = life.SETTLED_S if settled_h is None else settled_h * 3600.0
    lived = life.Life(seed, orders, profiles.profile_of(profile, seed), names, settled_s=settled_s, net=nets.NETS[net])
    outcome = start.run(lambda: lived.live(database_url, events))
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
    sys.stdout.flush()
    os._exit(0)  # what dead processes of the world have left must not run


if __name__ == "__main__":
    main(prog_name="python -m tests.simulation")
