"""Callbacks as people look at them: stored ones and refused ones together, by order, by account and time, by state.
They are read here only; claiming and ending them: `callbacks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from core.evidence import UNREADABLE
from storage.postgres.callback_bodies import open_body
from storage.postgres.cursors import decode_cursor, encode_cursor
from storage.postgres.database import Database
from storage.postgres.refused_callbacks import open_refused
from storage.sealing import Sealer

OF_ORDER_MAX = 500
UNNUMBERED_MAX = 1000
"""Of an account's callbacks without a payment's number, so many are looked through for one order: the newest."""


class CallbackState(StrEnum):
    """Where a callback stands. `waiting`: it is handled again when it is due; `dead`: given up, with a case."""

    HANDLED = "handled"
    WAITING = "waiting"
    DEAD = "dead"
    REFUSED = "refused"


UNREADABLE_EVIDENCE = ("unclear", UNREADABLE)
"""Kind and reason of the evidence of a genuine callback that could not be read."""

GENUINE, HINT = "genuine", "hint"
"""Verdicts of stored callbacks, besides `UNREADABLE`; those of refused ones are of `core.refusals.Verdict`."""


class CallbackRow(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that was received, without its raw body.

    `verdict` is `genuine`, `hint` (its signature covers a part only), `unreadable`, or why it was refused; `detail` is
    the adapter's code. `order_no` and `out_trade_no` of a refused one are what its body claims. `evidence` is what a
    genuine one says, `kind` its word. `copies` counts how often it came, `last_at` the last time, if that is kept.
    `network` and `body_bytes` are known of refused ones; their `notification_id`, `claimed_serial` (of the key) and
    `claimed_at` (of the signature) are what they say of themselves.
    """

    id: str
    state: CallbackState
    verdict: str
    detail: str
    account: str
    order_no: str | None
    out_trade_no: str | None
    notification_id: str | None
    kind: str | None
    evidence: dict[str, Any] | None
    received_at: datetime
    last_at: datetime | None
    handled_at: datetime | None
    dead_at: datetime | None
    due_at: datetime | None
    attempt: int
    outcome: str | None
    copies: int
    network: str
    body_bytes: int | None
    has_body: bool
    claimed_serial: str = ""
    claimed_at: str = ""


class RawCallback(msgspec.Struct, frozen=True, kw_only=True):
    """The raw bytes of a callback with the headers that its verification reads. `is_whole`: nothing is cut off."""

    headers: dict[str, str]
    body: bytes
    is_whole: bool


_STORED = """c.id, false AS is_refused, c.channel_account, c.out_trade_no, c.notification_id, c.evidence::text,
       c.is_hint, c.received_at, NULL::timestamptz AS last_at, c.handled_at, c.dead_at, c.due_at, c.attempt, c.outcome,
       c.copies::bigint, NULL AS verdict, '' AS detail, '' AS network, NULL::integer AS body_bytes,
       c.body <> '' AS has_body, '' AS claimed_serial, '' AS claimed_at"""
_ORDER = """(SELECT order_no FROM payments p
         WHERE p.channel_account = c.channel_account AND p.out_trade_no = c.out_trade_no)"""
_REFUSED = """c.id, true AS is_refused, c.channel_account, c.out_trade_no, c.claimed_id AS notification_id,
       NULL AS evidence, false AS is_hint, c.received_at, c.last_at, NULL::timestamptz AS handled_at,
       NULL::timestamptz AS dead_at, NULL::timestamptz AS due_at, 0 AS attempt, NULL AS outcome, c.copies, c.verdict,
       c.detail, c.network, c.body_bytes, c.body IS NOT NULL AS has_body, c.claimed_serial, c.claimed_at"""
# One that named no payment is of the order of the genuine callback with the same message, once that has come.
_REFUSED_ORDER = """coalesce(c.order_no, (
        SELECT p.order_no
          FROM callbacks s JOIN payments p ON p.channel_account = s.channel_account AND p.out_trade_no = s.out_trade_no
         WHERE s.channel_account = c.channel_account AND s.notification_id = c.claimed_id LIMIT 1))"""

