"""Accounts at the channels. Their settings and credentials are sealed as one value and never stored in the clear."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from core.account import AccountConfig
from core.errors import ConfigurationError
from storage.postgres.database import Database
from storage.sealing import Sealer

_UPSERT = """
INSERT INTO accounts (name, channel, sealed) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET channel = $2, sealed = $3, enabled = true, updated_at = now()
RETURNING created_at = updated_at"""
_ALL = "SELECT name, sealed, enabled, world FROM accounts ORDER BY name"
_LIST = "SELECT name, channel, enabled, created_at, updated_at FROM accounts ORDER BY name"
# Only over the very value that was opened: an account that was replaced meanwhile is under the first key already.
_RESEAL = "UPDATE accounts SET sealed = $3, updated_at = now() WHERE name = $1 AND sealed = $2"
_SET_WORLD = """
UPDATE accounts SET world = CASE WHEN name = $1 THEN $2 ELSE world END, collisions_checked_at = NULL
 WHERE name = $1 OR world = $2"""
_BESIDE = """
SELECT b.name FROM accounts a JOIN accounts b ON b.world = a.world AND b.name <> a.name
 WHERE a.name = $1 ORDER BY b.name"""
# The rows of both are few beside those that are over: pending has one for each open payment, and refunds_due those that
# are under way, which the condition on due_at has the planner take.
_OPEN_WORK = """
SELECT (SELECT count(*) FROM (SELECT FROM pending WHERE channel_account = $1 LIMIT $2) AS p) AS payments,
       (SELECT count(*) FROM (SELECT FROM refunds
                               WHERE status IN ('requested', 'processing') AND due_at > '-infinity'
                                 AND channel_account = $1 LIMIT $2) AS r) AS refunds"""
# An account with a payment cannot change its world: its payments are where they were made.
_USED_WORLD = """
SELECT world FROM accounts a
 WHERE a.name = $1 AND EXISTS (SELECT FROM payments p WHERE p.channel_account = a.name)"""
_ENABLE = "UPDATE accounts SET enabled = $2, updated_at = now() WHERE name = $1 AND enabled <> $2"


class SealedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it is stored. `world` is None until a process has opened it."""

    name: str
    sealed: bytes
    enabled: bool
    world: str | None = None


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an account that may be shown."""

    name: str
    channel: str
    enabled: bool
    created_at: datetime
    updated_at: datetime


class OpenWork(msgspec.Struct, frozen=True, kw_only=True):
    """Payments of an account that are still queried, and refunds under way."""

    payments: int
    refunds: int


async def put_account(db: Database, sealer: Sealer, account: AccountConfig) -> bool:
    """Insert or replace it, and enable it. True when it is new."""
    sealed = sealer.seal(msgspec.json.encode(account), belongs_to=_belongs_to(account.name))
    return bool(await db.fetchval(_UPSERT, account.name, account.channel, sealed))


async def replace_account(db: Database, sealer: Sealer, row: SealedAccount, account: AccountConfig) -> bool:
    """Put it in the place of the one that was read; whether it is on stays. False: that one is not there any more."""
    sealed = sealer.seal(msgspec.json.encode(account), belongs_to=_belongs_to(row.name))
    return await db.execute(_RESEAL, row.name, row.sealed, sealed) == 1


async def sealed_accounts(db: Database) -> list[SealedAccount]:
    """Every account as it is stored; also those that are switched off, whose payments must still become definite."""
    return [SealedAccount(**dict(row)) for row in await db.fetch(_ALL)]


def open_account(row: SealedAccount, sealer: Sealer) -> AccountConfig:
    """One account, opened.

    Raises:
        ConfigurationError: no master key opens it, or another version of nodrop stored it.
    """
    plain = sealer.open(row.sealed, belongs_to=_belongs_to(row.name))
    try:
        return replace(msgspec.json.decode(plain, type=AccountConfig), enabled=row.enabled)
    except msgspec.ValidationError:
        raise ConfigurationError(f"account {row.name} was stored by another version: add it again") from None


async def get_accounts(db: Database, sealer: Sealer) -> list[AccountConfig]:
    """All of them, opened. Raises as `open_account`, for the first that does not open."""
    return [open_account(row, sealer) for row in await sealed_accounts(db)]


async def reseal_accounts(db: Database, sealer: Sealer) -> list[str]:
    """Seal all of them under the first master key. Every one is opened before the first is written.

    Raises:
        ConfigurationError: one does not open.
    """
    rows = await sealed_accounts(db)
    opened = [(row, sealer.open(row.sealed, belongs_to=_belongs_to(row.name))) for row in rows]
    for row, plain in opened:
        await db.execute(_RESEAL, row.name, row.sealed, sealer.seal(plain, belongs_to=_belongs_to(row.name)))
    return [row.name for row in rows]


async def list_accounts(db: Database) -> list[AccountRow]:
    """All of them, without secrets."""
    return [AccountRow(**dict(row)) for row in await db.fetch(_LIST)]


async def enable_account(db: Database, name: str, *, enabled: bool) -> bool:
    """Switch it on or off. False: there is none with this name, or it is so already."""
    return await db.execute(_ENABLE, name, enabled) == 1


async def count_open_work(db: Database, name: str, *, limit: int) -> OpenWork:
    """Counts of what is open at an account, up to `limit` each."""
    row = await db.fetchrow(_OPEN_WORK, name, limit)
    assert row is not None, "sums are one row"
    return OpenWork(**dict(row))


async def find_used_world(db: Database, name: str) -> str | None:
    """The world of an account that has payments; None: it has none, or its world is not known."""
    world: str | None = await db.fetchval(_USED_WORLD, name)
    return world


async def find_names_beside(db: Database, name: str) -> list[str]:
    """Other names in the world of this account, which may be of the same merchant."""
    return [row["name"] for row in await db.fetch(_BESIDE, name)]


async def set_world(db: Database, name: str, world: str) -> None:
    """Store the world of an account. The transactions of all accounts in it are to be compared once more."""
    await db.execute(_SET_WORLD, name, world)


def _belongs_to(name: str) -> str:
    """The name that an account's sealed value is bound to."""
    return f"account {name}"
