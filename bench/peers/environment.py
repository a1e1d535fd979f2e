"""The environment of a peer: made for one benchmark from the peer's own lock, and removed after it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PEERS = Path(__file__).parent
INSTALL_S = 300.0
OUTPUT_CHARACTERS = 300


class PeerMissing(Exception):
    """The peer cannot be installed here; the benchmark is skipped."""


@asynccontextmanager
async def peer_python(name: str) -> AsyncIterator[Path]:
    """Yield the interpreter of an environment with what `bench/peers/NAME/requirements.txt` locks.

    Raises:
        PeerMissing: pip could not install it, most often because there is no network.
    """
    async with locked_python(PEERS / name / "requirements.txt") as python:
        yield python


@asynccontextmanager
async def locked_python(lock: Path) -> AsyncIterator[Path]:
    """Yield the interpreter of an environment with what this file locks.

    Raises:
        PeerMissing: as above.
    """
    with TemporaryDirectory(prefix=f"locked-{lock.parent.name}-") as directory:
        python = Path(directory) / "bin" / "python"
        await _run(sys.executable, "-m", "venv", directory)
        options = ("--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes")
        await _run(str(python), "-m", "pip", "install", *options, "--requirement", str(lock))
        yield python


@asynccontextmanager
async def peer_node(folder: Path) -> AsyncIterator[Path]:
    """Yield a copy of a folder with a `package-lock.json`, and in it what that locks, for Node.

    Raises:
        PeerMissing: there is no Node here, or npm could not install it.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise PeerMissing("there is no Node here")
    with TemporaryDirectory(prefix=f"bench-{folder.name}-") as directory:
        shutil.copytree(folder, directory, dirs_exist_ok=True)
        await _run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", directory)
        yield Path(directory)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(INSTALL_S):
            output, _ = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise PeerMissing(f"{' '.join(command[1:3])} took longer than {INSTALL_S:g} s") from None
        raise
    if process.returncode != 0:
        raise PeerMissing(output.decode(errors="replace").strip()[-OUTPUT_CHARACTERS:])
