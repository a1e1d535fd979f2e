"""The address of Postgres: `DATABASE_URL` as a PaaS hands it out."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from core.errors import ConfigurationError
from storage.tls import TlsMode, tls_mode


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Address of Postgres. `tls` is settled; connection parameters that poolers and drivers add to URLs are dropped."""

    host: str
    port: int
    user: str
    password: str | None
    database: str
    tls: TlsMode

    def __repr__(self) -> str:
        """Without the password."""
        return f"Address({self.host}:{self.port}/{self.database}, tls={self.tls!r})"


def read_address(url: str, tls: str, *, variable: str = "DATABASE_URL") -> Address:
    """`DATABASE_URL` with `DATABASE_TLS`. `sslmode`, `channel_binding` and other parameters of other
    drivers are ignored.

    Raises:
        ConfigurationError: names the variable and what to set.
    """
    form = f"{variable}: set it to postgres://user:password@host:5432/database, with what is special percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:  # its text may hold the password
        raise ConfigurationError(form) from None
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise ConfigurationError(form)
    query = dict(parse_qsl(parts.query))
    host = parts.hostname or query.get("host") or "127.0.0.1"
    return Address(
        host=unquote(host),
        port=port,
        user=unquote(parts.username or query.get("user") or "postgres"),
        password=None if parts.password is None else unquote(parts.password),
        database=unquote(parts.path.lstrip("/")),
        tls=tls_mode(tls, variable="DATABASE_TLS", host=host, default_plain=False),
    )
