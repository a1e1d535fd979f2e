"""API keys of the merchant's backends and of people: 256 random bits, of which only the SHA-256 is kept.

A key may be an operator's: what it does that operator does, within the rights of the role, and it ends
with the operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from secrets import token_hex, token_urlsafe

import msgspec

from core.operators import Role
from storage.postgres.database import Database

PREFIX = "ndk_"
_INSERT = """
INSERT INTO api_keys (id, name, digest, scopes, expires_at, requests_per_minute, operator)
VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), $6, $7)"""
# A key of a disabled operator opens nothing, and opens again once the operator is enabled.
_FIND = """
SELECT k.id, k.name, k.scopes, k.requests_per_minute, k.operator, o.role,
       extract(epoch FROM k.expires_at - now())::float8 AS expires_in_s
  FROM api_keys k LEFT JOIN operators o ON o.name = k.operator
 WHERE k.digest = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
   AND o.disabled_at IS NULL"""
_LIST = """
SELECT k.id, k.name, k.scopes, k.requests_per_minute, k.operator, k.created_at, k.expires_at, k.last_used_at,
       k.revoked_at,
       k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND o.disabled_at IS NULL AS valid
  FROM api_keys k LEFT JOIN operators o ON o.name = k.operator
 ORDER BY k.created_at"""
_REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL"
# Several processes write the uses that each has seen: the latest stays.
_SET_USED = """
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, now() - make_interval(secs => u.age_s))
  FROM unnest($1::text[], $2::float8[]) AS u(id, age_s) WHERE k.id = u.id"""


class Scope(StrEnum):
    """A right of a key. None includes another."""

    ORDERS = "orders"
    READ = "read"
    METRICS = "metrics"
    OPERATE = "operate"


ALL_SCOPES = frozenset(Scope)

acting_key: ContextVar[str | None] = ContextVar("acting_key", default=None)
"""Id of the API key whose request is answered; the door writes it into the history of the order that changes."""

acting_operator: ContextVar[str | None] = ContextVar("acting_operator", default=None)
"""The operator whose key that is; None: nobody's."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is valid now, for `expires_in_s` more seconds. `operator` None: it is nobody's.

    Scopes that this version does not know are left out, and `operate` where the operator's role does not act.
    """

    id: str
    name: str
    scopes: frozenset[Scope] = ALL_SCOPES
    requests_per_minute: int | None = None
    operator: str | None = None
    expires_in_s: float | None = None


class ApiKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a key that may be shown. `valid`: neither revoked nor expired, nor a disabled operator's."""

    id: str
    name: str
    scopes: list[str]
    requests_per_minute: int | None
    operator: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    valid: bool


def digest_of(key: str) -> bytes:
    """The digest that is stored and looked up instead of the key."""
    return sha256(key.encode()).digest()


async def create_api_key(
    db: Database,
    name: str,
    *,
    scopes: Iterable[Scope] = ALL_SCOPES,
    expires_in_s: float | None = None,
    requests_per_minute: int | None = None,
    operator: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is shown this once and cannot be read again. `operator` is the name of one who is
    there.
    """
    key = ApiKey(
        id=f"key_{token_hex(6)}",
        name=name,
        scopes=frozenset(scopes),
        requests_per_minute=requests_per_minute,
        operator=operator,
        expires_in_s=expires_in_s,
    )
    text = PREFIX + token_urlsafe(32)
    in_order = [scope for scope in Scope if scope in key.scopes]
    await db.execute(_INSERT, key.id, key.name, digest_of(text), in_order, expires_in_s, requests_per_minute, operator)
    return key, text


async def find_api_key(db: Database, digest: bytes) -> ApiKey | None:
    """The key with this digest, unless it was revoked, has expired by Postgres's clock, or its operator is disabled."""
    row = await db.fetchrow(_FIND, digest)
    if row is None:
        return None
    fields = dict(row)
    role = fields.pop("role")
    scopes = {scope for scope in Scope if scope in fields["scopes"]}
    if role is not None and not Role(role).may(Role.OPERATOR):
        scopes.discard(Scope.OPERATE)
    return ApiKey(**{**fields, "scopes": frozenset(scopes)})


async def list_api_keys(db: Database) -> list[ApiKeyRow]:
    """All of them, oldest first."""
    return [ApiKeyRow(**dict(row)) for row in await db.fetch(_LIST)]


async def revoke_api_key(db: Database, key_id: str) -> bool:
    """From now on (10 s at the latest, in every process) it opens nothing. False: there is no such valid key."""
    return await db.execute(_REVOKE, key_id) == 1


async def set_last_used(db: Database, ages_s: Mapping[str, float]) -> None:
    """Store when keys were last used, as seconds before now."""
    await db.execute(_SET_USED, list(ages_s), list(ages_s.values()))
