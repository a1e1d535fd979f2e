"""Clusters of Postgres that are copies of one, which has the database of a stack with every migration applied: initdb
takes most of a second of CPU, the migrations another one, a copy a tenth of that.
"""

import asyncio
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from demo.embedded import EmbeddedPostgres, temporary_directory
from demo.stack import DATABASE
from storage.postgres.migrate import migrate

Creating = Callable[[EmbeddedPostgres, Path], None]


def place_of_run(factory: pytest.TempPathFactory) -> Path:
    """Folder that all processes of this run of pytest share."""
    home = factory.getbasetemp()
    return home.parent if "PYTEST_XDIST_WORKER" in os.environ else home


@contextmanager
def copied_clusters(home: Path) -> Iterator[None]:
    """Let every new server in this block have a copy of one cluster and its password. For tests that start many
    servers, and do not test how one is created. Processes that name the same `home` share the cluster.
    """
    create_cluster, create_database = EmbeddedPostgres._create_cluster, EmbeddedPostgres.create_database
    original = home / "cluster"

    def copy_cluster(server: EmbeddedPostgres, _initdb: Path) -> None:
        with _alone(home):
            if not original.exists():
                _create(original, create_cluster)
        _copy(original, server.directory)

    def create_other_database(server: EmbeddedPostgres, name: str, template: str | None = None) -> None:
        if name != DATABASE:
            create_database(server, name, template)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddedPostgres, "_create_cluster", copy_cluster)
        patch.setattr(EmbeddedPostgres, "create_database", create_other_database)
        yield


def hash_once(server: EmbeddedPostgres) -> None:
    """Let each of the ten thousand connections of the tests prove the password by one hash; usual are 4096, twice."""
    password = (server.directory / "password").read_text()
    with suppress(asyncpg.UndefinedObjectError):  # Postgres 15 and older have no such setting
        server._execute(f"SET scram_iterations = 1; ALTER ROLE nodrop PASSWORD '{password}'")


def _create(original: Path, create_cluster: Creating) -> None:
    """Create the cluster that is copied, with a stack's database."""
    with temporary_directory() as reachable, ThreadPoolExecutor(max_workers=1) as thread:
        server = EmbeddedPostgres(reachable / "postgres", fsync=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EmbeddedPostgres, "_create_cluster", create_cluster)
            server.start()
        try:
            hash_once(server)
            server._execute(f"CREATE DATABASE {DATABASE}")
            # In a thread: the caller may run an event loop.
            thread.submit(lambda: asyncio.run(migrate(server.url(DATABASE)))).result()
        finally:
            server.stop()
        unfinished = original.with_suffix(".unfinished")
        unfinished.mkdir(mode=0o700)
        _copy(server.directory, unfinished)
        unfinished.rename(original)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["/bin/cp", "-a", source / "data", source / "password", target], check=True)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep the other processes of a run out of this block."""
    with (home / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
