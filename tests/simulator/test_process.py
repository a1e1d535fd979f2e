"""The simulator as processes: they say where they are, serve, and end in good order at SIGTERM."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
import structlog
from click.testing import CliRunner

from simulator.__main__ import main
from tests.simulator.sandbox_client import ACCOUNT, SECRET, SandboxClient

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(autouse=True)
def logs_stay_as_they_were() -> Iterator[None]:
    """The command configures the logs of its process, which here is everybody's."""
    yield
    structlog.reset_defaults()


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[tuple[str, Process]]:
    """Gives the base URL that the process logged when it began to serve."""
    command = (sys.executable, "-m", "simulator", *arguments)
    started = await asyncio.create_subprocess_exec(*command, stderr=PIPE, env=environment or None)
    try:
        assert started.stderr is not None
        async with asyncio.timeout(60):
            line = (await started.stderr.readline()).decode()
        found = re.search(r"url=(\S+)", line)
        assert found is not None, line
        yield found[1], started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def ended(started: Process) -> tuple[int, str]:
    """Its exit code and what it still logged, after SIGTERM."""
    started.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        _, errors = await started.communicate()
    assert started.returncode is not None
    return started.returncode, errors.decode()


async def test_channel_serves_and_ends_while_somebody_hangs(http: httpx.AsyncClient) -> None:
    async with process("channel", "--port", "0", "--seed", "3", "--speed", "10") as (url, started):
        await http.put(f"{url}/control/accounts", json=[ACCOUNT])
        api = SandboxClient(http, url)
        created = await api.create("number-1")
        assert created.json()["pay_url"].startswith(url)
        assert (await http.post(created.json()["pay_url"], data={"action": "pay"})).status_code == 303
        await http.put(f"{url}/control/faults", json={"timed_out": 1})
        hanging = asyncio.create_task(api.query("number-1"))
        async with asyncio.timeout(60):
            counters: dict[str, int] = {}
            while not counters.get("faults_timed_out"):
                counters = (await http.get(f"{url}/control/counters")).json()
        code, errors = await ended(started)
        with pytest.raises(httpx.HTTPError):
            await hanging
    assert (code, "channel_stopping" in errors, "Traceback" in errors) == (0, True, False)
    assert SECRET not in errors


async def test_merchant_serves_with_secrets_from_its_environment(http: httpx.AsyncClient) -> None:
    secret = "whsec_bWFkZSB1cCBmb3IgdGhlc2UgdGVzdHMgb25seSE="
    async with process("merchant", "--port", "0", MERCHANT_SECRETS=secret) as (url, started):
        assert (await http.get(f"{url}/healthz")).json() == {"status": "ok"}
        assert (await http.post(f"{url}/notifications", content=b"{}")).status_code == 401
        code, errors = await ended(started)
    assert (code, secret in errors) == (0, False)


async def test_every_command_explains_itself() -> None:
    for arguments in ((), ("channel",), ("merchant",), ("shoppers",)):
        shown = CliRunner().invoke(main, [*arguments, "--help"])
        assert (shown.exit_code, "Usage:" in shown.output) == (0, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("merchant", "--port", "0", "--secret", "whsec_***"),
        ("channel", "--port", "70000"),
        ("channel", "--port", "0", "--speed", "0"),
        ("shoppers", "--api", "http://127.0.0.1:9", "--api-key", "k", "--weights", "runs_off=1"),
    ],
)
async def test_wrong_option_is_explained(arguments: tuple[str, ...]) -> None:
    shown = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert (shown.exit_code, "Traceback" in shown.output, "***" in shown.output) == (2, False, False)
