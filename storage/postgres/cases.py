"""Cases: questions for a person. The door opens those about orders, the inbox those about callbacks it gives up; here
are those about accounts, and here they are read and resolved.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from core.errors import InvalidRequest
from core.order import CaseReason
from storage.postgres.database import Database
from storage.postgres.orders import decode_cursor, encode_cursor


class CaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `account` and `out_trade_no` name the payment, when it is about one."""

    id: int
    order_no: str | None
    account: str | None
    out_trade_no: str | None
    reason: str
    detail: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    by: str | None


_LIST = """
SELECT id, order_no, channel_account AS account, out_trade_no, reason, detail, opened_at, resolved_at, resolution, by
  FROM {cases}
 WHERE ($1 = false OR resolved_at IS NULL)
   AND ($2::text IS NULL OR reason = $2)
   AND (opened_at, id) < (coalesce($3::timestamptz, 'infinity'), coalesce($4::bigint, 0))
 ORDER BY opened_at DESC, id DESC
 LIMIT $5"""
_LIST_ALL = _LIST.format(cases="cases")
# OFFSET keeps the planner from looking for an order's cases along all of them.
_LIST_OF_ORDER = _LIST.format(cases="(SELECT * FROM cases WHERE order_no = $6 OFFSET 0) AS of_order")

_ID = re.compile(r"[0-9]{1,18}", re.ASCII)

_RESOLVE = """
UPDATE cases SET resolved_at = now(), resolution = $2, by = $3 WHERE id = $1 AND resolved_at IS NULL"""

# A person who has resolved it is asked again only after the account was changed.
_OPEN_OF_ACCOUNT = """
INSERT INTO cases (channel_account, reason, detail)
SELECT a.name, $2, $3 FROM accounts a
 WHERE a.name = $1
   AND NOT EXISTS (SELECT FROM cases c
                    WHERE c.channel_account = a.name AND c.out_trade_no IS NULL AND c.reason = $2
                      AND coalesce(c.resolved_at, 'infinity') > a.updated_at)
ON CONFLICT DO NOTHING"""

_RESOLVE_ALL = """
UPDATE cases SET resolved_at = now(), resolution = $3, by = $4
 WHERE order_no = $1 AND reason = $2 AND coalesce(resolved_at, 'infinity') = 'infinity'"""


async def list_cases(
    db: Database,
    *,
    open_only: bool = True,
    reason: CaseReason | None = None,
    order_no: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[CaseRow], str | None]:
    """Newest first, and the cursor of the next page (None at the end).

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    at, after = decode_cursor(cursor)
    if after is not None and not _ID.fullmatch(after):
        raise InvalidRequest("cursor: use next_cursor of the page before, as it is")
    number = None if after is None else int(after)
    statement, of_order = (_LIST_ALL, ()) if order_no is None else (_LIST_OF_ORDER, (order_no,))
    rows = await db.fetch(statement, open_only, reason, at, number, limit + 1, *of_order)
    found = [CaseRow(**dict(row)) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return found, None if last is None else encode_cursor(last.opened_at, str(last.id))


async def resolve_case(db: Database, case_id: int, *, resolution: str, by: str) -> bool:
    """Resolve one case for a person. False: there is no such open case."""
    return await db.execute(_RESOLVE, case_id, resolution, by) == 1


async def open_account_case(db: Database, account: str, reason: CaseReason, *, detail: str) -> bool:
    """Open a case about an account as a whole, unless one is open or was resolved since the account was changed."""
    return await db.execute(_OPEN_OF_ACCOUNT, account, reason, detail) == 1


async def resolve_cases(db: Database, order_no: str, reason: CaseReason, *, resolution: str, by: str) -> int:
    """Resolve all open cases of an order with this reason; return how many."""
    return await db.execute(_RESOLVE_ALL, order_no, reason, resolution, by)
