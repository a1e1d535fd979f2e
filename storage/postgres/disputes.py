"""Disputes for operators: those that are not over by the last moment to answer, the others by their end. The door
writes them; here they are read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from core.dispute import Dispute, DisputeState
from core.errors import InvalidRequest
from storage.postgres.cursors import decode_cursor, encode_cursor
from storage.postgres.database import Database

_COLUMNS = """dispute_id, channel_account, out_trade_no, order_no, kind, state, opened_at, changed_at, amount, currency,
       reason, outcome, respond_by"""

# With the condition and the order of their indexes.
_DUE = f"""
SELECT {_COLUMNS} FROM disputes
 WHERE state IN ('open', 'under_review') AND dispute_id <> ''
   AND (coalesce(respond_by, '9999-12-31 00:00:00+00'), channel_account, out_trade_no, dispute_id)
       > (coalesce($1::timestamptz, '-infinity'), $2::text, $3::text, $4::text)
   AND ($5::text IS NULL OR channel_account = $5)
 ORDER BY coalesce(respond_by, '9999-12-31 00:00:00+00'), channel_account, out_trade_no, dispute_id
 LIMIT $6"""
_OVER = f"""
SELECT {_COLUMNS} FROM disputes
 WHERE state IN ('won', 'lost', 'closed') AND state = $7
   AND (changed_at, channel_account, out_trade_no, dispute_id)
       < (coalesce($1::timestamptz, 'infinity'), $2::text, $3::text, $4::text)
   AND ($5::text IS NULL OR channel_account = $5)
 ORDER BY state DESC, changed_at DESC, channel_account DESC, out_trade_no DESC, dispute_id DESC
 LIMIT $6"""

_FIND = f"SELECT {_COLUMNS} FROM disputes WHERE dispute_id = $1 ORDER BY channel_account, out_trade_no LIMIT $2"

_KEY = re.compile(r"[^\n\0]*\n[^\n\0]*\n[^\n\0]*")
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""The moment of those without one, as in the index."""


async def list_disputes(
    db: Database,
    *,
    state: DisputeState | None = None,
    account: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Dispute], str | None]:
    """`state` None: those that are not over, soonest moment to answer first. Otherwise those that ended so, newest
    first. Also the cursor of the next page (None at the end).

    Raises:
        InvalidRequest: the cursor is not one of ours, or the state is not one of an end.
    """
    if state is not None and not state.is_final:
        raise InvalidRequest("state: won, lost or closed; those that are not over are listed without it")
    at, key = _position(cursor)
    arguments = (at, *key, account, limit + 1)
    fetched = await (db.fetch(_DUE, *arguments) if state is None else db.fetch(_OVER, *arguments, state.value))
    found = [msgspec.convert(dict(row), Dispute) for row in fetched[:limit]]
    return found, _cursor_after(found[-1], state) if len(fetched) > limit else None


async def find_disputes(db: Database, dispute_id: str, *, limit: int = 20) -> list[Dispute]:
    """Those with the channel's id, which several accounts may have."""
    return [msgspec.convert(dict(row), Dispute) for row in await db.fetch(_FIND, dispute_id, limit)]


def _position(cursor: str | None) -> tuple[datetime | None, tuple[str, str, str]]:
    at, after = decode_cursor(cursor, lambda key: _KEY.fullmatch(key) is not None)
    if after is None:
        return None, ("", "", "")
    account, number, dispute_id = after.split("\n")
    return at, (account, number, dispute_id)


def _cursor_after(dispute: Dispute, state: DisputeState | None) -> str:
    at = dispute.changed_at if state is not None else dispute.respond_by or _NEVER
    return encode_cursor(at, f"{dispute.channel_account}\n{dispute.out_trade_no}\n{dispute.dispute_id}")
