"""A release: web processes and workers of the previous release beside those of this one, on one database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from demo.embedded import free_port, temporary_directory
from demo.stack import DATABASE, Stack
from storage.postgres.migrate import migrate
from tests.chaos.ground import COMMON, ENVIRONMENT, Disturbance, Ground
from tests.chaos.probes import Callbacks
from tests.servers import ROOT

NAMED = ROOT / "tests" / "scenarios" / "previous_release"
"""A file with the commit of the previous release: its migrations are applied by ours, and its locks are the same."""

MIGRATIONS = "storage/postgres/migrations"
GIT_S = 60.0
SENT = 20

_PREPARE = """
import asyncio, os, sys
import msgspec
from core.account import AccountConfig
from core.settings import read_settings
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.postgres.database import Database
from storage.postgres.migrate import migrate
from storage.sealing import Sealer

async def main():
    settings = read_settings(os.environ)
    await migrate(settings.database_url)
    database = Database.from_settings(settings)
    await database.open()
    for account in msgspec.json.decode(sys.stdin.buffer.read(), type=list[AccountConfig]):
        await put_account(database, Sealer.from_setting(settings.nodrop_master_keys), account)
    print((await create_api_key(database, "demo"))[1])
    await database.close()

asyncio.run(main())
"""
"""Run by the previous release: schema, accounts and a key as it makes them."""


def previous_release() -> str:
    """Return the commit of the previous release."""
    return NAMED.read_text().strip()


def missing() -> str:
    """Return why the previous release cannot be run here, or an empty text."""
    commit = previous_release()
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
        return ""
    return f"it runs commit {commit[:12]}, which this clone does not have: git fetch --unshallow"


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


class PreviousStack(Stack):
    """A system that is all of the previous release at its start: it made the schema, and its processes run."""

    async def _prepare_database(self) -> None:
        await asyncio.to_thread(self.postgres.create_database, DATABASE)
        accounts = msgspec.json.encode(await self._open_accounts())
        command = (sys.executable, "-c", _PREPARE)
        prepared = await asyncio.create_subprocess_exec(
            *command, cwd=self.checkout, env=self.environ, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        key, errors = await prepared.communicate(accounts)
        if prepared.returncode != 0:
            raise RuntimeError(f"the previous release did not make its database:\n{errors.decode()[-2000:]}")
        self.api_key = key.decode().strip()


@asynccontextmanager
async def open_previous_stack(directory: Path, seed: int) -> AsyncIterator[Stack]:
    """Open the usual system as the previous release has it."""
    with checked_out() as place:
        stack = PreviousStack(directory, seed=seed, workers=2, env=ENVIRONMENT, **COMMON)
        stack.checkout = place
        async with stack:
            stack.checkout = ROOT
            yield stack


async def disturb(ground: Ground) -> None:
    """Release under load: migrate beside the old processes, replace them one by one, then go back to the old ones."""
    part_s = ground.seconds / 6
    async with Callbacks(ground, SENT) as callbacks:
        await callbacks.expect_acknowledged("the previous release", part_s, SENT)
        began = time.monotonic()
        applied = await migrate(ground.stack.database_url)
        ground.note(f"Migrated beside the previous release: {', '.join(applied) or 'nothing to do'}")
        ground.measure("migrated in", time.monotonic() - began, "s", len(applied))
        await callbacks.expect_acknowledged("the previous release on the new schema", part_s, SENT)
        await _replace_all(ground, callbacks, part_s)
    await side_by_side(ground)


async def _replace_all(ground: Ground, callbacks: Callbacks, part_s: float) -> None:
    """Replace the workers one by one, then the web process, which is away for a moment."""
    stack = ground.stack
    for number, old in enumerate(stack.workers):
        new = stack.new_worker(f"new-worker{number}")
        ground.logs.append(new.log)
        await new.start()
        await old.stop(60.0)
        stack.workers[number] = new
        ground.note(f"{old.name} is replaced")
        await callbacks.expect_acknowledged(f"{old.name} replaced", part_s / 2, SENT)
    await stack.replace_apis()
    ground.note("The web process is replaced")
    await callbacks.expect_acknowledged("all is this release", part_s, SENT)


async def side_by_side(ground: Ground) -> None:
    """Run processes of the previous release beside ours, end our workers for a while, then end the previous release."""
    for path in edited_migrations():
        ground.report_broken(f"{path} of the previous release was edited or is gone")
    part_s, port = ground.seconds / 6, free_port()
    url = f"http://127.0.0.1:{port}"
    with checked_out() as place:
        api = ground.new_service(
            f"previous-api-{port}", "api", health_url=f"{url}/healthz", cwd=place, env={"PORT": str(port)}
        )
        worker = ground.new_service(f"previous-worker-{port}", "worker", cwd=place, env={})
        async with ground.running(api, worker), Callbacks(ground, SENT, url) as callbacks:
            ground.note(f"A web process and a worker of {previous_release()[:12]} beside ours")
            await callbacks.expect_acknowledged("side by side", part_s, SENT)
            ground.note("Our workers end: the previous release works alone")
            await asyncio.gather(*(each.stop(60.0) for each in ground.stack.workers))
            await callbacks.expect_acknowledged("the previous worker alone", part_s, SENT)
            await asyncio.gather(*(each.start() for each in ground.stack.workers))
            ground.note("Our workers are back")
            await callbacks.expect_acknowledged("side by side again", part_s, SENT)
        ground.note("The previous release has ended")
    await ground.caught_up("after the previous release")


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False, timeout=GIT_S)  # noqa: S607


DISTURBANCE = Disturbance(
    "release",
    "a release under load: the previous one, its migration, both side by side, this one, and back to the previous one",
    60.0,
    disturb,
    open_previous_stack,
    missing=missing,
)
