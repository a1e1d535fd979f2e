"""Lists of orders by what a person may filter them by, page by page.

Each combination of filters has one index that is walked in the order of the list; the filters that this index does not
hold are tested row by row, for a bounded number of rows. A page may then end early: it says so, and the next page goes
on from there. So no list reads a whole table, however rare its orders are, and no order pays for an index of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from core.errors import InvalidRequest
from core.order import OrderState, OrderStatus
from storage.postgres.cursors import decode_cursor, encode_cursor, is_number, is_text
from storage.postgres.database import Database
from storage.postgres.order_rows import OrderRow, find_order_rows
from storage.postgres.orders import find_states

WALKED_MAX = 5_000
"""Rows that one page looks at: some 50 ms."""


class OrderFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A choice of orders. All of it holds for each order in the list.

    `amount` is in minor units and needs a `currency`. `account`: with a payment there. The time of paying is when the
    order became paid here. `undelivered`: a notification has not reached the merchant, waiting or given up.
    """

    status: OrderStatus | None = None
    account: str | None = None
    amount: int | None = None
    currency: str | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None
    paid_from: datetime | None = None
    paid_until: datetime | None = None
    open_cases: bool = False
    undelivered: bool = False

    @property
    def has_paid_time(self) -> bool:
        return self.paid_from is not None or self.paid_until is not None

    @property
    def has_created_time(self) -> bool:
        return self.created_from is not None or self.created_until is not None

    @property
    def is_open(self) -> bool:
        return self.status in (OrderStatus.CREATED, OrderStatus.PAYING)

    @property
    def is_empty(self) -> bool:
        """Whether no order can be in it: one that is not paid has no time of payment."""
        return self.has_paid_time and self.status not in (None, OrderStatus.PAID)


class OrderList(msgspec.Struct, frozen=True, kw_only=True):
    """One page. `next_cursor` None: there is no more. `ends_early`: more rows have to be looked at than one page may.

    `sorted_by`: placed, paid, closed, due (undelivered: the next delivery, or when it was given up), case_opened,
    number (of the payment: ours begin with a time) or order_no; the newest or the largest first.
    """

    states: list[OrderState]
    next_cursor: str | None
    ends_early: bool
    sorted_by: str


class RowPage(NamedTuple):
    """Lines of one page; `is_last`: there is no more."""

    rows: list[OrderRow]
    is_last: bool


class _Numbers(NamedTuple):
    """Numbers of the orders of one page, and the rest as in `OrderList`."""

    order_nos: list[str]
    next_cursor: str | None
    ends_early: bool


class _Part(NamedTuple):
    """Rows of one index: its table, the columns of its order, and the condition of the rows."""

    table: str
    at: str
    key: str
    condition: str


class _Walk(NamedTuple):
    """Indexes to be walked, and the filters that they hold. `is_by_key`: the key is in them, and no time."""

    sorted_by: str
    parts: tuple[_Part, ...]
    holds: frozenset[str]
    newer: str = ""
    """Counts the rows of an order that come before this one in the list, if it may have several."""
    tests: tuple[str, ...] = ()
    """Further conditions of the rows, which the index does not have."""
    is_by_key: bool = False
    key_type: str = "text"


# Counted order by order, where EXISTS might read all that fulfil the condition, or walk the very index again.
_COUNTED = "(SELECT count(*) FROM (SELECT * FROM {table} WHERE order_no = w.order_no OFFSET 0) AS t WHERE {condition})"


def _counted(table: str, condition: str) -> str:
    return _COUNTED.format(table=table, condition=condition)