# Callbacks are filed under the number of their payment, or under another id of it. What has no number (a dispute, a
# message about several payments) is looked for among the newest such of the account.
_OF_ORDER = f"""
WITH keys AS (
    SELECT channel_account, unnest(ARRAY[out_trade_no, channel_reference, channel_transaction_id]) AS id
      FROM payments WHERE order_no = $1
    UNION SELECT channel_account, refund_no FROM refunds WHERE order_no = $1
    UNION SELECT channel_account, dispute_id FROM disputes WHERE order_no = $1
), named AS (
    SELECT c.id
      FROM keys k
     CROSS JOIN LATERAL (SELECT id FROM callbacks
                          WHERE channel_account = k.channel_account AND out_trade_no = k.id OFFSET 0) c
     WHERE k.id <> ''
    UNION
    SELECT c.id
      FROM (SELECT DISTINCT channel_account FROM keys) a
     CROSS JOIN LATERAL (SELECT id, evidence FROM callbacks
                          WHERE channel_account = a.channel_account AND out_trade_no = '' LIMIT $3) c
     WHERE EXISTS (SELECT FROM keys k WHERE k.channel_account = a.channel_account AND k.id <> ''
                      AND (c.evidence->>'dispute_id' = k.id OR c.evidence->'ids' ? k.id))
)
SELECT * FROM (
    SELECT {_STORED}, $1::text AS order_no
      FROM named n CROSS JOIN LATERAL (SELECT * FROM callbacks WHERE callbacks.id = n.id LIMIT 1) c
    UNION ALL
    SELECT {_REFUSED}, c.order_no FROM refused_callbacks c WHERE c.order_no = $1
    UNION ALL
    SELECT {_REFUSED}, $1::text
      FROM (SELECT DISTINCT s.channel_account, s.notification_id
              FROM named n CROSS JOIN LATERAL (SELECT * FROM callbacks WHERE callbacks.id = n.id LIMIT 1) s) m
     CROSS JOIN LATERAL (SELECT * FROM refused_callbacks r
                          WHERE r.channel_account = m.channel_account AND r.claimed_id = m.notification_id
                            AND r.order_no IS NULL LIMIT $2) c
) AS every
 ORDER BY received_at, id
 LIMIT $2"""

_AFTER = "(coalesce($2::timestamptz, 'infinity'), coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))"

# Of all accounts: a page of each, by the one index that there is.
_STORED_PAGE = f"""
SELECT {_STORED}, {_ORDER} AS order_no
  FROM (SELECT id FROM (SELECT name FROM accounts) AS a
         CROSS JOIN LATERAL (
               SELECT id, received_at FROM callbacks
                WHERE channel_account = a.name AND received_at >= coalesce($4::timestamptz, '-infinity')
                  AND (received_at, id) < {_AFTER}{{more}}
                ORDER BY received_at DESC, id DESC LIMIT $1) AS newest
         ORDER BY received_at DESC, id DESC LIMIT $1) AS page
 CROSS JOIN LATERAL (SELECT * FROM callbacks WHERE callbacks.id = page.id LIMIT 1) AS c
 ORDER BY received_at DESC, id DESC"""
_STORED_PAGE_OF_ACCOUNT = f"""
SELECT {_STORED}, {_ORDER} AS order_no
  FROM (SELECT * FROM callbacks
         WHERE channel_account = $5 AND received_at >= coalesce($4::timestamptz, '-infinity')
           AND (received_at, id) < {_AFTER}{{more}}
         ORDER BY received_at DESC, id DESC LIMIT $1) AS c
 ORDER BY received_at DESC, id DESC"""
_IS_HANDLED = " AND handled_at IS NOT NULL"

