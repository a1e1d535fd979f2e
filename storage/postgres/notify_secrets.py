"""Notification secrets of single hosts, sealed as one value for each host. At most two of a host sign at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from core.errors import ConfigurationError
from storage.postgres.database import Database
from storage.sealing import Sealer

SECRETS_MAX = 2

_ALL = "SELECT host, sealed FROM notify_secrets ORDER BY host"
_LIST = "SELECT host, secrets, created_at, updated_at FROM notify_secrets ORDER BY host"
_INSERT = "INSERT INTO notify_secrets (host, secrets, sealed) VALUES ($1, $2, $3) ON CONFLICT (host) DO NOTHING"
# Only over the very value that was opened: two people who rotate at once do not lose a secret.
_UPDATE = "UPDATE notify_secrets SET secrets = $2, sealed = $3, updated_at = now() WHERE host = $1 AND sealed = $4"
_RESEAL = "UPDATE notify_secrets SET sealed = $2 WHERE host = $1 AND sealed = $3"
_DELETE = "DELETE FROM notify_secrets WHERE host = $1"


class SealedSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of a host as they are stored."""

    host: str
    sealed: bytes


class HostSecretsRow(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a host's secrets that may be shown. `secrets` is how many sign."""

    host: str
    secrets: int
    created_at: datetime
    updated_at: datetime


async def sealed_secrets(db: Database) -> list[SealedSecrets]:
    """Those of all hosts."""
    return [SealedSecrets(**dict(row)) for row in await db.fetch(_ALL)]


def open_secrets(row: SealedSecrets, sealer: Sealer) -> tuple[str, ...]:
    """The secrets of one host, newest first. Raises ConfigurationError if no master key opens them."""
    plain = sealer.open(row.sealed, belongs_to=_belongs_to(row.host))
    return msgspec.json.decode(plain, type=tuple[str, ...])


async def read_secrets(db: Database, sealer: Sealer) -> Mapping[str, tuple[str, ...] | None]:
    """Secrets by host, newest first; None where no master key opens them."""
    return {row.host: _secrets_or_none(row, sealer) for row in await sealed_secrets(db)}


async def put_secrets(
    db: Database, sealer: Sealer, host: str, secrets: Sequence[str], *, over: SealedSecrets | None
) -> bool:
    """Store them in the place of those that were read; `over` None: there are none. False: others are there by now."""
    sealed = sealer.seal(msgspec.json.encode(secrets), belongs_to=_belongs_to(host))
    if over is None:
        return await db.execute(_INSERT, host, len(secrets), sealed) == 1
    return await db.execute(_UPDATE, host, len(secrets), sealed, over.sealed) == 1


async def delete_secrets(db: Database, host: str) -> bool:
    """From now on NOTIFY_SECRETS signs for this host. False: it has none of its own."""
    return await db.execute(_DELETE, host) == 1


async def list_hosts(db: Database) -> list[HostSecretsRow]:
    """All hosts with secrets of their own, without these."""
    return [HostSecretsRow(**dict(row)) for row in await db.fetch(_LIST)]


async def reseal_secrets(db: Database, sealer: Sealer) -> list[str]:
    """Seal those of all hosts under the first master key; every one is opened before the first is written.

    Raises:
        ConfigurationError: one does not open.
    """
    opened = [(row, sealer.open(row.sealed, belongs_to=_belongs_to(row.host))) for row in await sealed_secrets(db)]
    for row, plain in opened:
        await db.execute(_RESEAL, row.host, sealer.seal(plain, belongs_to=_belongs_to(row.host)), row.sealed)
    return [row.host for row, _ in opened]


def _secrets_or_none(row: SealedSecrets, sealer: Sealer) -> tuple[str, ...] | None:
    try:
        return open_secrets(row, sealer)
    except ConfigurationError:
        return None


def _belongs_to(host: str) -> str:
    """The name that a host's sealed value is bound to."""
    return f"notification secrets of {host}"
