"""One process of nodrop or of the simulator: started, stopped, killed, and started again on the same port."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Mapping
from http.cookiejar import CookieJar
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import httpx

from demo.embedded import Child

ROOT = Path(__file__).parent.parent
READY_S = 120.0  # a busy machine may be twenty times slower

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: for clients of plain HTTP on this machine. Without it each client reads all certificates: 20 ms."""


class NoCookies(CookieJar):
    """A cookie jar that takes nothing, not even to look at it."""

    def extract_cookies(self, *_: object) -> None: ...


class Service:
    """A process started with `python -m` in `cwd`. It can be started again after its end."""

    def __init__(
        self,
        name: str,
        *arguments: str,
        env: Mapping[str, str],
        log: Path,
        health_url: str = "",
        python: str = sys.executable,
        cwd: Path = ROOT,
    ) -> None:
        self.name = name
        self.health_url = health_url
        self.log = log
        self._argv = (python, "-m", *arguments)
        self._env = dict(env)
        self._cwd = cwd
        self._child: Child | None = None

    async def start(self) -> None:
        """Start it and return when its health check succeeds.

        Raises:
            RuntimeError: it ended, or did not get ready in time; the message has the end of its log.
        """
        self._child = await asyncio.to_thread(Child, self._argv, log=self.log, cwd=self._cwd, env=self._env)
        if self.health_url:
            await self._ready()

    async def stop(self, timeout_s: float = 15.0) -> int | None:
        """Send SIGTERM, as a platform does, and return the exit code."""
        return await self._end(SIGTERM, timeout_s)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        await self._end(SIGKILL, 5.0)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def _end(self, signum: Signals, timeout_s: float) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        return await asyncio.to_thread(child.end, signum, timeout_s)

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_S
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, cookies=NoCookies(), timeout=10.0) as client:
            while True:
                if self._child is None or self._child.exit_code is not None:
                    raise RuntimeError(f"{self.name} ended at its start:\n{self._tail()}")
                try:
                    if (await client.get(self.health_url)).status_code == httpx.codes.OK:
                        return
                except httpx.HTTPError:
                    pass
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} did not answer within {READY_S:.0f} s:\n{self._tail()}")
                await asyncio.sleep(0.05)

    def _tail(self) -> str:
        return self.log.read_text("utf-8", errors="replace")[-2000:] if self.log.exists() else ""
