"""`make rehearse`: deploy this checkout as a platform would, sell one order, end it, and say what did not work.

An empty virtual environment gets requirements.txt and nothing else, a copy of what git would commit goes beside it, and
honcho, from the development environment, runs the Procfile's lines there with a platform's variables alone. Postgres,
Redis, the channel and the merchant are this program's, on loopback, and end with it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_hex
from signal import SIGTERM

import httpx

from demo.embedded import Child, EmbeddedError, EmbeddedPostgres, EmbeddedRedis, free_port, temporary_directory
from demo.embedded.child import poll_until
from simulator.kernel.base import Account
from simulator.kernel.ledger import Key
from simulator.kernel.simulation import Simulation
from simulator.merchant.notifications import Merchant
from simulator.servers import serve_channels, serve_merchant
from simulator.shoppers.shop import OrderRequest, Refused, Shop
from tests.platform.deploy import (
    COMMAND_S,
    LOCK,
    Failed,
    Platform,
    copy_checkout,
    development_only,
    exit_codes,
    imported,
    make_environment,
)

ACCOUNT, MERCHANT_ID, ORDER_NO = "main", "m-main", "rehearsal-1"
READY_S = 30.0
SELL_S = 30.0
END_S = 20.0
"""Platforms give 10 to 30 s after SIGTERM; honcho kills after 5."""

OUTPUT_LINES_MAX = 30
_SOME_OF_EACH = {"storage.postgres.migrate", "api.http.asgi", "worker.lane"}

_began = time.monotonic()


def say(text: str) -> None:
    print(f"rehearse: {time.monotonic() - _began:5.1f} s  {text}", flush=True)  # noqa: T201 -- for a person


def main() -> None:
    try:
        with temporary_directory() as directory:
            _deploy(directory)
    except (Failed, EmbeddedError) as error:
        sys.exit(f"rehearse: FAILED: {error}")
    say("done: a platform can run this checkout")


def _deploy(directory: Path) -> None:
    commands = make_environment(directory)
    say(f"an empty environment has what {LOCK} names, and nothing else")
    checkout = copy_checkout(directory)
    say("what git would commit is copied")
    with EmbeddedPostgres(directory / "postgres") as postgres, EmbeddedRedis(directory / "redis") as redis:
        postgres.create_database("nodrop")
        variables = _variables(postgres.url("nodrop"), redis.url)
        platform = Platform(commands, checkout, directory / "honcho.log", variables)
        try:
            asyncio.run(_play(platform))
        except Failed as failed:
            raise Failed(f"{failed}\nLast output of the processes:\n{_last_output(platform)}") from None


def _last_output(platform: Platform) -> str:
    lines = [line for line in platform.output().splitlines() if "import time:" not in line]
    return "\n".join(lines[-OUTPUT_LINES_MAX:]) or "nothing"


def _variables(database_url: str, redis_url: str) -> dict[str, str]:
    """The settings of a platform, and those of its operator except the keys."""
    port = free_port()
    return {
        "DATABASE_URL": database_url.replace("postgresql://", "postgres://", 1),
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "NOTIFY_ALLOW_NETS": "127.0.0.0/8",  # for the merchant is on loopback here
    }


async def _play(platform: Platform) -> None:
    """From the keys to the end."""
    platform.env["NODROP_MASTER_KEYS"] = platform.command("keys", "master")
    platform.env["NOTIFY_SECRETS"] = platform.command("keys", "notify")
    _release(platform)
    async with (
        serve_channels() as (channel_url, simulation),
        serve_merchant(secrets=(platform.env["NOTIFY_SECRETS"],)) as (merchant_url, merchant),
    ):
        _open_account(platform, channel_url, simulation)
        api_key = platform.command("keys", "create", "rehearsal")
        processes = platform.start("web", "worker")
        try:
            await _sell(platform, processes, api_key, simulation, merchant, f"{merchant_url}/notifications")
        except httpx.TransportError as error:
            raise Failed(f"web stopped answering ({type(error).__name__})") from None
        finally:
            await asyncio.to_thread(processes.end, SIGTERM, END_S)
    _judge(platform)


def _release(platform: Platform) -> None:
    """The release line, which a platform runs to its end before anything else."""
    release = platform.start("release")
    poll_until(lambda: release.exit_code is not None, COMMAND_S)
    code = release.exit_code
    if code is None:
        release.end(SIGTERM)
        raise Failed(f"the release line did not end within {COMMAND_S:g} s")
    if code != 0:
        raise Failed(f"the release line ended with {code}")
    say("release has migrated the database")


def _open_account(platform: Platform, channel_url: str, simulation: Simulation) -> None:
    secret = token_hex(24)
    simulation.accounts[MERCHANT_ID] = Account(name=ACCOUNT, merchant_id=MERCHANT_ID, keys={"k1": secret})
    toml = f"""channel = "sandbox"
