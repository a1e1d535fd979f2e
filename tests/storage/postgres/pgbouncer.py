"""Debian's pgbouncer in transaction mode, in front of a Postgres of the tests."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from urllib.parse import urlsplit

from demo.embedded import Child, free_port
from demo.embedded.server_user import server_user

SESSIONS = 2
"""Sessions of the server for each database: fewer than clients, so that each gets another's."""


def find_pgbouncer() -> str | None:
    """Its path; Debian keeps it where only root looks."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def pgbouncer_version() -> tuple[int, ...]:
    """(1, 18, 0), or () where there is none."""
    found = find_pgbouncer()
    if found is None:
        return ()
    text = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in re.findall(r"\d+", text.splitlines()[0]))


@contextmanager
def pooled(database_url: str, directory: Path, *options: str) -> Iterator[str]:
    """The URL of this database through a pgbouncer with these lines in its configuration."""
    binary, user, port, parts = find_pgbouncer(), server_user(), free_port(), urlsplit(database_url)
    assert binary is not None, "only tests that have looked for it may ask for it"
    directory.mkdir(mode=0o700)
    configuration = directory / "pgbouncer.ini"
    configuration.touch(mode=0o600)
    configuration.write_text(
        "\n".join(
            (
                "[databases]",
                f"* = host=127.0.0.1 port={parts.port} user={parts.username} password={parts.password}",
                "[pgbouncer]",
                f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
                f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {SESSIONS}",
                *options,
            )
        )
    )
    if user:
        os.chown(directory, *user)
        os.chown(configuration, *user)
    child = Child((binary, configuration), log=directory / "log", cwd=directory, user=user)
    try:
        child.await_ready(lambda: _is_open(port), "pgbouncer")
        yield f"postgres://client@127.0.0.1:{port}{parts.path}"
    finally:
        child.end(SIGKILL)


def _is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
