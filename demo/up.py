"""The command `nodrop up`: the whole service on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import click

from cli.progress import Progress
from demo.embedded import EmbeddedError, temporary_directory
from demo.run import CURRENCIES
from demo.stack import Stack
from simulator.shoppers.shop import OrderRequest, Refused

PORTS = {"api": 8800, "channel": 8801, "merchant": 8802}
ORDER_EXPIRES_S = 900


@click.command(
    epilog="Example: nodrop up --unit 60",
    help=(
        "Run Postgres, Redis, the API, a worker, five simulated channels and a merchant on this machine, and print "
        "their addresses. All data is deleted at the end."
    ),
)
@click.option(
    "--unit",
    "unit_s",
    type=click.FloatRange(0.05, 60),
    default=5.0,
    show_default=True,
    help="Seconds of a minute.",
)
@click.option(
    "--lost", type=click.FloatRange(0, 1), default=0.4, show_default=True, help="Share of callbacks that are lost."
)
@click.option("--any-ports", is_flag=True, help="Use free ports instead of 8800 to 8802.")
def up(*, unit_s: float, lost: float, any_ports: bool) -> None:
    try:
        asyncio.run(_run(unit_s, lost, {} if any_ports else PORTS))
    except EmbeddedError as error:
        raise click.ClickException(str(error)) from None
    except RuntimeError as error:
        raise click.ClickException(f"{error}\nIf a port is taken, --any-ports uses free ones.") from None


async def _run(unit_s: float, lost: float, ports: dict[str, int]) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    with ExitStack() as stack_of_files, Progress() as progress:
        directory: Path = stack_of_files.enter_context(temporary_directory())
        progress.write("Starting all processes; Ctrl-C stops them")
        accounts = {name: name for name in CURRENCIES}
        async with Stack(directory, unit_s=unit_s, ports=ports, accounts=accounts) as stack:
            await stack.control("PUT", "channel", "/control/faults", {"lost": lost})
            page = await _first_order(stack)
            click.echo(_addresses(stack, page, unit_s, lost))
            await stop.wait()
            progress.write("Stopping all processes")


async def _first_order(stack: Stack) -> str:
    """Place an order and return the lines with its addresses."""
    async with stack.shop() as shop:
        placed = await shop.place(
            OrderRequest(
                order_no=f"first-{token_hex(3)}",
                amount=8888,
                currency="CNY",
                subject="A cup of tea",
                account="sandbox",
                notify_url=stack.notify_url,
                expires_in_s=ORDER_EXPIRES_S,
            )
        )
    if isinstance(placed, Refused):
        raise click.ClickException(f"the first order was refused: {placed.code}")
    pay_url = next(payment.pay_url for payment in placed.payments if payment.pay_url)
    return f"  order page           {placed.order_page}\n  pay page             {pay_url}"


def _addresses(stack: Stack, page: str, unit_s: float, lost: float) -> str:
    return f"""
{page}
  API                  {stack.api_url}        (documented at /openapi.json)
  API key              {stack.api_key}
  merchant's effects   {stack.merchant_url}/control/effects
  channel's ledger     {stack.channel_url}/control/ledger
  channel's faults     {stack.channel_url}/control/faults        (PUT changes them)
  logs                 {stack.directory}

A minute lasts {unit_s:g} s; {lost:.0%} of the callbacks are lost. The accounts are {", ".join(CURRENCIES)}, each
paid on the page of its simulated channel. Place another order:

  curl -s {stack.api_url}/v1/orders -H 'Authorization: Bearer {stack.api_key}' -H 'Content-Type: application/json' \\
    -d '{{"order_no": "o-1", "amount": 100, "currency": "CNY", "subject": "Tea", "account": "sandbox",
         "notify_url": "{stack.notify_url}"}}'
"""
