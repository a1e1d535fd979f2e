"""A third-party library in a process of its own: one JSON line for each call and each result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ANSWER_S = 20.0
LINE_BYTES_MAX = 8 << 20


def python_of(environment: str) -> str:
    """The interpreter of an environment below .oracles; skips the test when the environment is missing."""
    python = ROOT / ".oracles" / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no .oracles/{environment}: make oracles")
    return str(python)


class Library:
    """A running library."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, action: str, **arguments: Any) -> Any:
        """The library's result.

        Raises:
            AssertionError: the library raised; with its message.
        """
        reply = await self._exchange(action, arguments)
        assert "raised" not in reply, reply
        return reply["returned"]

    async def fail(self, action: str, **arguments: Any) -> str:
        """The name of the exception that the library raised."""
        reply = await self._exchange(action, arguments)
        assert "raised" in reply, reply
        raised: str = reply["raised"]
        return raised

    async def _exchange(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": action, **arguments}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_S)
        assert line, "the witness ended"
        reply: dict[str, Any] = json.loads(line)
        return reply


@asynccontextmanager
async def open_library(library: str, **about: Any) -> AsyncIterator[Library]:
    """Run the library of this module and pass it `about` the account first."""
    process = await asyncio.create_subprocess_exec(
        python_of("sdks"),
        "-m",
        f"tests.oracles.{library}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        cwd=ROOT,
    )
    try:
        one = Library(process)
        await one.do("begin", **about)
        yield one
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), ANSWER_S)
