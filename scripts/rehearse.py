"""`make rehearse`: deploy this checkout as a platform would, sell one order, end it, and say what did not work.

An empty virtual environment gets requirements.txt and nothing else, a copy of what git would commit goes beside it, and
honcho, from the development environment, runs the Procfile's lines there with a platform's variables alone. Postgres,
Redis, the channel and the merchant are this script's, on loopback; whatever it started ends with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from secrets import token_hex
from signal import SIGTERM

import httpx

from cli.embedded import Child, EmbeddedError, EmbeddedPostgres, EmbeddedRedis, free_port, temporary_directory
from simulator.base import Account
from simulator.far_side import FarSide
from simulator.ledger import Key
from simulator.merchant import Merchant
from simulator.running import running_channel, running_merchant
from simulator.shop import OrderRequest, Refused, Shop

ROOT = Path(__file__).parent.parent
LOCK = "requirements.txt"
ACCOUNT, MERCHANT_ID, ORDER_NO = "main", "m-main", "rehearsal-1"

INSTALL_S = 300.0
COMMAND_S = 60.0
READY_S = 30.0
SELL_S = 30.0
END_S = 20.0
"""Platforms give 10 to 30 s after SIGTERM."""

NOT_IN_PRODUCTION = ("bench", "cli.embedded", "simulator", "tests")
_IMPORTED = re.compile(r"(?:web|worker|release)\.1 +\| import time: +\d+ \| +\d+ \| +(\S+)")
_STOPPED = re.compile(r"(web|worker)\.1 stopped \(rc=(-?\d+)\)")
_NAME = re.compile(r"^([A-Za-z0-9._-]+)", re.MULTILINE)


class Failed(Exception):
    """The rehearsal did not go well; the message is for the person at the terminal."""


def say(text: str) -> None:
    print(f"rehearse: {time.monotonic() - BEGAN:5.1f} s  {text}", flush=True)  # noqa: T201 -- it talks to a person


BEGAN = time.monotonic()


# -- what a platform does at each deploy -------------------------------------------------------------------------------


def make_environment(directory: Path) -> Path:
    """An environment with the locked packages alone; where its commands are."""
    place = directory / "environment"
    run([sys.executable, "-m", "venv", place], "a virtual environment could not be made", env=os.environ)
    pip = [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--quiet", "--require-hashes", "--requirement", ROOT / LOCK]
    run(install, f"pip could not install {LOCK} by its hashes", env=os.environ, timeout_s=INSTALL_S)
    listed = json.loads(run([*pip, "list", "--format=json"], "pip could not list what is there", env=os.environ))
    locked = {plain(name) for name in _NAME.findall((ROOT / LOCK).read_text())} | {"pip", "setuptools"}
    beside = sorted({plain(package["name"]) for package in listed} - locked)
    if beside:
        raise Failed(f"{', '.join(beside)} came into the environment, and {LOCK} does not name it")
    say(f"an empty environment has the {len(listed)} packages of {LOCK} and no others")
    return place / "bin"


def copy_checkout(directory: Path) -> Path:
    """What a commit of the working tree would hold, and nothing that git ignores."""
    place = directory / "checkout"
    listing = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = run(listing, "git does not tell what belongs to the checkout", env=os.environ).split("\0")
    files = [name for name in names if name and (ROOT / name).is_file()]
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name)
    for needed in ("Procfile", LOCK):
        if not (place / needed).is_file():
            raise Failed(f"{needed} is not in the checkout, and a platform looks for it")
    say(f"the checkout is copied, {len(files)} files")
    return place


class Platform:
    """The copy of the checkout with its environment: runs the Procfile's lines and, as an operator would, commands."""

    def __init__(self, commands: Path, checkout: Path, log: Path, variables: Mapping[str, str]) -> None:
        path = f"{commands}:/usr/local/bin:/usr/bin:/bin"
        self.env = {"PATH": path, "HOME": str(checkout), "LANG": "C.UTF-8", **variables}
        self.log = log
        self._commands = commands
        self._checkout = checkout

    def command(self, *arguments: str, given: str = "") -> str:
        """`python -m cli …`; what it printed."""
        argv = [self._commands / "python", "-m", "cli", *arguments]
        return run(
            argv, f"`python -m cli {' '.join(arguments)}` failed", env=self.env, cwd=self._checkout, given=given
        ).strip()

    def start(self, *lines: str) -> Child:
        """Honcho with these lines of the Procfile. Python writes down what it imports: that is looked at in the end."""
        honcho = [sys.executable, "-P", "-m", "honcho", "--no-colour", "start", *lines]
        env = self.env | {"PYTHONPROFILEIMPORTTIME": "1"}
        return Child(honcho, log=self.log, cwd=self._checkout, env=env, death_signal=SIGTERM)

    def release(self) -> None:
        """The release line, which has to end well before anything else starts."""
        code = self.start("release").wait(COMMAND_S)
        if code != 0:
            raise Failed(f"the release line ended with {code}")
        say("release has migrated the database")


