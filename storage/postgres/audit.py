"""Acts of people: one row for each act, written before it. The application's own role adds and reads rows only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from storage.postgres.database import Database, document

_INSERT = """
INSERT INTO audit (by, via, action, subject, detail) VALUES ($1, $2, $3, $4, $5::text::jsonb)"""
_LIST = """
SELECT id, at, by, via, action, subject, detail::text, role FROM audit
 WHERE ($1::text IS NULL OR subject = $1)
 ORDER BY id DESC
 LIMIT $2"""
# A member of the owner's role can take on its rights; a superuser is a member of every role.
_CAN_CHANGE = """
SELECT has_table_privilege('audit', 'UPDATE') OR has_table_privilege('audit', 'DELETE')
       OR has_table_privilege('audit', 'TRUNCATE') OR pg_has_role(relowner, 'MEMBER')
  FROM pg_class WHERE oid = 'audit'::regclass"""


class Via(StrEnum):
    """The way in which somebody acted."""

    COMMAND = "command"
    API = "api"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """An act of a person. `detail` holds no secret and no personal data of a buyer."""

    by: str
    via: Via
    action: str
    subject: str = ""
    detail: Mapping[str, Any] = {}


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored act. `role` is the user of Postgres that wrote it."""

    id: int
    at: datetime
    by: str
    via: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    role: str


async def write_act(db: Database, act: Act) -> None:
    """Store it. Raises DatabaseUnavailable: then the act must not be done."""
    await db.execute(_INSERT, act.by, act.via, act.action, act.subject, document(act.detail))


async def list_acts(db: Database, *, subject: str | None = None, limit: int) -> list[AuditRow]:
    """The newest first."""
    rows = await db.fetch(_LIST, subject, limit)
    return [AuditRow(**{**row, "detail": msgspec.json.decode(row["detail"])}) for row in rows]


async def can_change_acts(db: Database) -> bool:
    """Whether the role of this connection could change or delete rows, now or by taking on another role."""
    return bool(await db.fetchval(_CAN_CHANGE))
