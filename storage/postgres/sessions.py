"""Sessions of operators: 256 random bits in a cookie, of which only the SHA-256 is kept.

A session ends when it was not used for a while, and a fixed time after it began, by Postgres's clock. A row that is
there after its end opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from secrets import token_hex, token_urlsafe
from typing import Any

import msgspec

from core.operators import Role
from storage.postgres.database import Database, document

SEEN_S = 60.0
"""A request is noted at most so often: a page that asks every second is no write every second."""

DELETE_MAX = 500
DEVICE_MAX = 200
PER_OPERATOR_MAX = 20
"""A session more ends the oldest one."""

_INSERT = """
WITH many AS (
    SELECT digest FROM operator_sessions WHERE operator = $3 ORDER BY created_at DESC OFFSET $6 - 1
), ended AS (
    DELETE FROM operator_sessions WHERE digest IN (SELECT digest FROM many)
)
INSERT INTO operator_sessions (digest, id, operator, address, device, epoch) VALUES ($1, $2, $3, $4, $5, $7)"""
_ALIVE = """
s.seen_at > now() - make_interval(secs => $2) AND s.created_at > now() - make_interval(secs => $3)"""
_FIND = f"""
SELECT s.id, s.operator, o.role, o.must_change, o.totp IS NOT NULL AS has_totp, o.language, o.theme,
       s.notice::text AS notice, s.seen_at < now() - make_interval(secs => $4) AS is_stale
  FROM operator_sessions s JOIN operators o ON o.name = s.operator
 WHERE s.digest = $1 AND s.epoch = o.epoch AND o.disabled_at IS NULL AND {_ALIVE}"""
_SEE = "UPDATE operator_sessions SET seen_at = now() WHERE digest = $1"
_LIST = f"""
SELECT s.id, s.address, s.device, s.created_at, s.seen_at, s.digest = $4 AS is_this
  FROM operator_sessions s JOIN operators o ON o.name = s.operator AND o.epoch = s.epoch
 WHERE s.operator = $1 AND {_ALIVE} ORDER BY s.created_at DESC"""
_END = "DELETE FROM operator_sessions WHERE digest = $1"
_END_ONE = "DELETE FROM operator_sessions WHERE operator = $1 AND id = $2"
_PUT_NOTICE = "UPDATE operator_sessions SET notice = $2::text::jsonb WHERE digest = $1"
_TAKE_NOTICE = "UPDATE operator_sessions SET notice = NULL WHERE digest = $1 AND notice = $2::text::jsonb"
_DELETE = """
DELETE FROM operator_sessions
 WHERE digest = ANY(ARRAY(SELECT digest FROM operator_sessions WHERE seen_at < now() - make_interval(secs => $1)
                           ORDER BY seen_at LIMIT $2))"""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is open now, and its operator. `notice` is JSON."""

    digest: bytes
    id: str
    operator: str
    role: Role
    must_change: bool
    has_totp: bool
    language: str
    theme: str
    notice: str | None


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a session that its operator sees. `is_this`: the page was asked for by it."""

    id: str
    address: str
    device: str
    created_at: datetime
    seen_at: datetime
    is_this: bool


class Ends(msgspec.Struct, frozen=True):
    """The seconds after which a session ends: without a request, and in any case."""

    idle_s: float
    absolute_s: float


def digest_of(cookie: str) -> bytes:
    return sha256(cookie.encode()).digest()


async def begin_session(db: Database, operator: str, epoch: int, *, address: str, device: str) -> str:
    """Begin a session of the epoch in which the password was right; return its cookie, which is kept nowhere."""
    cookie = token_urlsafe(32)
    await db.execute(
        _INSERT, digest_of(cookie), token_hex(6), operator, address, device[:DEVICE_MAX], PER_OPERATOR_MAX, epoch
    )
    return cookie


async def find_session(db: Database, cookie: str, ends: Ends, *, is_use: bool = True) -> Session | None:
    """The open session of this cookie; None: there is none, or its operator is disabled.

    `is_use`: its operator does something, which keeps it open.
    """
    digest = digest_of(cookie)
    row = await db.fetchrow(_FIND, digest, ends.idle_s, ends.absolute_s, min(SEEN_S, ends.idle_s / 4))
    if row is None:
        return None
    fields = dict(row)
    if fields.pop("is_stale") and is_use:
        await db.execute(_SEE, digest)
    return Session(**{**fields, "digest": digest, "role": Role(fields["role"])})


async def list_sessions(db: Database, operator: str, ends: Ends, *, this: bytes = b"") -> list[SessionRow]:
    """The open sessions of an operator, newest first; `this` is the digest of the one that asks."""
    rows = await db.fetch(_LIST, operator, ends.idle_s, ends.absolute_s, this)
    return [SessionRow(**dict(row)) for row in rows]


async def end_session(db: Database, digest: bytes) -> None:
    """End it: whoever has its cookie has nothing from now on."""
    await db.execute(_END, digest)


async def end_session_of(db: Database, operator: str, session_id: str) -> bool:
    """End one by the id that pages show. False: this operator has none such."""
    return await db.execute(_END_ONE, operator, session_id) == 1


async def put_notice(db: Database, digest: bytes, key: str, values: Mapping[str, Any]) -> None:
    """Store what the next page says once."""
    await db.execute(_PUT_NOTICE, digest, document({"key": key, "values": values}))


async def take_notice(db: Database, digest: bytes, notice: str) -> None:
    """Delete the notice that was shown, unless there is a newer one by now."""
    await db.execute(_TAKE_NOTICE, digest, notice)


async def delete_sessions(db: Database, ends: Ends) -> int:
    """Delete up to 500 that were not used within their time; return how many."""
    return await db.execute(_DELETE, ends.idle_s, DELETE_MAX)
