"""The disk of Postgres is full for a while. Its files are on a small file system in memory, which root may mount."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demo.embedded import EmbeddedError, EmbeddedPostgres
from demo.stack import Stack
from runtime.loop import pause
from tests.chaos.ground import Disturbance, Ground, open_stack
from tests.chaos.probes import ACKNOWLEDGED, COME_AGAIN, Answer, Callbacks, counted
from tests.servers import eventually

SIZE_MIB = 400
"""Binaries, an empty cluster and its write-ahead log take 150 MiB of it."""

FULL = 0.5
"""Share of the run in which the disk is full."""

GAP_S = 0.25
REFILLED_S, SUPERVISED_S = 0.2, 0.5
REFUSED_S = 60.0
"""The disk stays full for longer, up to this, until a callback was refused."""

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
    postgres = ground.stack.postgres
    filler = postgres.directory / "filler"
    async with Callbacks(ground, 20) as callbacks:
        await ground.wait(ground.seconds * (1 - FULL) / 2)
        async with _repeating(partial(_supervise, postgres), SUPERVISED_S):
            began = time.monotonic()
            async with _repeating(partial(_fill, filler), REFILLED_S):
                ground.note(f"The disk is full for {ground.seconds * FULL:.0f} s")
                answers = await callbacks.send_for(ground.seconds * FULL, GAP_S)
                # Postgres writes where it had room before, for a while.
                while all(answer.status != COME_AGAIN for answer in answers) and time.monotonic() - began < REFUSED_S:
                    answers += await callbacks.send_for(GAP_S, GAP_S)
            filler.unlink()
            ground.note(f"The disk has room again after {time.monotonic() - began:.0f} s")
            _judge(ground, answers)
            began = time.monotonic()

            async def is_acknowledged() -> bool:
                return (await callbacks.send()).status == ACKNOWLEDGED

            await eventually(is_acknowledged, interval_s=0.2)
            ground.measure("callbacks acknowledged again after", time.monotonic() - began, "s")
            await ground.caught_up("full disk")


def _judge(ground: Ground, answers: list[Answer]) -> None:
    """Record the answers of a full disk. Each callback is acknowledged or is to come again."""
    ground.progress.write(f"Callbacks meanwhile: {counted(answers)}")
    for name, status in (("acknowledged", ACKNOWLEDGED), ("503", COME_AGAIN)):
        count = sum(answer.status == status for answer in answers)
        ground.measure(f"{name} while full", count, "callbacks", len(answers))
    if others := [answer for answer in answers if answer.status not in (ACKNOWLEDGED, COME_AGAIN)]:
        ground.report_broken(f"disk full: callbacks were answered {counted(others)}")


@asynccontextmanager
async def _repeating(act: Callable[[], None], each_s: float) -> AsyncIterator[None]:
    """Do this at once and then each `each_s` in a thread, until the block ends."""
    ended = asyncio.Event()

    async def repeat() -> None:
        while not ended.is_set():
            await asyncio.to_thread(act)
            await pause(ended, each_s)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        ended.set()
        await task


def _supervise(postgres: EmbeddedPostgres) -> None:
    """Start Postgres again if it has ended, as a platform does."""
    with suppress(EmbeddedError):
        postgres.start()


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