_REFUSED_PAGE = f"""
SELECT {_REFUSED}, {_REFUSED_ORDER} AS order_no
  FROM refused_callbacks c
 WHERE received_at >= coalesce($4::timestamptz, '-infinity') AND (received_at, id) < {_AFTER}{{more}}
 ORDER BY received_at DESC, id DESC LIMIT $1"""

# Open and dead ones are few, and have an index of their own each; due ones come in the order of their times.
_WAITING_PAGE = f"""
SELECT {_STORED}, {_ORDER} AS order_no
  FROM callbacks c
 WHERE handled_at IS NULL AND dead_at IS NULL
   AND (due_at, id) > (coalesce($2::timestamptz, '-infinity'),
                       coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'))
   AND received_at >= coalesce($4::timestamptz, '-infinity'){{more}}
 ORDER BY due_at, id LIMIT $1"""
_DEAD_PAGE = f"""
SELECT {_STORED}, {_ORDER} AS order_no
  FROM callbacks c
 WHERE dead_at IS NOT NULL AND handled_at IS NULL AND (dead_at, id) < {_AFTER}
   AND received_at >= coalesce($4::timestamptz, '-infinity'){{more}}
 ORDER BY dead_at DESC, id DESC LIMIT $1"""
_OF_ACCOUNT = " AND channel_account = $5"
_OF_ACCOUNT_AMONG_FEW = " AND channel_account || '' = $5"
"""Not by an index of the account, which has all of its callbacks."""

_GET_STORED = f"SELECT {_STORED}, {_ORDER} AS order_no FROM callbacks c WHERE id = $1"
_GET_REFUSED = f"SELECT {_REFUSED}, {_REFUSED_ORDER} AS order_no FROM refused_callbacks c WHERE id = $1"

_RAW_STORED = """
SELECT channel_account, notification_id, headers::text, body, sealed_under FROM callbacks WHERE id = $1"""
_RAW_REFUSED = """
SELECT channel_account, body_hash, headers::text, body, body_bytes FROM refused_callbacks
 WHERE id = $1 AND body IS NOT NULL"""

_LAST = """
SELECT a.name, newest.received_at
  FROM accounts a
 CROSS JOIN LATERAL (SELECT received_at FROM callbacks WHERE channel_account = a.name
                      ORDER BY received_at DESC, id DESC LIMIT 1) AS newest"""


async def callbacks_of_order(db: Database, order_no: str) -> list[CallbackRow]:
    """Every callback about the order that is kept, oldest first: stored ones, and refused ones that named a payment of
    it; at most `OF_ORDER_MAX`.
    """
    return [_row(row) for row in await db.fetch(_OF_ORDER, order_no, OF_ORDER_MAX, UNNUMBERED_MAX)]


