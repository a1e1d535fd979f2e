"""Postgres as a child process."""

import asyncio
import os
import re
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP
from typing import Self

import asyncpg

from demo.embedded.binaries import find_postgres_binaries
from demo.embedded.child import START_S, STOP_S, Child, children_of, is_alive, poll_until, tail
from demo.embedded.errors import EmbeddedError, ServerFailedError
from demo.embedded.ports import free_port
from demo.embedded.server_user import may_enter, nobody, readable_copy


class EmbeddedPostgres:
    """One Postgres below `directory`, which keeps its data and its password from one start to the next.

    As root it runs as `nobody`, who must be able to reach `directory`: take `reachable_directory` for data that last,
    `temporary_directory` for others. With `fsync=False` commits survive the server's death, but not the machine's.
    """

    def __init__(self, directory: Path, *, fsync: bool = True, max_connections: int = 100) -> None:
        self.directory = directory.absolute()
        self.port = free_port()
        self._data = self.directory / "data"
        self._password = self.directory / "password"
        self._log = self.directory / "postgres.log"
        self._user = nobody()
        self._options = (
            "--listen_addresses=127.0.0.1",
            f"--port={self.port}",
            "--unix_socket_directories=",
            f"--max_connections={max_connections}",
            f"--fsync={'on' if fsync else 'off'}",
            "--timezone=UTC",
        )
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The postmaster's."""
        if self._child is None:
            raise EmbeddedError("Postgres has not been started")
        return self._child.pid

    def url(self, database: str) -> str:
        """From the first start on."""
        return f"postgresql://nodrop:{self._password.read_text()}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Return when it takes connections; nothing happens if it already runs.

        Raises:
            BinariesMissingError: there is no Postgres on this machine.
            ServerFailedError: it did not come up; the message holds the end of its log.
        """
        if self._is_running():
            return
        binaries = find_postgres_binaries()
        self._prepare_directory()
        if self._user:
            binaries = readable_copy(binaries, self._user, self.directory)
        if not self._data.exists():
            self._create_cluster(binaries / "initdb")
        # The parent's death is SIGINT, Postgres's fast shutdown: it waits for no client and leaves no shared memory.
        self._child = self._spawn(binaries / "postgres", "-D", self._data, *self._options)
        self._child.await_ready(self._is_ready, "Postgres")

    def stop(self) -> None:
        """Fast shutdown: connections are cut, a checkpoint is written."""
        if self._child and self._is_running():
            self._child.end(SIGINT)

    def kill(self) -> None:
        """SIGKILL all its processes, as when the machine's memory runs out; return when they are gone."""
        if self._child is None or not self._is_running():
            return
        self._child.send(SIGSTOP)  # or it could start another process between our look and our kill
        family = children_of(self._child.pid)
        self._child.send(SIGKILL)
        for pid in filter(is_alive, family):
            os.kill(pid, SIGKILL)
        self._child.wait(STOP_S)
        # The next start is refused while one of them still holds the old shared memory.
        poll_until(lambda: not any(map(is_alive, family)), STOP_S)

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same data and port."""
        self.stop()
        self.start()

    def create_database(self, name: str, template: str | None = None) -> None:
        """A new database; a copy of `template`, to which nobody may be connected, if one is named."""
        source = f" TEMPLATE {_identifier(template)}" if template else ""
        self._execute(f"CREATE DATABASE {_identifier(name)}{source}")

    def drop_database(self, name: str) -> None:
        """Gone, whoever is still connected to it."""
        self._execute(f"DROP DATABASE IF EXISTS {_identifier(name)} WITH (FORCE)")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._user is None:
            return
        if not may_enter(self.directory.parent, self._user):
            raise ServerFailedError(f"root runs Postgres as nobody, who may not enter {self.directory.parent}")
        os.chown(self.directory, *self._user)

    def _create_cluster(self, initdb: Path) -> None:
        """Made aside and moved into place, so that what a broken-off initdb leaves is never taken for a cluster."""
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._password.touch(mode=0o600)
        self._password.write_text(secrets.token_hex(16))
        if self._user:
            os.chown(self._password, *self._user)
        # Without LANG in the environment and without these two, databases would be SQL_ASCII.
        encoding = ("--encoding=UTF8", "--locale=C")
        access = ("--username=nodrop", "--auth=scram-sha-256", f"--pwfile={self._password}")
        # Not synced: if the machine dies in this very second there is nothing in it yet to lose.
        child = self._spawn(initdb, "-D", unfinished, "--no-sync", *encoding, *access)
        poll_until(lambda: child.exit_code is not None, START_S)
        if child.exit_code != 0:
            child.end(SIGKILL)
            raise ServerFailedError(f"initdb failed; the end of {self._log}:\n{tail(self._log)}")
        unfinished.rename(self._data)

    def _spawn(self, *argv: str | Path) -> Child:
        return Child(argv, log=self._log, cwd=self.directory, death_signal=SIGINT, user=self._user)

    def _is_running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def _is_ready(self) -> bool:
        """As `pg_ctl` finds out: the first line of postmaster.pid is the process, the eighth its state."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 -- line 8

    def _execute(self, sql: str) -> None:
        """Run one statement outside a transaction, in a thread: the caller may have an event loop running."""

        async def execute() -> None:
            connection = await asyncpg.connect(self.url("postgres"), ssl=False, timeout=START_S)
            try:
                await connection.execute(sql, timeout=START_S)
            finally:
                await connection.close(timeout=STOP_S)

        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(lambda: asyncio.run(execute())).result()


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError(f"a database is not called {name!r}: a-z, 0-9 and _ only, 63 at most")
    return f'"{name}"'
