"""The command `nodrop demo`: its options, its report and its exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from demo.embedded import EmbeddedError
from demo.report import Report, lines
from demo.run import HARSH, run_demo
from demo.stack import Stack
from demo.up import add_demo_operator, addresses, stop_at_signals

SHARES = {
    "lost": "callbacks that are lost",
    "late": "callbacks that arrive seconds late",
    "doubled": "callbacks that are sent twice at once",
    "forged": "unpaid payments with forged callbacks that claim paid",
    "wrong_amount": "callbacks with a valid signature and a wrong amount",
    "answered_5xx": "calls that get 500 to 504 from the channel",
    "cut": "responses cut off in the middle",
    "slow": "responses that take a second",
    "settles_after_close": "closed payments whose money arrives later",
    "refunded_in_console": "paid payments that the merchant refunds in the channel's console before nodrop sees them",
}


def _share_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, description in reversed(SHARES.items()):
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            type=click.FloatRange(0, 1),
            default=getattr(HARSH, name),
            show_default=True,
            envvar=name.upper(),
            show_envvar=True,
            help=f"Share of {description}.",
        )(command)
    return command


@click.command(
    epilog="Example: SEED=7 LOST=0.8 make demo",
    help=(
        "Run the whole service on this machine against five channels that lose 40 % of their callbacks. During the "
        "run the worker is killed, Redis is flushed and Postgres is restarted; at the end the orders are reconciled "
        "with the channels' statements and checked from outside. A minute lasts a quarter of a second. Exit code 1 if "
        "an order was lost, an invariant is broken or a row is still open after a minute of quiet."
    ),
)
@click.option(
    "--orders",
    type=click.IntRange(1, 5000),
    default=500,
    show_default=True,
    envvar="ORDERS",
    show_envvar=True,
    help="Number of orders.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    envvar="SEED",
    show_envvar=True,
    help="Seed of the faults; the same seed repeats them.",
)
@click.option(
    "--chaos/--no-chaos",
    default=True,
    show_default=True,
    help="Kill the worker, flush Redis and restart Postgres during the run.",
)
@click.option(
    "--reconcile-at",
    type=click.Choice(["end", "off"]),
    default="end",
    show_default=True,
    envvar="RECONCILE_AT",
    show_envvar=True,
    help="When the orders are reconciled with the channels' statements; off: never.",
)
@click.option(
    "--keep",
    is_flag=True,
    envvar="KEEP",
    show_envvar=True,
    help="Keep all processes running after the report, with the console, until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@_share_options
def demo(*, orders: int, seed: int, chaos: bool, reconcile_at: str, keep: bool, as_json: bool, **shares: float) -> None:
    profile = msgspec.structs.replace(HARSH, **shares)

    async def show_and_wait(stack: Stack, report: Report) -> None:
        stop = stop_at_signals()
        _show(report, as_json=as_json)
        click.echo(_KEPT.format(addresses=addresses(stack, await add_demo_operator(stack))), err=as_json)
        await stop.wait()

    try:
        report = asyncio.run(
            run_demo(
                orders,
                seed,
                profile,
                chaos=chaos,
                reconciles=reconcile_at != "off",
                keep=show_and_wait if keep else None,
            )
        )
    except (EmbeddedError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    if not keep:
        _show(report, as_json=as_json)
    sys.exit(0 if report.is_good else 1)


_KEPT = """
All processes keep running, and the channels keep their faults; Ctrl-C ends them and deletes all data.

{addresses}
"""


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        click.echo("\n".join(lines(report)))