base_url = "{channel_url}"
[credentials]
merchant_id = "{MERCHANT_ID}"
keys = {{ k1 = "{secret}" }}
"""
    platform.command("accounts", "add", ACCOUNT, "--from", "-", given=toml)


async def _sell(
    platform: Platform, processes: Child, api_key: str, simulation: Simulation, merchant: Merchant, notify_url: str
) -> None:
    """Until the order is paid, its page is served and the merchant knows."""
    url = platform.env["PUBLIC_URL"]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5.0) as client:

        async def is_ready() -> bool:
            if processes.exit_code is not None:
                raise Failed("web or worker ended before the service was ready")
            try:
                return (await client.get("/readyz")).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        async def is_paid() -> bool:
            answer = await client.get(f"/v1/orders/{ORDER_NO}", headers={"Authorization": f"Bearer {api_key}"})
            return bool(answer.json().get("status") == "paid")

        async def is_known() -> bool:
            return ORDER_NO in merchant.effects

        await _until(is_ready, READY_S, "/readyz did not say yes")
        say("web and worker run, and /readyz says yes")
        page = await _pay(url, api_key, simulation, notify_url)
        if (await client.get(page)).status_code != httpx.codes.OK:
            raise Failed("the order's page is not served")
        await _until(is_paid, SELL_S, "the order was paid at the channel and did not become paid")
        await _until(is_known, SELL_S, "the order is paid and the merchant was not notified")
    say("an order was placed, paid at the channel and became paid, and the merchant was notified")


async def _pay(url: str, api_key: str, simulation: Simulation, notify_url: str) -> str:
    """Place the order and pay it; the address of its page."""
    request = OrderRequest(
        order_no=ORDER_NO, amount=100, currency="CNY", subject="Tea", account=ACCOUNT, notify_url=notify_url
    )
    async with Shop(url, api_key) as shop:
        placed = await shop.place(request)
    if isinstance(placed, Refused):
        raise Failed(f"the order was refused: {placed.http_status} {placed.code}")
    simulation.pay(Key(MERCHANT_ID, placed.payments[0].out_trade_no))
    return placed.order_page


def _judge(platform: Platform) -> None:
    """Both processes ended by themselves, and what they imported is for production."""
    codes = exit_codes(platform.output())
    for name in ("web", "worker"):
        if codes.get(name) != 0:
            raise Failed(f"{name} ended with {codes.get(name)} after SIGTERM, and an orderly end is 0")
    say("SIGTERM ended web and worker, both with 0")
    modules = imported(platform.output())
    if not modules >= _SOME_OF_EACH:
        raise Failed("the output has no import times, so the imports are unknown")
    wrong = development_only(modules)
    if wrong:
        raise Failed(f"{', '.join(wrong)}: imported in production, and for development alone")
    say(f"of {len(modules)} imported modules none is for development alone")


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float, failure: str) -> None:
    ends_at = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > ends_at:
            raise Failed(f"{failure} within {timeout_s:g} s")
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