_IS_UNDELIVERED = "delivered_at IS NULL AND superseded_at IS NULL"
_UNDELIVERED = _Walk(
    "due",
    (
        _Part("notifications", "due_at", "id", f"{_IS_UNDELIVERED} AND dead_at IS NULL"),
        _Part("notifications", "dead_at", "id", f"{_IS_UNDELIVERED} AND dead_at IS NOT NULL"),
    ),
    frozenset({"undelivered"}),
    _counted("notifications", f"{_IS_UNDELIVERED} AND (coalesce(t.dead_at, t.due_at), t.id) > (w.at, w.key)"),
)
# As its index has it, which says of each id that it is above 0, so that no other index will do.
_IS_OPEN_CASE = "resolved_at IS NULL AND id > 0 AND order_no IS NOT NULL"
_OPEN_CASES = _Walk(
    "case_opened",
    (_Part("cases", "opened_at", "id", _IS_OPEN_CASE),),
    frozenset({"open_cases"}),
    _counted("cases", f"{_IS_OPEN_CASE} AND (t.opened_at, t.id) > (w.at, w.key)"),
    key_type="bigint",
)
_AMOUNT = _Walk(
    "placed",
    (_Part("orders", "created_at", "order_no", "currency = {currency} AND amount = {amount}"),),
    frozenset({"currency", "amount", "created"}),
)
# Every order that is not resolved has the row of its deadline, whose number is the order's.
_OPEN = _Walk(
    "order_no",
    (_Part("pending", "due_at", "out_trade_no", "channel_account = ''"),),
    frozenset(),
    is_by_key=True,
)
_ACCOUNT = _Walk(
    "number",
    (_Part("payments", "created_at", "out_trade_no", "channel_account = {account}"),),
    frozenset({"account"}),
    _counted("payments", "t.channel_account = {account} AND t.out_trade_no > w.key"),
    is_by_key=True,
)
_EVENTS = _Part("order_events", "at", "order_no", "kind IN ('paid', 'paid_late', 'double_payment', 'closed')")
"""As the index has it; which of these events an order is in a list for is tested."""

_BECAME_PAID = "t.kind IN ('paid', 'paid_late')"
# Late money may be seen first and accepted later: the last of them made the order paid.
_PAID = _Walk(
    "paid",
    (_EVENTS,),
    frozenset({"paid"}),
    _counted("order_events", f"{_BECAME_PAID} AND t.at > w.at"),
    tests=("w.kind IN ('paid', 'paid_late')", "o.status = 'paid'"),
)
_CLOSED = _Walk("closed", (_EVENTS,), frozenset(), tests=("w.kind = 'closed'",))
_PLACED = _Walk("placed", (_Part("orders", "created_at", "order_no", "true"),), frozenset({"created"}))


def _walk_of(wanted: OrderFilter) -> _Walk:
    """The index with the fewest rows to expect: exceptions first, then an amount, what is open, an account."""
    if wanted.undelivered:
        return _UNDELIVERED
    if wanted.open_cases:
        return _OPEN_CASES
    if wanted.amount is not None:
        return _AMOUNT
    if wanted.is_open:
        return _OPEN
    if wanted.has_paid_time:
        return _PAID
    if wanted.has_created_time:
        return _PLACED
    if wanted.account is not None:
        return _ACCOUNT
    return _PLACED if wanted.status is None else _BY_STATUS[wanted.status]


_BY_STATUS = {OrderStatus.PAID: _PAID, OrderStatus.CLOSED: _CLOSED}


