"""Debian's Postgres with TLS, and nothing but TLS: the server in the wheel has none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL
from socket import create_connection

from demo.embedded import Child, free_port
from demo.embedded.child import User
from demo.embedded.server_user import hand_over, server_user
from tests.storage.tls_server import PASSWORD, Certificate

HBA = "hostssl all all 127.0.0.1/32 scram-sha-256\n"
START_S = 120.0


def find_debian_postgres() -> Path | None:
    """The directory of Debian's binaries; None where there are none."""
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)


@contextmanager
def tls_postgres(directory: Path, binaries: Path, certificate: Certificate) -> Iterator[int]:
    """The port of 127.0.0.1 on which it takes `nodrop` with `PASSWORD` to the database `postgres`, with TLS alone.

    `directory` is where `nobody` may go, as whom it runs when we are root.
    """
    user = server_user()
    directory.mkdir(mode=0o700)
    data, port = directory / "data", free_port()
    _initialize(directory, data, binaries, user)
    (data / "pg_hba.conf").write_text(HBA)
    _write_key(data, certificate, user)
    options = [
        "--listen_addresses=127.0.0.1",
        f"--port={port}",
        "--unix_socket_directories=",
        "--fsync=off",
        "--ssl=on",
        "--ssl_cert_file=server.crt",
        "--ssl_key_file=server.key",
    ]
    child = _spawn(directory, [binaries / "postgres", "-D", data, *options], user)
    try:
        child.await_ready(lambda: _is_ready(data, port), "Postgres with TLS")
        yield port
    finally:
        child.end(SIGINT)


def _initialize(directory: Path, data: Path, binaries: Path, user: User | None) -> None:
    password = directory / "password"
    password.write_text(PASSWORD)
    if user is not None:
        hand_over(directory, user)
    options = ["--no-sync", "--encoding=UTF8", "--locale=C", "--username=nodrop", "--auth=scram-sha-256"]
    child = _spawn(directory, [binaries / "initdb", "-D", data, *options, f"--pwfile={password}"], user)
    try:
        assert child.wait(START_S) == 0, child.log.read_text()
    finally:
        child.end(SIGKILL)


def _write_key(data: Path, certificate: Certificate, user: User | None) -> None:
    """Postgres starts with no key that others may read."""
    for name, text in (("server.crt", certificate.pem), ("server.key", certificate.key_pem)):
        path = data / name
        path.touch(mode=0o600)
        path.write_text(text)
        if user is not None:
            hand_over(path, user)


def _spawn(directory: Path, argv: list[str | Path], user: User | None) -> Child:
    return Child(argv, log=directory / "postgres.log", cwd=directory, death_signal=SIGINT, user=user)


def _is_ready(data: Path, port: int) -> bool:
    try:
        is_up = (data / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
        create_connection(("127.0.0.1", port), timeout=1).close()
    except (OSError, IndexError):
        return False
    return is_up
