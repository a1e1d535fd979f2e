"""The command `nodrop up`: the whole service on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import click

from cli.progress import Progress
from core.operators import Role
from demo.embedded import EmbeddedError, free_port, is_free, temporary_directory
from demo.run import CURRENCIES
from demo.service import Service
from demo.shop.handlers import STATIC
from demo.shop.pages import NAME
from demo.stack import Stack
from flows.operators import add_operator
from runtime.passwords import Passwords

PORTS = {"api": 8800, "channel": 8801, "merchant": 8802}
SHOP_PORT = 8803
OPERATOR = "demo"
EXAMPLES_URL = "http://127.0.0.1:9300"
"""The address of the shops in `examples/`, as their READMEs have it."""


@click.command(
    epilog="Example: nodrop up --unit 60",
    help=(
        "Run Postgres, Redis, the API with its console, a worker, five simulated channels and an example shop on this "
        "machine, and print their addresses: the shop's first, to click through. All data is deleted at the end."
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
    "--lost",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of callbacks that are lost.",
)
@click.option("--any-ports", is_flag=True, help="Use free ports instead of 8800 to 8803.")
def up(*, unit_s: float, lost: float, any_ports: bool) -> None:
    # Another `nodrop up` there would answer for the processes of this one.
    taken = [str(port) for port in (*PORTS.values(), SHOP_PORT) if not is_free(port, is_reused=True)]
    if taken and not any_ports:
        raise click.ClickException(f"in use: {', '.join(taken)}; end what listens there, or take others by --any-ports")
    try:
        asyncio.run(_run(unit_s, lost, any_ports=any_ports))
    except (EmbeddedError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None


async def _run(unit_s: float, lost: float, *, any_ports: bool) -> None:
    stop = stop_at_signals()
    shop_url = f"http://127.0.0.1:{free_port() if any_ports else SHOP_PORT}"
    ports = {} if any_ports else PORTS
    with ExitStack() as stack_of_files, Progress() as progress:
        directory: Path = stack_of_files.enter_context(temporary_directory())
        progress.write("Starting all processes; Ctrl-C stops them")
        async with shop_stack(directory, shop_url, unit_s=unit_s, ports=ports) as stack, running_shop(stack, shop_url):
            await stack.control("PUT", "channel", "/control/faults", {"lost": lost})
            password = await add_demo_operator(stack)
            click.echo(_text(stack, shop_url, password, unit_s, lost))
            await stop.wait()
            progress.write("Stopping all processes")


def stop_at_signals() -> asyncio.Event:
    """An event that Ctrl-C or SIGTERM sets from now on, in place of ending this process."""
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


def shop_stack(directory: Path, shop_url: str, **options: Any) -> Stack:
    """Return a stack, not started, with an account at every channel, whose order pages look like the shop's."""
    env = {
        "SHOP_NAME": NAME,
        "SHOP_LOGO": str(STATIC / "shop.svg"),
        "SHOP_COLOR": "#2f6b3c",
        "SHOP_CONTACT": "mailto:hello@leaf-and-cup.example",
        "PAGE_ORIGINS": f"{shop_url},{EXAMPLES_URL}",
        "OPS": "1",
    }
    return Stack(directory, accounts={name: name for name in CURRENCIES}, env=env, **options)


async def add_demo_operator(stack: Stack) -> str:
    """Add the operator `demo` to the console of a running stack; return the password, good for one sign-in."""
    passwords, db = Passwords(), await stack.open_database()
    try:
        return await add_operator(db, passwords, OPERATOR, Role.ADMIN)
    finally:
        passwords.close()
        await db.close()


@asynccontextmanager
async def running_shop(stack: Stack, url: str) -> AsyncIterator[None]:
    """Run the example shop as a process beside the stack."""
    env = {
        "PATH": os.environ.get("PATH", ""),
        "API_URL": stack.api_url,
        "API_KEY": stack.api_key,
        "CHANNEL_URL": stack.channel_url,
        "NOTIFY_SECRETS": stack.notify_secret,
        "SHOP_URL": url,
    }
    shop = Service("shop", "demo.shop", env=env, log=stack.directory / "shop.log", health_url=f"{url}/healthz")
    try:
        await shop.start()
        yield
    finally:
        await shop.stop(5.0)


def addresses(stack: Stack, password: str) -> str:
    """The addresses of a running stack with a console, for a person at this machine."""
    return f"""\
  console              {stack.api_url}/ops    (sign in as {OPERATOR} with {password} once, then choose your own)
  API                  {stack.api_url}        (documented at /docs)
  API key              {stack.api_key}
  notification secret  {stack.notify_secret}
  merchant's effects   {stack.merchant_url}/control/effects
  channel's ledger     {stack.channel_url}/control/ledger
  channel's faults     {stack.channel_url}/control/faults        (PUT changes them)
  logs                 {stack.directory}"""


def _text(stack: Stack, shop_url: str, password: str, unit_s: float, lost: float) -> str:
    return f"""
  shop                 {shop_url}        (begin here: choose, pay, lose the callback, come back)
{addresses(stack, password)}

A minute lasts {unit_s:g} s; {lost:.0%} of the callbacks are lost, and a switch in the shop changes that.
The accounts are {", ".join(CURRENCIES)}, each paid on the page of its simulated channel.
Place an order without the shop:

  curl -s {stack.api_url}/v1/orders -H 'Authorization: Bearer {stack.api_key}' -H 'Content-Type: application/json' \\
    -d '{{"order_no": "o-1", "amount": 100, "currency": "CNY", "subject": "Tea", "account": "sandbox",
         "notify_url": "{stack.notify_url}"}}'
"""