async def list_callbacks(
    db: Database,
    *,
    account: str | None = None,
    state: CallbackState | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[CallbackRow], str | None]:
    """Newest first, and the cursor of the next page (None at the end). `waiting` ones: those due first.

    Without `state`, stored and refused ones.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    at, after = decode_cursor(cursor, _is_id)
    place: tuple[object, ...] = (at, None if after is None else UUID(after), since)
    of_account = () if account is None else (account,)
    rows: list[CallbackRow] = []
    for statement in _statements(state, is_of_account=account is not None):
        rows += [_row(row) for row in await db.fetch(statement, limit + 1, *place, *of_account)]
    if state is None:
        rows.sort(key=lambda row: (row.received_at, UUID(row.id)), reverse=True)
    shown = rows[:limit]
    return shown, encode_cursor(_sorted_by(shown[-1], state), shown[-1].id) if len(rows) > limit else None


async def find_callback(db: Database, callback_id: str) -> CallbackRow | None:
    """One callback, stored or refused; None: there is none, or the text is no id."""
    if not _is_id(callback_id):
        return None
    for statement in (_GET_STORED, _GET_REFUSED):
        row = await db.fetchrow(statement, UUID(callback_id))
        if row is not None:
            return _row(row)
    return None


async def find_raw_callback(db: Database, sealer: Sealer, callback: CallbackRow) -> RawCallback | None:
    """Its raw bytes, opened; of a refused one the first. None: they are not kept, or erased.

    Raises:
        ConfigurationError: no master key opens them.
    """
    is_refused = callback.state is CallbackState.REFUSED
    row = await db.fetchrow(_RAW_REFUSED if is_refused else _RAW_STORED, UUID(callback.id))
    if row is None or not row["body"]:
        return None
    headers = msgspec.json.decode(row["headers"], type=dict[str, str])
    account = row["channel_account"]
    if is_refused:
        body = open_refused(sealer, account=account, body_hash=row["body_hash"], body=row["body"])
        return RawCallback(headers=headers, body=body, is_whole=len(body) == row["body_bytes"])
    body = open_body(
        sealer,
        account=account,
        notification_id=row["notification_id"],
        body=row["body"],
        sealed_under=row["sealed_under"],
    )
    return RawCallback(headers=headers, body=body, is_whole=True)


async def find_last_callbacks(db: Database) -> dict[str, datetime]:
    """Time of the newest stored callback of each account that has any."""
    return {row["name"]: row["received_at"] for row in await db.fetch(_LAST)}


def _statements(state: CallbackState | None, *, is_of_account: bool) -> Sequence[str]:
    more, among_few = (_OF_ACCOUNT, _OF_ACCOUNT_AMONG_FEW) if is_of_account else ("", "")
    stored = _STORED_PAGE_OF_ACCOUNT if is_of_account else _STORED_PAGE
    match state:
        case CallbackState.WAITING:
            return (_WAITING_PAGE.format(more=among_few),)
        case CallbackState.DEAD:
            return (_DEAD_PAGE.format(more=among_few),)
        case CallbackState.REFUSED:
            return (_REFUSED_PAGE.format(more=more),)
        case CallbackState.HANDLED:
            return (stored.format(more=_IS_HANDLED),)
    return stored.format(more=""), _REFUSED_PAGE.format(more=more)


def _sorted_by(row: CallbackRow, state: CallbackState | None) -> datetime:
    """The column that the list of this state is sorted by."""
    if state is CallbackState.WAITING and row.due_at is not None:
        return row.due_at
    if state is CallbackState.DEAD and row.dead_at is not None:
        return row.dead_at
    return row.received_at


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _row(row: Any) -> CallbackRow:
    evidence = None if row["evidence"] is None else msgspec.json.decode(row["evidence"], type=dict[str, Any])
    return CallbackRow(
        id=str(row["id"]),
        state=_state(row),
        verdict=row["verdict"] if row["is_refused"] else _verdict(evidence, is_hint=row["is_hint"]),
        detail=row["detail"],
        account=row["channel_account"],
        order_no=row["order_no"],
        out_trade_no=row["out_trade_no"] or None,
        notification_id=row["notification_id"],
        kind=None if evidence is None else str(evidence.get("kind", "")),
        evidence=evidence,
        received_at=row["received_at"],
        last_at=row["last_at"],
        handled_at=row["handled_at"],
        dead_at=row["dead_at"],
        due_at=None if row["handled_at"] or row["dead_at"] else row["due_at"],
        attempt=row["attempt"],
        outcome=row["outcome"],
        copies=row["copies"],
        network=row["network"],
        body_bytes=row["body_bytes"],
        has_body=row["has_body"],
        claimed_serial=row["claimed_serial"],
        claimed_at=row["claimed_at"],
    )


def _state(row: Any) -> CallbackState:
    if row["is_refused"]:
        return CallbackState.REFUSED
    if row["handled_at"] is not None:
        return CallbackState.HANDLED
    return CallbackState.WAITING if row["dead_at"] is None else CallbackState.DEAD


def _verdict(evidence: Mapping[str, Any] | None, *, is_hint: bool) -> str:
    if is_hint:
        return HINT
    is_unreadable = evidence is not None and (evidence.get("kind"), evidence.get("reason")) == UNREADABLE_EVIDENCE
    return UNREADABLE if is_unreadable else GENUINE
