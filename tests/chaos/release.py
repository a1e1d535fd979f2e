"""A release: web processes and workers of the previous release beside those of this one, on one database."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.embedded import free_port, temporary_directory
from tests.chaos.ground import Disturbance, Ground, open_stack
from tests.chaos.probes import Callbacks, counted
from tests.servers import ROOT

NAMED = ROOT / "tests" / "scenarios" / "previous_release"
"""A file with the commit of the previous release: its migrations are applied by ours, and its locks are the same."""

MIGRATIONS = "storage/postgres/migrations"
GIT_S = 60.0
SENT = 20


def previous_release() -> str:
    """Return the commit of the previous release."""
    return NAMED.read_text().strip()


def missing() -> str:
    """Return why the previous release cannot be run here, or an empty text."""
    commit = previous_release()
    found = _git("cat-file", "-e", f"{commit}^{{commit}}")
    return (
        ""
        if found.returncode == 0
        else f"it runs commit {commit[:12]}, which this clone does not have: git fetch --unshallow"
    )


def edited_migrations() -> list[str]:
    """Return the migrations of the previous release that are missing here or differ."""
    rows = _git("ls-tree", "-r", previous_release(), f"{MIGRATIONS}/").stdout.decode().splitlines()
    before = {path: facts.split()[2] for facts, _, path in (row.partition("\t") for row in rows)}
    return [path for path, hash_ in before.items() if path.endswith(".sql") and hash_of(path) != hash_]


def hash_of(path: str) -> str:
    """Return git's hash of a file of this checkout; an empty text if there is none."""
    return _git("hash-object", "--", path).stdout.decode().strip()


@contextmanager
def checked_out() -> Iterator[Path]:
    """Yield a folder with the files of the previous release."""
    with temporary_directory() as directory:
        place = directory / "previous"
        place.mkdir()
        archive = _git("archive", previous_release())
        assert archive.returncode == 0, archive.stderr
        subprocess.run(["tar", "-x", "-C", str(place)], input=archive.stdout, check=True, timeout=GIT_S)  # noqa: S607
        yield place


async def disturb(ground: Ground) -> None:
    """Run both releases side by side; end ours under load, so that the old one is alone; end the old one, too."""
    for path in edited_migrations():
        ground.report_broken(f"{path} of the previous release was edited or is gone")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with checked_out() as place:
        api = ground.new_service(
            f"previous-api-{port}", "api", health_url=f"{url}/healthz", cwd=place, env={"PORT": str(port)}
        )
        worker = ground.new_service(f"previous-worker-{port}", "worker", cwd=place, env={})
        callbacks = Callbacks(ground, url)
        await callbacks.prepare(SENT)
        async with ground.running(api, worker):
            ground.note(f"A web process and a worker of {previous_release()[:12]} beside ours")
            await _send(ground, callbacks, "side by side", ground.seconds / 3)
            ground.note("Our workers end: the previous release works alone")
            await asyncio.gather(*(each.stop(60.0) for each in ground.stack.workers))
            await _send(ground, callbacks, "the previous release alone", ground.seconds / 3)
            await asyncio.gather(*(each.start() for each in ground.stack.workers))
            ground.note("Our workers are back: side by side again")
            await _send(ground, callbacks, "side by side again", ground.seconds / 3)
        ground.note("The previous release has ended")
    await ground.caught_up("after the previous release")
    await callbacks.check_stored()
    await callbacks.close()


async def _send(ground: Ground, callbacks: Callbacks, name: str, seconds: float) -> None:
    answers = await callbacks.send_for(seconds, seconds / SENT)
    refused = [answer for answer in answers if answer.status != 200]
    if refused:
        ground.report_broken(f"{name}: the previous release answered callbacks {counted(refused)}")
    ground.measure_times(f"{name}: acknowledged", [answer.seconds for answer in answers])


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False, timeout=GIT_S)  # noqa: S607


DISTURBANCE = Disturbance(
    "release",
    "a web process and a worker of the previous release beside ours, then its worker alone",
    45.0,
    disturb,
    open_stack,
    missing=missing,
)
