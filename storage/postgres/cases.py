"""Cases: questions for a person. The door opens those about orders, the inbox those about callbacks it gives up; here
are those about accounts, and here they are read and resolved.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from core.order import CaseReason
from core.sentences import encode_phrase
from storage.postgres.cursors import decode_numbered, encode_cursor
from storage.postgres.database import Database

COUNT_MAX = 100_000
"""Open cases that the inbox counts: with its index it reads no row of the table."""


class CaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `account` and `out_trade_no` name the payment, when it is about one. `assignee` works on it since
    `assigned_at`; `version` grows with whatever a person does to it. The phrases are those of the
    detail and of the resolution, for readers of other languages.
    """

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
    assignee: str | None = None
    assigned_at: datetime | None = None
    version: int = 1
    phrase: str | None = None
    resolution_phrase: str | None = None


class CaseCount(msgspec.Struct, frozen=True, kw_only=True):
    """Open cases of one reason: how many, how many nobody works on, how many are this operator's, and their oldest."""

    reason: str
    open: int
    unassigned: int
    mine: int
    oldest_at: datetime


_COLUMNS = """id, order_no, channel_account AS account, out_trade_no, reason, detail, opened_at, resolved_at,
       resolution, by, assignee, assigned_at, version, phrase, resolution_phrase"""
IS_OPEN = "resolved_at IS NULL AND id > 0"
"""As in the indexes of open cases by time and by reason, which no other statement may use: they are not by key."""

OPEN_REASONS = f"""reasons AS (
    (SELECT reason FROM cases WHERE {IS_OPEN} AND reason > '' ORDER BY reason LIMIT 1)
    UNION ALL
    SELECT (SELECT reason FROM cases WHERE {IS_OPEN} AND reason > r.reason ORDER BY reason LIMIT 1)
      FROM reasons r WHERE r.reason IS NOT NULL
)"""
"""The reasons of open cases, one after another from their index; the last row is null. For WITH RECURSIVE."""


def count_of_reason(reason: str, count_max: int) -> str:
    """SQL: open cases of a reason, which is a column; counting stops at `count_max`."""
    return f"(SELECT count(*) FROM (SELECT FROM cases WHERE {IS_OPEN} AND reason = {reason} LIMIT {count_max}) counted)"


_LIST = f"""
SELECT {_COLUMNS}
  FROM {{cases}}
 WHERE {{chosen}} AND {{beyond}}
   AND ($4::text IS NULL OR assignee = $4)
   AND NOT ($5 AND assignee IS NOT NULL)
   AND ($6::timestamptz IS NULL OR opened_at < $6)
 ORDER BY {{order}}
 LIMIT $7"""
# OFFSET keeps the planner from looking for an order's cases along all of them.
_OF_ORDER = "(SELECT * FROM cases WHERE order_no = $8 OFFSET 0) AS of_order"


def _list(*, is_of_order: bool, open_only: bool, oldest_first: bool, has_reason: bool) -> str:
    """The statement of a list. Open cases of a reason come by the index that begins with it. An equal reason would be
    left out of the order, and the index by time walked past all others: so it is compared as a part of the key.
    """
    beyond, first, way = (">", "-infinity", "ASC") if oldest_first else ("<", "infinity", "DESC")
    key, place = ["opened_at", "id"], [f"coalesce($1::timestamptz, '{first}')", "coalesce($2::bigint, 0)"]
    of_reason = "reason = $3::text" if has_reason else "$3::text IS NULL"
    if has_reason and open_only and not is_of_order:
        key, place = ["reason", *key], ["$3::text", *place]
        of_reason = f"reason {'<=' if oldest_first else '>='} $3::text"
    return _LIST.format(
        cases=_OF_ORDER if is_of_order else "cases",
        chosen=IS_OPEN if open_only else "true",
        beyond=f"({', '.join(key)}) {beyond} ({', '.join(place)}) AND {of_reason}",
        order=", ".join(f"{column} {way}" for column in key),
    )


