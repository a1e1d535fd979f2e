"""The command line, run in the test's own process, and as a process where that is what the test is about.

In process a command has an environment, standard streams and an event loop of its own, and nothing else: it runs in a
thread, so that it can call a channel that serves in the test's loop. Starting Python for each costs half a second.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, NamedTuple

import msgspec
import structlog
from click.testing import CliRunner, Result
from structlog.typing import EventDict

from cli.__main__ import nodrop as command
from tests.servers import ROOT

TIMEOUT_S = 120.0
_running = Lock()
# Not DATABASE_URL and its like: each test sets its own.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "SSL_CERT_FILE")


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the command prints
        return msgspec.json.decode(self.out)

    @property
    def line(self) -> str:
        """The fault that ended it, which takes one line and no trace."""
        assert self.code != 0, self
        assert len(self.err.splitlines()) == 1, self
        assert self.err.startswith("nodrop: "), self
        return self.err.removeprefix("nodrop: ").strip()


class Nodrop:
    """`await nodrop("orders", "list")`; the environment is what the test gives, and nothing of its own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(env)

    async def __call__(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
        """Run it in this process. Several at once have to be processes: they would share environment and streams."""
        given = {**dict.fromkeys(os.environ), **self.env, **(env or {})}
        async with asyncio.timeout(TIMEOUT_S):
            result = await asyncio.to_thread(_invoke, arguments, given, stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    async def process(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
        """Run it as a process, from `python -m cli` to its exit code."""
        process = await self.start(*arguments, env=env)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cli", *arguments),
            cwd=ROOT,
            env={**self.env, **(env or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


def _invoke(arguments: tuple[str, ...], env: Mapping[str, str | None], stdin: bytes) -> Result:
    assert _running.acquire(blocking=False), "another command runs in this process"
    try:
        with _logs_of_this_thread():
            return CliRunner().invoke(command, arguments, input=stdin, env=env, prog_name="nodrop")
    finally:
        _running.release()


@contextmanager
def _logs_of_this_thread() -> Iterator[None]:
    """Let a command configure its logs, keep the lines of the test's own thread out of them, and put all back.

    Loggers are not cached meanwhile: they would go on writing to the command's standard error, which is gone.
    """
    thread, before, configure = get_ident(), structlog.get_config(), structlog.configure
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def only_this_thread(_logger: object, _name: str, line: EventDict) -> EventDict:
        if get_ident() != thread:
            raise structlog.DropEvent
        return line

    def configure_for_thread(*, processors: list[Any], cache_logger_on_first_use: bool, **more: Any) -> None:
        del cache_logger_on_first_use
        configure(processors=[only_this_thread, *processors], cache_logger_on_first_use=False, **more)

    configure_for_thread(**before)
    structlog.configure = configure_for_thread  # type: ignore[assignment]
    try:
        yield
    finally:
        structlog.configure = configure
        configure(**before)
        root.handlers, root.level = handlers, level
