"""The identity of the deployment: one row, made by a migration."""

from __future__ import annotations

import asyncpg

from storage.postgres.database import Database

_IDENTITY = "SELECT id::text FROM identity"


async def find_identity(db: Database) -> str | None:
    """The deployment's id; None before its migration was applied. Raises DatabaseUnavailable."""
    try:
        identity: str | None = await db.fetchval(_IDENTITY)
    except asyncpg.UndefinedTableError:
        return None
    return identity