# -- one order ---------------------------------------------------------------------------------------------------------


async def sell(platform: Platform, web: Child, far_side: FarSide, merchant: Merchant, merchant_url: str) -> None:
    """Until the order is paid, its page is served and the merchant knows."""
    key = platform.command("keys", "create", "rehearsal")
    url = platform.env["PUBLIC_URL"]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5.0) as client:

        async def is_ready() -> bool:
            if web.exit_code is not None:
                raise Failed(f"honcho ended with {web.exit_code} before the service was ready")
            try:
                return (await client.get("/readyz")).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        await until(is_ready, READY_S, "GET /readyz was never answered 200")
        say("web and worker run, /readyz says yes")
        page = await _pay(url, key, far_side, f"{merchant_url}/notifications")
        if (await client.get(page)).status_code != httpx.codes.OK:
            raise Failed("the order's page is not served")

        async def is_paid() -> bool:
            answer = await client.get(f"/v1/orders/{ORDER_NO}", headers={"Authorization": f"Bearer {key}"})
            return bool(answer.json().get("status") == "paid")

        async def is_known() -> bool:
            return ORDER_NO in merchant.effects

        await until(is_paid, SELL_S, "the order was paid at the channel and did not become paid")
        await until(is_known, SELL_S, "the order is paid, and the merchant was never told")
    say("an order was placed, paid at the channel, became paid, and the merchant was told")


async def _pay(url: str, key: str, far_side: FarSide, notify_url: str) -> str:
    """Place it and pay it; the address of its page."""
    request = OrderRequest(
        order_no=ORDER_NO, amount=100, currency="CNY", subject="Tea", account=ACCOUNT, notify_url=notify_url
    )
    async with Shop(url, key) as shop:
        placed = await shop.place(request)
    if isinstance(placed, Refused):
        raise Failed(f"the order was refused: {placed.http_status} {placed.code}")
    far_side.pay(Key(MERCHANT_ID, placed.payments[0].out_trade_no))
    return placed.order_page


# -- the end -----------------------------------------------------------------------------------------------------------


def end(platform: Platform, processes: Child) -> None:
    """SIGTERM, and both processes end by themselves with 0. Honcho kills after 5 s: then one of them has not."""
    processes.end(SIGTERM, END_S)
    codes = dict(_STOPPED.findall(platform.log.read_text(errors="replace")))
    for name in ("web", "worker"):
        if codes.get(name) != "0":
            raise Failed(f"{name} ended with {codes.get(name, 'nothing')} after SIGTERM, where 0 is an orderly end")
    say("SIGTERM ended web and worker, both with 0")


