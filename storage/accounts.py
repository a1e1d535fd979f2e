"""Accounts at the channels. Their settings and credentials are sealed as one value and never stored in the clear."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from core.account import AccountConfig
from storage.database import Database
from storage.sealing import Sealer

_UPSERT = """
INSERT INTO accounts (name, channel, sealed) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET channel = $2, sealed = $3, enabled = true, updated_at = now()
RETURNING created_at = updated_at"""
_ALL = "SELECT name, sealed, enabled FROM accounts ORDER BY name"
_LIST = "SELECT name, channel, enabled, created_at, updated_at FROM accounts ORDER BY name"
_ENABLE = "UPDATE accounts SET enabled = $2, updated_at = now() WHERE name = $1"


class AccountRow(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of an account."""

    name: str
    channel: str
    enabled: bool
    created_at: datetime
    updated_at: datetime


async def put_account(db: Database, sealer: Sealer, account: AccountConfig) -> bool:
    """Insert or replace it, and enable it. True when it is new."""
    sealed = sealer.seal(msgspec.json.encode(account), belongs_to=f"account {account.name}")
    return bool(await db.fetchval(_UPSERT, account.name, account.channel, sealed))


async def get_accounts(db: Database, sealer: Sealer) -> list[AccountConfig]:
    """Every account, opened; also those that are switched off, whose payments still have to become definite.

    Raises:
        ConfigurationError: one does not open under `NODROP_MASTER_KEYS`.
    """
    rows = await db.fetch(_ALL)
    opened = [(sealer.open(row["sealed"], belongs_to=f"account {row['name']}"), row["enabled"]) for row in rows]
    return [replace(msgspec.json.decode(plain, type=AccountConfig), enabled=enabled) for plain, enabled in opened]


async def list_accounts(db: Database) -> list[AccountRow]:
    """All of them, without secrets."""
    return [AccountRow(**dict(row)) for row in await db.fetch(_LIST)]


async def enable_account(db: Database, name: str, *, enabled: bool) -> bool:
    """Switch it on or off. False: there is none with this name."""
    return await db.execute(_ENABLE, name, enabled) == 1
