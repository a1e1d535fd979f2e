"""The disk of Postgres is full for a while. Its files are on a small file system in memory, which root may mount."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demo.embedded import EmbeddedError
from demo.stack import Stack
from tests.chaos.ground import Disturbance, Ground, open_stack
from tests.chaos.probes import Callbacks, counted
from tests.servers import eventually

SIZE_MIB = 400
"""Binaries, an empty cluster and its write-ahead log take 150 MiB of it."""

FULL = 0.5
"""Share of the run in which the disk is full."""

CHUNK = bytes(1 << 20)


@contextmanager
def small_disk(place: Path, mebibytes: int) -> Iterator[None]:
    """Mount a file system of this size at the place."""
    place.mkdir(parents=True, exist_ok=True)
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    command = [mount, "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "nodrop-chaos", str(place)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run([umount, "--lazy", str(place)], check=True, capture_output=True, timeout=30)


def missing() -> str:
    """Return why no small disk can be made here, or an empty text."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "it mounts a tmpfs for Postgres: it needs root and the command mount"
    with TemporaryDirectory(prefix="nodrop-") as name:
        try:
            with small_disk(Path(name, "disk"), 1):
                return ""
        except (subprocess.SubprocessError, OSError):
            return "it mounts a tmpfs for Postgres: this machine does not permit that (CAP_SYS_ADMIN)"


@asynccontextmanager
async def open_small_stack(directory: Path, seed: int, **options: Any) -> AsyncIterator[Stack]:
    """Open the usual system, with the files of Postgres on a small disk."""
    with small_disk(directory / "postgres", SIZE_MIB):
        async with open_stack(directory, seed, **options) as stack:
            yield stack


async def disturb(ground: Ground) -> None:
    """Fill the disk, keep it full while callbacks come, free it, and wait until Postgres has come back by itself."""
    callbacks = Callbacks(ground)
    await callbacks.prepare(20)
    await ground.wait(ground.seconds * (1 - FULL) / 2)
    supervising = asyncio.create_task(_supervise(ground))
    filler = ground.stack.postgres.directory / "filler"
    began = time.monotonic()
    ground.note(f"The disk is full for {ground.seconds * FULL:.0f} s")
    sending = asyncio.create_task(callbacks.send_for(ground.seconds * FULL, 0.25))
    while not sending.done():
        await asyncio.to_thread(_fill, filler)
        await asyncio.sleep(0.2)
    answers = sending.result()
    filler.unlink()
    ground.note(f"The disk has room again after {time.monotonic() - began:.0f} s")
    ground.progress.write(f"Callbacks meanwhile: {counted(answers)}")
    ground.measure("acknowledged while full", sum(a.status == 200 for a in answers), "callbacks", len(answers))
    ground.measure("503 while full", sum(a.status == 503 for a in answers), "callbacks", len(answers))
    others = [answer for answer in answers if answer.status not in (200, 503)]
    if others:
        ground.report_broken(f"disk full: callbacks were answered {counted(others)}")
    began = time.monotonic()

    async def is_acknowledged() -> bool:
        return (await callbacks.send()).status == 200

    await eventually(is_acknowledged, interval_s=0.2)
    ground.measure("callbacks acknowledged again after", time.monotonic() - began, "s")
    await ground.caught_up("full disk")
    supervising.cancel()
    await asyncio.gather(supervising, return_exceptions=True)
    await callbacks.check_stored()
    await callbacks.close()


async def _supervise(ground: Ground) -> None:
    """Start Postgres again whenever it has ended, as a platform does."""
    while True:
        with suppress(EmbeddedError):
            await asyncio.to_thread(ground.stack.postgres.start)
        await asyncio.sleep(0.5)


def _fill(filler: Path) -> None:
    """Write until there is no room, first in large and then in small pieces."""
    with filler.open("ab", buffering=0) as file:
        for piece in (CHUNK, CHUNK[:4096]):
            with suppress(OSError):
                while file.write(piece):
                    pass


DISTURBANCE = Disturbance(
    "disk", "the disk of Postgres is full for half of the time", 40.0, disturb, open_small_stack, missing=missing
)
