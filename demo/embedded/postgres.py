"""Postgres as a child process."""

import asyncio
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP
from typing import Self

import asyncpg

from demo.embedded.binaries import find_postgres_binaries
from demo.embedded.child import START_S, STOP_S, Child, children_of, is_alive, poll_until, tail
from demo.embedded.errors import EmbeddedError, ServerFailedError
from demo.embedded.ports import free_port
from demo.embedded.server_user import may_enter, readable_copy, server_user


class EmbeddedPostgres:
    """A Postgres server in `directory`, which keeps its data and its password over a restart.

    As root it runs as the system user `nobody`, which must have access to `directory`: use `reachable_directory` for
    data that stay, `temporary_directory` for other data. With `fsync=False` commits survive the end of the server, and
    not a crash of the machine.
    """

    def __init__(self, directory: Path, *, fsync: bool = True, max_connections: int = 100) -> None:
        self.directory = directory.absolute()
        self.port = free_port()
        self._data = self.directory / "data"
        self._password = self.directory / "password"
        self._log = self.directory / "postgres.log"
        self._user = server_user()
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
        """Process id of the postmaster."""
        if self._child is None:
            raise EmbeddedError("Postgres has not been started")
        return self._child.pid

    def url(self, database: str) -> str:
        """Return the URL of a database. The password exists after the first start."""
        return f"postgresql://nodrop:{self._password.read_text()}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and return when it accepts connections; does nothing if it runs.

        Raises:
            BinariesMissingError: there is no Postgres on this machine.
            ServerFailedError: it did not start; the message has the end of its log.
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
        """Shut it down fast: close connections, write a checkpoint."""
        if self._child and self._is_running():
            self._child.end(SIGINT)

    def kill(self) -> None:
        """Send SIGKILL to all its processes and return when they have ended."""
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

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes, and continue them afterwards: meanwhile it accepts connections and answers none."""
        self._send_all(SIGSTOP)
        try:
            yield
        finally:
            self._send_all(SIGCONT)

    def _send_all(self, signum: int) -> None:
        for pid in (self.pid, *children_of(self.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same data and port."""
        self.stop()
        self.start()

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template` if given, to which no session may be connected."""
        source = f" TEMPLATE {_identifier(template)}" if template else ""
        self._execute(f"CREATE DATABASE {_identifier(name)}{source}")

    def drop_database(self, name: str) -> None:
        """Drop a database and the sessions connected to it."""
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
            raise ServerFailedError(f"root runs Postgres as nobody, which has no access to {self.directory.parent}")
        os.chown(self.directory, *self._user)

    def _create_cluster(self, initdb: Path) -> None:
        """Create the cluster aside and rename it: an interrupted initdb leaves no partial cluster in place."""
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._password.touch(mode=0o600)
        self._password.write_text(secrets.token_hex(16))
        if self._user:
            os.chown(self._password, *self._user)
        # Without LANG in the environment and without these two, databases would be SQL_ASCII.
        encoding = ("--encoding=UTF8", "--locale=C")
        access = ("--username=nodrop", "--auth=scram-sha-256", f"--pwfile={self._password}")
        # Not synced: a new cluster holds no data yet.
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
        """Read postmaster.pid as `pg_ctl` does: line 1 is the process, line 8 its state."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 -- line 8

    def _execute(self, sql: str) -> None:
        """Run one statement outside a transaction, in a thread: the caller may run an event loop."""

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
