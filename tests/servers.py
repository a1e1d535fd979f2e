"""Our processes as real children, and waiting for a condition instead of for a time."""

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from time import monotonic
from typing import Self, TypeVar, overload

import httpx

from demo.embedded import Child
from demo.service import NO_TLS

ROOT = Path(__file__).parent.parent
# Not DATABASE_URL and its like: a test says what it wants.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "SSL_CERT_FILE")

LIMIT_S = 120.0
"""Ends a wait for what does not come. No time that is tested: a busy machine may be twenty times slower."""

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout_s: float = ..., interval_s: float = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], timeout_s: float = ..., interval_s: float = ...) -> T: ...
async def eventually(condition: Callable[[], object], timeout_s: float = LIMIT_S, interval_s: float = 0.02) -> object:
    """Return what `condition` returned as soon as that was truthy. It is asked at least once, also after the deadline.
    Asking takes a third of the time at most: the processes that are waited for need the processors, too.

    Raises:
        AssertionError: it never was; the message holds what it returned last.
    """
    deadline = monotonic() + timeout_s
    while True:
        began = monotonic()
        is_last = began > deadline
        answer = condition()
        value = await answer if isawaitable(answer) else answer
        if value:
            return value
        assert not is_last, f"not within {timeout_s} s; it returned {value!r} at last"
        await asyncio.sleep(max(interval_s, 2 * (monotonic() - began)))


class Process:
    """`python -m module …` in the checkout, as a platform starts it. Its output goes to `log`, and on into the report
    of a test that fails.

    Waiting is asynchronous throughout, for the child may need an answer from a server in the test's own loop.
    """

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._argv = (sys.executable, "-m", module, *arguments)
        self._env = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(env)
        self._child: Child | None = None

    def start(self) -> None:
        """Also again, after it has ended; the log is carried on."""
        self._child = Child(self._argv, log=self.log, cwd=ROOT, env=self._env)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        return self._running.exit_code

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    async def wait_for_line(self, text: str, timeout_s: float = LIMIT_S) -> str:
        """The first line of its output that holds `text`."""
        return await self._while_it_runs(lambda: self._line_with(text), timeout_s)

    async def wait_for_port(self, port: int, timeout_s: float = LIMIT_S) -> None:
        """Until somebody listens on this port of 127.0.0.1."""
        await self._while_it_runs(lambda: _is_listening(port), timeout_s)

    async def wait_for_http(self, url: str, timeout_s: float = LIMIT_S) -> None:
        """Until `url`, its /healthz mostly, is answered 200."""
        async with httpx.AsyncClient(timeout=10, trust_env=False, verify=NO_TLS) as client:
            await self._while_it_runs(lambda: _answers_200(client, url), timeout_s)

    async def wait(self, timeout_s: float = LIMIT_S) -> int:
        """Its exit code, once it has ended by itself."""
        await eventually(lambda: self.exit_code is not None, timeout_s)
        return self._running.wait(0)

    async def terminate(self, timeout_s: float = LIMIT_S) -> int:
        """SIGTERM, as a platform ends it; its exit code. It fails the test not to end in time."""
        self.send(SIGTERM)
        return await self.wait(timeout_s)

    def send(self, signal: Signals) -> None:
        self._running.send(signal)

    def kill(self) -> None:
        """SIGKILL; it is gone on return."""
        self._running.end(SIGKILL)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        # pytest shows it when the test fails
        print(f"--- {' '.join(self._argv[1:])} (pid {self.pid}) ended with {self.exit_code}\n{self.output()}")  # noqa: T201

    @property
    def _running(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    async def _while_it_runs(self, condition: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """As `eventually`, but at once when the process ends."""

        async def checked() -> T:
            assert self.exit_code is None, f"it ended with {self.exit_code}:\n{self.output()}"
            return await condition()

        return await eventually(checked, timeout_s)

    async def _line_with(self, text: str) -> str:
        return next((line for line in self.output().splitlines() if text in line), "")


def find_chromium() -> str | None:
    """Chromium without a window if it is there: the same pages for half the CPU."""
    return shutil.which("chromium-headless-shell") or find_whole_chromium()


def find_whole_chromium() -> str | None:
    """Chromium with the settings that a person has."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), timeout=1)
    except (OSError, TimeoutError):
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def _answers_200(client: httpx.AsyncClient, url: str) -> bool:
    try:
        response = await client.get(url)
    except httpx.TransportError:
        return False
    return response.status_code == httpx.codes.OK
