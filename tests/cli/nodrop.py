"""The command line as a person has it: a process, its output and its exit code."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from tests.servers import ROOT

TIMEOUT_S = 30.0
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")  # not DATABASE_URL and its like: a test says what it wants


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
        """What it could not do, which takes one line and no trace."""
        assert self.code != 0, self
        assert len(self.err.splitlines()) == 1, self
        assert self.err.startswith("nodrop: "), self
        return self.err.removeprefix("nodrop: ").strip()


class Nodrop:
    """`await nodrop("orders", "list")`; the environment is what the test gives, and nothing of its own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(env)

    async def __call__(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
        """Asynchronous, for it may ask a channel that serves in the test's own loop."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cli", *arguments),
            cwd=ROOT,
            env={**self.env, **(env or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())
