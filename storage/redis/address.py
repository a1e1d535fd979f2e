"""The address of Redis: `REDIS_URL` in the forms that platforms use, with `REDIS_TLS` and the sentinels."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import msgspec

from core.errors import ConfigurationError
from core.settings import Settings
from storage.tls import TlsMode, is_loopback, tls_mode

SENTINELS_MAX = 10
_DATABASE_DIGITS_MAX = 4


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Address of Redis. With `sentinels` (host and port of each) these name the master; host and port are not used."""

    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    tls: TlsMode
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_master: str = ""
    sentinel_password: str | None = None

    def __repr__(self) -> str:
        """Without the passwords."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.sentinels) or f"{self.host}:{self.port}"
        return f"RedisAddress({hosts}/{self.database}, tls={self.tls!r})"


def redis_address(settings: Settings) -> RedisAddress:
    """The Redis of `REDIS_URL`. Raises as `read_redis_address`."""
    return read_redis_address(
        settings.redis_url,
        settings.redis_tls,
        sentinels=settings.redis_sentinels,
        sentinel_master=settings.redis_sentinel_master,
        sentinel_password=settings.redis_sentinel_password,
    )


def read_redis_address(
    url: str, tls: str = "", *, sentinels: str = "", sentinel_master: str = "mymaster", sentinel_password: str = ""
) -> RedisAddress:
    """`REDIS_URL` with `REDIS_TLS` and, for Sentinel, `REDIS_SENTINELS` (host:port,host:port) beside it.

    User, password and database come from the URL in either case: `/2` or `?db=2`, percent-encoded where needed. The
    rest of its query is ignored, so nothing there weakens TLS. rediss:// is `verify-full` unless `REDIS_TLS` is set; a
    mode with TLS means TLS, also for redis://. Connections to sentinels use the same mode.

    Raises:
        ConfigurationError: names the variable and what to set.
    """
    parts = _split(url)
    port = _port(parts, "REDIS_URL")
    sentinel_addresses = _read_sentinels(sentinels)
    host = parts.hostname or ""
    is_tls = parts.scheme == "rediss"
    # The sentinels decide which server gets the password, so one that is not loopback forbids plaintext by default.
    hosts = [name for name, _ in sentinel_addresses] or [host]
    remote = next((name for name in hosts if not is_loopback(name)), hosts[0])
    mode = tls_mode(
        tls or ("verify-full" if is_tls else ""), variable="REDIS_TLS", host=remote, default_plain=not is_tls
    )
    if is_tls and mode.context is None:
        raise ConfigurationError(
            "REDIS_TLS: REDIS_URL begins with rediss://, so the server takes no plaintext; set it to verify-full, "
            "ca:<PEM text or path>, pin:<SHA-256 of the certificate> or encrypt-only"
        )
    return RedisAddress(
        host=host,
        port=port,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=_database(parts),
        tls=mode,
        sentinels=sentinel_addresses,
        sentinel_master=sentinel_master,
        sentinel_password=sentinel_password or None,
    )


# -- reading the URL ---------------------------------------------------------------------------------------------------


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme in ("redis", "rediss") and parts.hostname and not parts.fragment:
        return parts
    raise ConfigurationError(
        "REDIS_URL: set it to rediss://user:password@host:6379/0, with / # ? @ in the password percent-encoded"
    )


def _port(parts: SplitResult, variable: str) -> int:
    try:
        return parts.port or 6379
    except ValueError:
        raise ConfigurationError(f"{variable}: its port is not a number from 1 to 65535") from None


def _database(parts: SplitResult) -> int:
    text = parse_qs(parts.query).get("db", [unquote(parts.path).strip("/")])[-1] or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= _DATABASE_DIGITS_MAX):
        raise ConfigurationError("REDIS_URL: its path is the number of a database, usually /0")
    return int(text)


def _read_sentinels(text: str) -> tuple[tuple[str, int], ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    addresses = []
    for name in names[:SENTINELS_MAX]:
        parts = urlsplit(f"//{name}")
        if not parts.hostname or parts.path or parts.username:
            raise ConfigurationError("REDIS_SENTINELS: set it to host:26379,host:26379,host:26379")
        addresses.append((parts.hostname, _port(parts, "REDIS_SENTINELS")))
    return tuple(addresses)