def check_imports(platform: Platform) -> None:
    """Of our own folders those that are for development stay out of production, though a platform has them."""
    imported = set(_IMPORTED.findall(platform.log.read_text(errors="replace")))
    if not {"api.asgi", "worker.lane", "storage.migrate"} <= imported:
        raise Failed("the record of imports is not complete: nothing can be said about them")
    wrong = sorted(name for name in imported if name.startswith(tuple(f"{each}." for each in NOT_IN_PRODUCTION)))
    if wrong := [*wrong, *sorted(imported & set(NOT_IN_PRODUCTION))]:
        raise Failed(f"{', '.join(wrong)} was imported, which is for development alone")
    say(f"of {len(imported)} imported modules none is for development")


# -- helpers and the story ---------------------------------------------------------------------------------------------


def run(
    argv: list[object],
    failure: str,
    *,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    given: str = "",
    timeout_s: float = COMMAND_S,
) -> str:
    """What the program printed; `Failed` with the end of its complaint when it did not succeed."""
    try:
        done = subprocess.run(  # noqa: S603 -- programs of ours, without a shell
            [str(part) for part in argv],
            env=env,
            cwd=cwd,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{failure} ({type(error).__name__})") from None
    if done.returncode != 0:
        raise Failed(f"{failure}:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float, failure: str) -> None:
    ends_at = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > ends_at:
            raise Failed(f"{failure} within {timeout_s:g} s")
        await asyncio.sleep(0.1)


def plain(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def variables(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> dict[str, str]:
    """What a platform sets, and what an operator has to; keys are made by the commands in the copy."""
    port = free_port()
    return {
        "DATABASE_URL": postgres.url("nodrop").replace("postgresql://", "postgres://", 1),
        "REDIS_URL": redis.url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "NOTIFY_ALLOW_NETS": "127.0.0.0/8",  # the merchant of this rehearsal is on loopback
    }


async def play(platform: Platform) -> None:
    """From the release to the end."""
    platform.env["NODROP_MASTER_KEYS"] = platform.command("keys", "master")
    platform.env["NOTIFY_SECRETS"] = platform.command("keys", "notify")
    platform.release()
    secret = token_hex(24)
    async with (
        running_channel() as (channel_url, far_side),
        running_merchant(secrets=(platform.env["NOTIFY_SECRETS"],)) as (merchant_url, merchant),
    ):
        far_side.accounts[MERCHANT_ID] = Account(name=ACCOUNT, merchant_id=MERCHANT_ID, keys={"k1": secret})
        toml = f'channel = "sandbox"\nbase_url = "{channel_url}"\n[credentials]\nmerchant_id = "{MERCHANT_ID}"\n'
        platform.command("accounts", "add", ACCOUNT, "--from", "-", given=f'{toml}keys = {{ k1 = "{secret}" }}\n')
        processes = platform.start("web", "worker")
        try:
            await sell(platform, processes, far_side, merchant, merchant_url)
        finally:
            if sys.exc_info()[0] is not None:
                processes.end(SIGTERM, END_S)
        await asyncio.to_thread(end, platform, processes)
    check_imports(platform)


def rehearse(directory: Path) -> None:
    commands = make_environment(directory)
    checkout = copy_checkout(directory)
    log = directory / "honcho.log"
    with EmbeddedPostgres(directory / "postgres") as postgres, EmbeddedRedis(directory / "redis") as redis:
        postgres.create_database("nodrop")
        platform = Platform(commands, checkout, log, variables(postgres, redis))
        try:
            asyncio.run(play(platform))
        except Failed as failed:
            said = log.read_text(errors="replace").splitlines() if log.exists() else []
            tail = [line for line in said if "import time:" not in line][-30:]
            raise Failed("\n".join([str(failed), "the end of what honcho said:", *tail]) if tail else str(failed)) from None


def main() -> None:
    try:
        with temporary_directory() as directory:
            rehearse(directory)
    except (Failed, EmbeddedError) as error:
        sys.exit(f"rehearse: FAILED: {error}")
    say("done: a platform can run this checkout")


if __name__ == "__main__":
    main()