_COUNTS = f"""
SELECT reason, count(*) AS open, count(*) FILTER (WHERE assignee IS NULL) AS unassigned,
       count(*) FILTER (WHERE assignee = $1) AS mine, min(opened_at) AS oldest_at
  FROM (SELECT reason, assignee, opened_at FROM cases WHERE {IS_OPEN}
         ORDER BY opened_at, id LIMIT {COUNT_MAX}) AS oldest
 GROUP BY reason ORDER BY min(opened_at)"""
_GET = f"SELECT {_COLUMNS} FROM cases WHERE id = $1"
_ASSIGN = f"""
UPDATE cases
   SET assignee = $2, assigned_at = CASE WHEN $2::text IS NULL THEN NULL ELSE now() END, version = version + 1
 WHERE id = $1 AND version = $3 AND resolved_at IS NULL
RETURNING {_COLUMNS}"""
_RESOLVE = """
UPDATE cases SET resolved_at = now(), resolution = $2, by = $3, version = version + 1
 WHERE id = $1 AND resolved_at IS NULL AND ($4::integer IS NULL OR version = $4)"""

# A person who has resolved it is asked again only after the account was changed.
_OPEN_OF_ACCOUNT = """
INSERT INTO cases (channel_account, reason, detail, phrase)
SELECT a.name, $2, $3, $4 FROM accounts a
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
    reason: str | None = None,
    order_no: str | None = None,
    assignee: str | None = None,
    unassigned_only: bool = False,
    opened_before: datetime | None = None,
    oldest_first: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[CaseRow], str | None]:
    """Cases by the time they were opened, and the cursor of the next page (None at the end). `assignee`: only theirs.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    at, number = decode_numbered(cursor)
    statement = _list(
        is_of_order=order_no is not None,
        open_only=open_only,
        oldest_first=oldest_first,
        has_reason=reason is not None,
    )
    of_order = () if order_no is None else (order_no,)
    chosen = (at, number, reason, assignee, unassigned_only, opened_before, limit + 1)
    rows = await db.fetch(statement, *chosen, *of_order)
    found = [CaseRow(**dict(row)) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return found, None if last is None else encode_cursor(last.opened_at, str(last.id))


async def count_open_cases(db: Database, *, mine: str = "") -> list[CaseCount]:
    """Open cases by reason, that with the oldest first, among the oldest `COUNT_MAX`. `mine`: the operator whose own
    are counted.
    """
    return [CaseCount(**dict(row)) for row in await db.fetch(_COUNTS, mine)]


async def find_case(db: Database, case_id: int) -> CaseRow | None:
    """One case, open or resolved."""
    row = await db.fetchrow(_GET, case_id)
    return None if row is None else CaseRow(**dict(row))


async def assign_case(db: Database, case_id: int, assignee: str | None, *, version: int) -> CaseRow | None:
    """Give an open case to an operator, or back to nobody. None: there is no such open case at this version."""
    row = await db.fetchrow(_ASSIGN, case_id, assignee, version)
    return None if row is None else CaseRow(**dict(row))


async def resolve_case(db: Database, case_id: int, *, resolution: str, by: str, version: int | None = None) -> bool:
    """Resolve one case for a person. False: there is no such open case, at this version."""
    return await db.execute(_RESOLVE, case_id, resolution, by, version) == 1


async def open_account_case(db: Database, account: str, reason: CaseReason, *, detail: str) -> bool:
    """Open a case about an account as a whole, unless one is open or was resolved since the account was changed."""
    return await db.execute(_OPEN_OF_ACCOUNT, account, reason, detail, encode_phrase(detail)) == 1


async def resolve_cases(db: Database, order_no: str, reason: CaseReason, *, resolution: str, by: str) -> int:
    """Resolve all open cases of an order with this reason; return how many."""
    return await db.execute(_RESOLVE_ALL, order_no, reason, resolution, by)