class _Arguments:
    """Values of a statement, by their places in it."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def __call__(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


_After = tuple[datetime, object] | None


async def list_by_filter(db: Database, wanted: OrderFilter, *, cursor: str | None = None, limit: int = 50) -> OrderList:
    """One page.

    Raises:
        InvalidRequest: the cursor is not one of ours, or an amount is without its currency.
    """
    page = await _numbers_by_filter(db, wanted, cursor, limit)
    found = await find_states(db, page.order_nos)
    return OrderList(
        states=[found[order_no] for order_no in page.order_nos if order_no in found],
        next_cursor=page.next_cursor,
        ends_early=page.ends_early,
        sorted_by=_walk_of(wanted).sorted_by,
    )


async def walk_by_filter(
    db: Database, wanted: OrderFilter, *, limit: int, rows_max: int, pages_max: int
) -> AsyncIterator[RowPage]:
    """Pages of lines one after another, at most so many orders and pages. Raises as `list_by_filter`."""
    cursor: str | None = None
    left = rows_max
    for _ in range(pages_max):
        page = await _numbers_by_filter(db, wanted, cursor, min(limit, left))
        rows = await find_order_rows(db, page.order_nos)
        cursor = page.next_cursor
        yield RowPage(rows, is_last=cursor is None)
        left -= len(rows)
        if cursor is None or left <= 0:
            return


async def _numbers_by_filter(db: Database, wanted: OrderFilter, cursor: str | None, limit: int) -> _Numbers:
    """The numbers of the orders of one page. Raises as `list_by_filter`."""
    if wanted.amount is not None and wanted.currency is None:
        raise InvalidRequest("currency is missing: an amount is of one currency")
    walk = _walk_of(wanted)
    after = _place_in(walk, cursor)
    if wanted.is_empty:
        return _Numbers([], None, ends_early=False)
    statement, values = _page(walk, wanted, after, limit + 1)
    rows = await db.fetch(statement, *values)
    has_more = len(rows) > limit
    end = rows[limit - 1] if has_more else await _end_of_walk(db, walk, wanted, after)
    return _Numbers(
        [row["order_no"] for row in rows[:limit]],
        None if end is None else encode_cursor(end["at"], str(end["key"])),
        ends_early=end is not None and not has_more,
    )


def _place_in(walk: _Walk, cursor: str | None) -> _After:
    is_named = walk.key_type == "text"
    at, key = decode_cursor(cursor, is_text if is_named else is_number)
    if at is None or key is None:
        return None
    return at, key if is_named else int(key)


def _page(walk: _Walk, wanted: OrderFilter, after: _After, limit: int) -> tuple[str, list[object]]:
    """Walk the index, test what it does not hold, and stop after `limit` orders or `WALKED_MAX` rows."""
    value = _Arguments()
    walked = _walked(walk, wanted, after, value)
    tests = _tests(walk, wanted, value)
    if walk.newer:
        tests.append(f"0 = {_filled(walk.newer, wanted, value)}")
    return (
        f"""
