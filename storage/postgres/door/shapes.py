"""Shapes of the door's statement: texts with some of its parts.

Every part of a statement begins with it, whether it has rows or not, and all of them cost ten times what an order
costs. So a statement has the parts of the first shape that is enough. They are few: Postgres keeps a plan of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from storage.postgres.door.statement import PARTS

LOCK_WAIT_MS = 10

_SECTION = re.compile(r"^-- PART (\S+)\n(.*?)(?=\n-- PART |\n\Z)", re.DOTALL | re.MULTILINE)
_SECTIONS = [(name, sql) for name, sql in _SECTION.findall(PARTS)]

_WRITTEN = {"orders.insert": "inserted_orders", "orders.update": "updated_orders"}
_SCHEDULED = {"pending.insert": "inserted_pending", "pending.update": "updated_pending"}
_NO_ORDERS = "SELECT NULL::text AS order_no, NULL::integer AS version WHERE false"

_GROUPED = """(SELECT json_object_agg(order_no, rows) FROM (
        SELECT order_no, json_agg({row}) AS rows FROM ({part}) AS part GROUP BY order_no) AS grouped)"""
_OF_ORDER = "(SELECT json_object_agg(order_no, {column}) FROM {part})"
_LEFT = """(SELECT json_object_agg(order_no, true) FROM order_rows
      WHERE operation = 'update' AND order_no <> ALL(ARRAY(SELECT order_no FROM locked_orders)))"""


class Shape(NamedTuple):
    """The operations that it has parts for, and its texts for a decision alone and for those of many callers.

    `alone` waits for whoever has locked its rows. In `together` orders are locked in the order of their numbers, or two
    batches would wait for each other; one that somebody else holds is left out, and named. For any other row it waits
    `LOCK_WAIT_MS` at most. The batch is halved then until the row's decision is alone, after seven waits at most: so
    nobody waits a tenth of a second for the lock of another order.
    """

    operations: AbstractSet[str]
    alone: str
    together: str


def _shape(operations: AbstractSet[str]) -> Shape:
    return Shape(operations, _text(operations, together=False), _text(operations, together=True))


def _text(operations: AbstractSet[str], *, together: bool) -> str:
    wanted = operations | {operation.partition(".")[0] for operation in operations}
    if together and "orders.update" in operations:
        wanted |= {"orders.locked"}
    orders = [sql for name, sql in _SECTIONS if name in wanted and name.startswith("orders")]
    others = [sql for name, sql in _SECTIONS if name in wanted and not name.startswith("orders")]
    limit = f", set_config('lock_timeout', '{LOCK_WAIT_MS}', true)" if together else ""
    document = f"document AS MATERIALIZED (SELECT $1::text::jsonb AS d{limit})"
    changed = f"changed_orders AS ({_union(_WRITTEN, operations) or _NO_ORDERS})"
    written = ",\n".join((document, *orders, changed, *others))
    written = written.replace("{rows to update}", "locked_orders" if "orders.locked" in wanted else "order_rows")
    results = ",\n    ".join(f"'{name}', coalesce({rows}, '{{}}')" for name, rows in _results(wanted))
    return f"WITH {written}\nSELECT json_build_object(\n    {results})::text"


def _union(parts: dict[str, str], operations: AbstractSet[str]) -> str:
    return " UNION ALL ".join(f"SELECT * FROM {part}" for name, part in parts.items() if name in operations)


def _results(wanted: AbstractSet[str]) -> Iterable[tuple[str, str]]:
    """The results of the statement, by name: rows by the number of their order."""
    if "orders" in wanted:
        yield "changed_orders", _OF_ORDER.format(column="version", part="changed_orders")
    if "orders.locked" in wanted:
        yield "left_orders", _LEFT
    if scheduled := _union(_SCHEDULED, wanted):
        yield "scheduled_pending", _GROUPED.format(row="part", part=scheduled)
    if "pending.delete" in wanted:
        yield "deleted_pending", _GROUPED.format(row="part", part="SELECT * FROM deleted_pending")
    if "notifications" in wanted:
        yield "inserted_notifications", _OF_ORDER.format(column="id", part="inserted_notifications")
    if "refunds.insert" in wanted:
        yield "inserted_refunds", _GROUPED.format(row="refund_no", part="SELECT * FROM inserted_refunds")


# -- the shapes --------------------------------------------------------------------------------------------------------

_PLACED = frozenset({"orders.insert", "payments.insert", "pending.insert", "events.insert"})
_MOVED = frozenset({"orders.update", "payments.update", "events.insert"})
_PAID = _MOVED | {"pending.delete", "notifications.insert", "callbacks.update"}
_UNPAID = frozenset({"pending.update", "observations.insert"})
_USUAL = _PLACED | _PAID | _UNPAID
_RARE = frozenset({"cases.insert", "cases.update", "refunds.insert", "refunds.update", "disputes.write"})

SHAPES = tuple(
    map(
        _shape,
        (_UNPAID, _MOVED, _PLACED, _PAID, _PLACED | _PAID, _USUAL, _USUAL | _RARE | {"notifications.supersede"}),
    )
)
"""The first one that has parts for all operations is sent: smaller ones first, and the last one has every part."""
