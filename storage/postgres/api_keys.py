"""API keys of the merchant's backends: 256 random bits, of which only the SHA-256 is kept."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from secrets import token_hex, token_urlsafe

import msgspec

from storage.postgres.database import Database

PREFIX = "ndk_"
_INSERT = "INSERT INTO api_keys (id, name, digest) VALUES ($1, $2, $3)"
_FIND = "SELECT id, name FROM api_keys WHERE digest = $1 AND revoked_at IS NULL"
_LIST = "SELECT id, name, created_at, revoked_at FROM api_keys ORDER BY created_at"
_REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is valid now."""

    id: str
    name: str


class ApiKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a key that may be shown."""

    id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None


def digest_of(key: str) -> bytes:
    """The digest that is stored and looked up instead of the key."""
    return sha256(key.encode()).digest()


async def create_api_key(db: Database, name: str) -> tuple[ApiKey, str]:
    """A new key and its text, which is shown this once and cannot be read again."""
    key = ApiKey(id=f"key_{token_hex(6)}", name=name)
    text = PREFIX + token_urlsafe(32)
    await db.execute(_INSERT, key.id, key.name, digest_of(text))
    return key, text


async def find_api_key(db: Database, digest: bytes) -> ApiKey | None:
    """The key with this digest, unless it was revoked."""
    row = await db.fetchrow(_FIND, digest)
    return None if row is None else ApiKey(**dict(row))


async def list_api_keys(db: Database) -> list[ApiKeyRow]:
    """All of them, oldest first."""
    return [ApiKeyRow(**dict(row)) for row in await db.fetch(_LIST)]


async def revoke_api_key(db: Database, key_id: str) -> bool:
    """From now on (10 s at the latest, in every process) it opens nothing. False: there is no such valid key."""
    return await db.execute(_REVOKE, key_id) == 1