SELECT w.order_no, w.at, w.key
  FROM ({walked}) AS w
 CROSS JOIN LATERAL (SELECT * FROM orders WHERE orders.order_no = w.order_no LIMIT 1) AS o
 WHERE {" AND ".join(tests) or "true"}
 ORDER BY {_order(walk, "w.at", "w.key")}
 LIMIT {value(limit)}""",
        value.values,
    )


async def _end_of_walk(db: Database, walk: _Walk, wanted: OrderFilter, after: _After) -> Any:
    """The last row that such a page looks at, if there may be rows behind it."""
    value = _Arguments()
    walked = _walked(walk, wanted, after, value)
    return await db.fetchrow(f"SELECT at, key FROM ({walked}) AS w OFFSET {WALKED_MAX - 1} LIMIT 1", *value.values)


def _walked(walk: _Walk, wanted: OrderFilter, after: _After, value: _Arguments) -> str:
    """The rows that a page looks at, in the order of the list."""
    parts = [_walked_part(walk, part, wanted, after, value) for part in walk.parts]
    if len(parts) == 1:
        return parts[0]
    united = " UNION ALL ".join(f"({part})" for part in parts)
    return f"SELECT * FROM ({united}) AS u ORDER BY {_order(walk, 'u.at', 'u.key')} LIMIT {WALKED_MAX}"


def _walked_part(walk: _Walk, part: _Part, wanted: OrderFilter, after: _After, value: _Arguments) -> str:
    conditions = [_filled(part.condition, wanted, value)]
    since, until = _bounds(walk, wanted)
    if since is not None:
        conditions.append(f"t.{part.at} >= {value(since)}")
    if until is not None:
        conditions.append(f"t.{part.at} < {value(until)}")
    if after is not None and walk.is_by_key:
        conditions.append(f"t.{part.key} < {value(after[1])}")
    elif after is not None:
        # The first says it for an index that has the time alone.
        at, key = value(after[0]), value(after[1])
        conditions.append(f"t.{part.at} <= {at} AND (t.{part.at}, t.{part.key}) < ({at}, {key})")
    elif not walk.is_by_key:
        # True of all: so an index that has the time first is the cheapest while all indexes are small.
        conditions.append(f"t.{part.at} < 'infinity'")
    return f"""
        SELECT t.order_no, t.{part.at} AS at, t.{part.key} AS key{_MORE.get(part.table, "")} FROM {part.table} AS t
         WHERE {" AND ".join(conditions)}
         ORDER BY {_order(walk, f"t.{part.at}", f"t.{part.key}")}
         LIMIT {WALKED_MAX}"""


_MORE = {"order_events": ", t.kind"}
"""A further column that is tested."""


def _order(walk: _Walk, at: str, key: str) -> str:
    return f"{key} DESC" if walk.is_by_key else f"{at} DESC, {key} DESC"


def _filled(condition: str, wanted: OrderFilter, value: _Arguments) -> str:
    """The condition, with places for the values that it names."""
    names = [name for name in ("account", "amount", "currency") if f"{{{name}}}" in condition]
    return condition.format(**{name: value(getattr(wanted, name)) for name in names})


def _bounds(walk: _Walk, wanted: OrderFilter) -> tuple[datetime | None, datetime | None]:
    """The ends of the walk, where it goes along a time that is filtered by."""
    if "created" in walk.holds:
        return wanted.created_from, wanted.created_until
    return (wanted.paid_from, wanted.paid_until) if "paid" in walk.holds else (None, None)


def _tests(walk: _Walk, wanted: OrderFilter, value: _Arguments) -> list[str]:
    """Conditions of the filters that the index does not hold."""
    tests = list(walk.tests)
    if wanted.status is not None:
        tests.append(f"o.status = {value(wanted.status)}")
    columns = {
        "amount": (("o.amount =", wanted.amount),),
        "currency": (("o.currency =", wanted.currency),),
        "created": (("o.created_at >=", wanted.created_from), ("o.created_at <", wanted.created_until)),
    }
    for name, comparisons in columns.items():
        if name not in walk.holds:
            tests += [f"{compared} {value(wish)}" for compared, wish in comparisons if wish is not None]
    return tests + _tests_of_others(walk, wanted, value)


def _tests_of_others(walk: _Walk, wanted: OrderFilter, value: _Arguments) -> list[str]:
    """Conditions on what belongs to the order."""
    tests = []
    if wanted.account is not None and "account" not in walk.holds:
        tests.append(f"0 < {_counted('payments', f't.channel_account = {value(wanted.account)}')}")
    if wanted.open_cases and "open_cases" not in walk.holds:
        tests.append(f"0 < {_counted('cases', _IS_OPEN_CASE)}")
    if wanted.undelivered and "undelivered" not in walk.holds:
        tests.append(f"0 < {_counted('notifications', _IS_UNDELIVERED)}")
    if wanted.has_paid_time and "paid" not in walk.holds:
        tests.append("o.status = 'paid'")
        tests.append(f"0 < {_counted('order_events', _became_paid(wanted, value))}")
    return tests


def _became_paid(wanted: OrderFilter, value: _Arguments) -> str:
    conditions = [_BECAME_PAID]
    if wanted.paid_from is not None:
        conditions.append(f"t.at >= {value(wanted.paid_from)}")
    if wanted.paid_until is not None:
        conditions.append(f"t.at < {value(wanted.paid_until)}")
    return " AND ".join(conditions)
