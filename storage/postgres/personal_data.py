"""All that is stored about one order, and the erasure of what is personal in it, apart from the order itself: that
changes through the door.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from core.errors import ConfigurationError
from storage.postgres.callback_bodies import open_body
from storage.postgres.database import Database
from storage.postgres.notifications import IS_SENDABLE
from storage.postgres.refused_callbacks import open_refused
from storage.sealing import Sealer

TABLES: Mapping[str, str] = {
    "orders": "order_no",
    "payments": "created_at",
    "pending": "due_at",
    "refunds": "requested_at",
    "refund_approvals": "requested_at",
    "disputes": "opened_at",
    "order_events": "version",
    "observations": "at",
    "cases": "opened_at",
    "notifications": "created_at",
    "refused_callbacks": "received_at",
    "reconciliation_differences": "row_no",
}
"""Tables with the number of an order, and the column that sorts their rows. The inbox has none: see `_CALLBACKS`."""

# Callbacks are filed under a payment's number, or under another id of it, or under none (disputes, combined ones). A
# number of another order's payment, which a combined message names too, does not count. OFFSET has each key looked
# up by itself: the planner would read the whole table.
_KEYS = """
WITH ids AS (
    SELECT channel_account, unnest(ARRAY[out_trade_no, channel_reference, channel_transaction_id]) AS id
      FROM payments WHERE order_no = $1
    UNION SELECT channel_account, refund_no FROM refunds WHERE order_no = $1
    UNION SELECT channel_account, dispute_id FROM disputes WHERE order_no = $1
    UNION SELECT channel_account, jsonb_array_elements_text(evidence->'ids')
            FROM order_events WHERE order_no = $1 AND evidence->'ids' IS NOT NULL
), keys AS (
    SELECT * FROM ids
     WHERE id <> '' AND NOT EXISTS (SELECT FROM payments p
                                     WHERE p.channel_account = ids.channel_account AND p.out_trade_no = ids.id
                                       AND p.order_no <> $1)
), named AS (
    SELECT c.id
      FROM keys k
     CROSS JOIN LATERAL (SELECT id FROM callbacks
                          WHERE channel_account = k.channel_account AND out_trade_no = k.id OFFSET 0) c
    UNION
    SELECT c.id
      FROM (SELECT DISTINCT channel_account FROM keys) a
     CROSS JOIN LATERAL (SELECT id, channel_account, evidence FROM callbacks
                          WHERE channel_account = a.channel_account AND out_trade_no = '' OFFSET 0) c
      JOIN keys k ON k.channel_account = c.channel_account
       AND (c.evidence->>'dispute_id' = k.id OR c.evidence->'ids' ? k.id)
)"""

# JSON has instants in the zone of the session, which is the database's own behind a pooler.
_IN_UTC = "in_utc AS MATERIALIZED (SELECT set_config('timezone', 'UTC', true))"

_CALLBACKS = f"""{_KEYS}
, {_IN_UTC}
SELECT (to_jsonb(c) - 'body')::text AS row, channel_account AS account, notification_id, body, sealed_under
  FROM in_utc, callbacks c WHERE id = ANY(ARRAY(SELECT id FROM named)) ORDER BY received_at"""

_REFUSED = f"""
WITH {_IN_UTC}
SELECT (to_jsonb(c) - 'body')::text AS row, channel_account AS account, body_hash, body
  FROM in_utc, refused_callbacks c WHERE order_no = $1 ORDER BY received_at"""

_OPEN = f"""{_KEYS}
SELECT (SELECT count(*) FROM callbacks
         WHERE id = ANY(ARRAY(SELECT id FROM named)) AND handled_at IS NULL AND dead_at IS NULL) AS callbacks,
       count(*) FILTER (WHERE {IS_SENDABLE}) AS notifications,
       count(dead_at) FILTER (WHERE coalesce(delivered_at, superseded_at) IS NULL) AS dead_letters
  FROM notifications WHERE order_no = $1"""

# What is open stays whole, whatever happened since it was looked at.
_ERASE = f"""{_KEYS}
, erased_callbacks AS (
    UPDATE callbacks SET body = '', headers = '{{}}', sealed_under = NULL
     WHERE id = ANY(ARRAY(SELECT id FROM named)) AND (handled_at IS NOT NULL OR dead_at IS NOT NULL) AND body <> ''
    RETURNING id
), erased_notifications AS (
    UPDATE notifications
       SET body = '', superseded_at = coalesce(superseded_at, CASE WHEN delivered_at IS NULL THEN now() END),
           attempts = (SELECT jsonb_agg(a.value - 'answer') FROM jsonb_array_elements(attempts) AS a(value))
     WHERE order_no = $1 AND body <> '' AND NOT {IS_SENDABLE}
       AND (delivered_at IS NOT NULL OR superseded_at IS NOT NULL OR ($2 AND dead_at IS NOT NULL))
    RETURNING id
), erased_refused AS (
    UPDATE refused_callbacks SET body = NULL, sealed_under = NULL, headers = '{{}}', network = ''
     WHERE order_no = $1 AND (body IS NOT NULL OR network <> '')
    RETURNING id
), erased_cases AS (
    UPDATE cases SET resolution = 'erased', resolution_phrase = NULL
     WHERE order_no = $1 AND resolved_at IS NOT NULL AND resolution <> 'erased'
    RETURNING id
), erased_refunds AS (
    UPDATE refunds SET note = '' WHERE order_no = $1 AND note <> ''
), erased_approvals AS (
    UPDATE refund_approvals SET reason = '', decided_reason = ''
     WHERE order_no = $1 AND (reason <> '' OR decided_reason <> '')
)
SELECT (SELECT count(*) FROM erased_callbacks) + (SELECT count(*) FROM erased_refused) AS callbacks,
       (SELECT count(*) FROM erased_notifications) AS notifications,
       (SELECT count(*) FROM erased_cases) AS cases"""


class OpenDeliveries(NamedTuple):
    """Callbacks that are not handled, notifications that are not delivered, and those that were given up."""

    callbacks: int
    notifications: int
    dead_letters: int


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """Rows beside the order whose texts are gone. `callbacks` are stored and refused ones."""

    callbacks: int
    notifications: int
    cases: int


async def export_order(db: Database, sealer: Sealer, order_no: str) -> dict[str, list[dict[str, Any]]]:
    """Every row about an order, by table, with all of its columns. Bodies are text, or `{"base64": …}`
    if they are not UTF-8.

    The body of a callback that no master key opens is None.
    """
    rows = {table: await _rows(db, table, order_no) for table in TABLES}
    callbacks, refused = await _callbacks(db, sealer, order_no), await _refused(db, sealer, order_no)
    return rows | {"callbacks": callbacks, "refused_callbacks": refused}


async def find_open_deliveries(db: Database, order_no: str) -> OpenDeliveries:
    """Messages about an order that have not arrived yet."""
    row = await db.fetchrow(_OPEN, order_no)
    assert row is not None, "sums are one row"
    return OpenDeliveries(**dict(row))


async def erase_rows(db: Database, order_no: str, *, dead_letters: bool) -> Erased:
    """Erase raw bodies and headers of callbacks, bodies of notifications and what the merchant answered to them, and
    what people wrote into cases and as reasons of refunds.

    `dead_letters`: also of those that were never delivered, which cannot be sent again then.
    """
    row = await db.fetchrow(_ERASE, order_no, dead_letters)
    assert row is not None, "sums are one row"
    return Erased(**dict(row))


async def _rows(db: Database, table: str, order_no: str) -> list[dict[str, Any]]:
    # Names of tables and columns are those of TABLES.
    body = "body" if table == "notifications" else "NULL::bytea AS body"
    sql = f"""
    WITH {_IN_UTC}
    SELECT (to_jsonb(t) - 'body')::text AS row, {body}
      FROM in_utc, {table} t WHERE order_no = $1 ORDER BY {TABLES[table]}"""
    found = []
    for row in await db.fetch(sql, order_no):
        fields = msgspec.json.decode(row["row"], type=dict[str, Any])
        found.append(fields if row["body"] is None else fields | {"body": _text(row["body"])})
    return found


async def _callbacks(db: Database, sealer: Sealer, order_no: str) -> list[dict[str, Any]]:
    found = []
    for row in await db.fetch(_CALLBACKS, order_no):
        columns = dict(row)
        fields = msgspec.json.decode(columns.pop("row"), type=dict[str, Any])
        try:
            fields["body"] = _text(open_body(sealer, **columns))
        except ConfigurationError:
            fields["body"] = None
        found.append(fields)
    return found


async def _refused(db: Database, sealer: Sealer, order_no: str) -> list[dict[str, Any]]:
    """Refused callbacks that named a payment of the order, with their first bytes if those are kept."""
    found = []
    for row in await db.fetch(_REFUSED, order_no):
        columns = dict(row)
        fields = msgspec.json.decode(columns.pop("row"), type=dict[str, Any])
        try:
            fields["body"] = None if columns["body"] is None else _text(open_refused(sealer, **columns))
        except ConfigurationError:
            fields["body"] = None
        found.append(fields)
    return found


def _text(body: bytes) -> str | dict[str, bytes]:
    """JSON of bytes: a text, or `{"base64": …}`."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": body}
