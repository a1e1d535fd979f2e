"""Commands of the simulator: `python -m simulator channel | merchant | shoppers`, each a process of its own."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import click
import msgspec
import structlog
import uvloop

from simulator.kernel.ledger import PAYMENTS_MAX
from simulator.kit.serve import Tls, on_signal
from simulator.servers import CHANNELS, serve_channels, serve_merchant
from simulator.shoppers.plan import Kind, Plan
from simulator.shoppers.shop import Shop
from simulator.shoppers.visits import Visit, run

PORT_MAX = 65_535

_log = structlog.get_logger("simulator")

_host = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
_port = click.option("--port", type=click.IntRange(0, 65_535), required=True, help="Port; 0 takes a free one.")
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random decisions.")


@click.group()
def main() -> None:
    """Simulate payment channels, a merchant and shoppers, with faults."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


@main.command()
@_host
@_port
@_seed
@click.option(
    "--speed",
    type=click.FloatRange(min=0.001),
    default=1.0,
    show_default=True,
    help="Divides the gaps between resends of a callback.",
)
@click.option("--public-url", help="URL of the pay pages for browsers; by default the address it listens on.")
@click.option(
    "--payments-max",
    type=click.IntRange(min=1),
    default=PAYMENTS_MAX,
    show_default=True,
    help="The most payments that are kept; more are refused.",
)
@click.option(
    "--channel-port",
    "ports",
    multiple=True,
    callback=lambda *given: _ports(given[-1]),
    help="CHANNEL=PORT: port of a channel other than the sandbox; by default a free one. May be repeated.",
)
@click.option("--tls", nargs=2, type=click.Path(exists=True), help="Certificate and key in PEM; serves HTTPS.")
@click.option("--callbacks-anywhere", is_flag=True, help="Allow callbacks to other machines.")
def channel(*, tls: tuple[str, str] | None, **options: Any) -> None:
    """Serve the channels, their pay pages and a control API."""

    async def serve() -> None:
        async with serve_channels(**options, tls=None if tls is None else Tls(*tls)) as (url, simulation):
            await _until_signalled("channel", url, **simulation.urls)

    _run(serve())


def _ports(pairs: tuple[str, ...]) -> dict[str, int]:
    """Parse `alipay=9001` into a mapping."""
    names = {channel.name for channel in CHANNELS[1:]}
    ports = {}
    for pair in pairs:
        name, _, port = pair.partition("=")
        if name not in names or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
            raise click.BadParameter(f"CHANNEL=PORT; channels: {', '.join(sorted(names))}")
        ports[name] = int(port)
    return ports


@main.command()
@_host
@_port
@_seed
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    envvar="MERCHANT_SECRETS",
    help="Secret, whsec_…; MERCHANT_SECRETS holds several, separated by spaces, and keeps them off the command line.",
)
def merchant(**options: Any) -> None:
    """Serve the merchant's order service and its control API."""

    async def serve() -> None:
        async with serve_merchant(**options) as (url, _):
            await _until_signalled("merchant", url)

    try:
        _run(serve())
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _run(serving: Coroutine[Any, Any, None]) -> None:
    """Run until a signal. A port in use is one sentence."""
    try:
        uvloop.run(serving)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        raise click.ClickException(f"cannot listen on that host and port: {os.strerror(error.errno)}") from None


async def _until_signalled(process: str, url: str, **others: str) -> None:
    signalled = on_signal()
    _log.info(f"{process}_started", url=url, **others)
    await signalled.wait()
    _log.info(f"{process}_stopping", url=url)


def _weights(_: click.Context, __: click.Parameter, text: str) -> dict[Kind, float]:
    """Parse `pays_at_once=5,walks_away=1` into a mapping."""
    try:
        pairs = (part.split("=", 1) for part in text.split(","))
        weights = {Kind(name.strip()): float(weight) for name, weight in pairs}
    except ValueError as error:
        raise click.BadParameter(f"kind=weight, …; kinds: {', '.join(Kind)}") from error
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise click.BadParameter("weights must not be negative, and one must be above 0")
    return weights


@main.command()
@click.option("--api", "base_url", required=True, help="URL of nodrop's API.")
@click.option(
    "--api-key",
    envvar="NODROP_API_KEY",
    required=True,
    help="API key; NODROP_API_KEY keeps it out of the command line.",
)
@click.option(
    "--shoppers", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Number of shoppers."
)
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=10, show_default=True, help="Shoppers at a time.")
@click.option("--account", "accounts", multiple=True, required=True, help="Account to pay at; may be repeated.")
@click.option("--notify-url", required=True, help="URL of the merchant's notifications.")
@click.option("--return-url", help="URL to which the buyer returns.")
@click.option(
    "--weights",
    callback=_weights,
    default=",".join(f"{kind}=1" for kind in Kind),
    show_default=True,
    help="Weights of the kinds of shoppers, kind=weight, separated by commas.",
)
@click.option(
    "--expires-in-s", type=click.IntRange(1), default=900, show_default=True, help="Seconds until an order expires."
)
@click.option(
    "--watch-s",
    type=float,
    default=5.0,
    show_default=True,
    help="Seconds for which a returning buyer watches the page.",
)
@click.option("--prefix", "order_prefix", default="shop", show_default=True, help="Prefix of order numbers.")
@_seed
def shoppers(base_url: str, api_key: str, concurrency: int, **plan: Any) -> None:
    """Place orders, pay some of them, and look at their pages. Prints a JSON line for each visit, then a summary."""
    visits = uvloop.run(_send_through(base_url, api_key, Plan(**plan), concurrency))
    kinds = Counter(visit.kind for visit in visits)
    summary = {
        "visits": len(visits),
        "kinds": dict(sorted(kinds.items())),
        "placed": sum(visit.placed for visit in visits),
        "paid": sum(bool(visit.paid) for visit in visits),
        "wrong_status_after_paying": [visit.order_no for visit in visits if visit.wrong_views],
    }
    click.echo(msgspec.json.encode(summary))


async def _send_through(base_url: str, api_key: str, plan: Plan, concurrency: int) -> tuple[Visit, ...]:
    async with Shop(base_url, api_key) as shop:
        return await run(
            shop, plan, concurrency=concurrency, on_progress=lambda visit: click.echo(msgspec.json.encode(visit))
        )


if __name__ == "__main__":
    main(prog_name="python -m simulator")
