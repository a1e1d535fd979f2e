"""Addresses of every page of the console, as an operator opens them: each row of its table, and filters that matter.

A page is asked for about other orders each time. A parameter's values are those of the rows in `bench.console_rows`; it
is named by what stands before it in the address, so a new page about an order is measured by being in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain, pairwise
from typing import NamedTuple
from urllib.parse import quote, urlencode

from api.console import assets
from api.console.rows import Row
from bench.buyer import Unexpected
from bench.console_rows import ENDPOINT, PAID, PAUSED
from core.rollups import SPANS
from storage.postgres.callback_history import CallbackState
from storage.postgres.cursors import encode_cursor
from storage.postgres.database import Database
from storage.postgres.deliveries import Listed

Address = Callable[[int], str]
"""The address of a page in its turn n."""

Values = Mapping[str, Sequence[str]]
"""Values of the parameters of addresses, by the part of the address before them."""

OPERATOR = "bench"
ACCOUNT = "sandbox"
TURNS = 8
"""Different values of a parameter."""

_NEEDED: Mapping[str, Mapping[str, str]] = {"/ops/endpoints/show": {"endpoint": ENDPOINT}}
"""Queries without which a page is none."""


class Places(NamedTuple):
    """Keys of the last pages of lists."""

    order: str
    paid: str
    delivered: str
    callback: str
    case: str
    act: str
    closing: date


_LAST_ORDER = "SELECT created_at AS at, order_no AS id FROM orders ORDER BY created_at, order_no OFFSET 9 LIMIT 1"
_LAST_PAID = """
SELECT at, order_no AS id FROM order_events WHERE kind IN ('paid', 'paid_late', 'double_payment', 'closed')
 ORDER BY at OFFSET 9 LIMIT 1"""
_LAST_DELIVERED = """
SELECT coalesce(delivered_at, superseded_at) AS at, id FROM notifications
 WHERE delivered_at IS NOT NULL OR superseded_at IS NOT NULL
 ORDER BY coalesce(delivered_at, superseded_at), id OFFSET 9 LIMIT 1"""
_LAST_CALLBACK = "SELECT received_at AS at, id FROM callbacks ORDER BY received_at, id OFFSET 9 LIMIT 1"
_LAST_CASE = """
SELECT opened_at AS at, id FROM cases WHERE resolved_at IS NULL AND id > 0 ORDER BY opened_at DESC, id DESC
OFFSET 9 LIMIT 1"""
_LAST_ACT = "SELECT at, id FROM audit ORDER BY at, id OFFSET 9 LIMIT 1"
_MANY_DIFFERENCES = "SELECT id FROM reconciliations ORDER BY id DESC LIMIT 2"


async def find_places(db: Database) -> Places:
    """Where the last page of each list begins."""

    async def cursor(sql: str) -> str:
        row = await db.fetchrow(sql)
        assert row is not None, "the lists have rows"
        return encode_cursor(row["at"], str(row["id"]))

    return Places(
        order=await cursor(_LAST_ORDER),
        paid=await cursor(_LAST_PAID),
        delivered=await cursor(_LAST_DELIVERED),
        callback=await cursor(_LAST_CALLBACK),
        case=await cursor(_LAST_CASE),
        act=await cursor(_LAST_ACT),
        closing=datetime.now(UTC).date() - timedelta(days=85),
    )


async def find_values(db: Database, orders: int) -> Values:
    """Values of the parameters, for orders that were paid."""
    numbers = [turn * 7919 * 10 % max(10, orders - orders % 10) + 1 for turn in range(TURNS)]
    yesterday = datetime.now(UTC).date() - timedelta(days=1)

    async def ids(sql: str, *args: object) -> list[str]:
        return [str(row["id"]) for row in await db.fetch(sql, *args)]

    return {
        "orders": [f"copy-{number}" for number in numbers],
        "refund": [f"n-{number}" for number in numbers],
        "approvals": await ids("SELECT id FROM refund_approvals ORDER BY id DESC LIMIT $1", TURNS),
        "cases": await ids("SELECT id FROM cases WHERE resolved_at IS NULL ORDER BY id DESC LIMIT $1", TURNS),
        "notifications": [f"msg-{number}" for number in numbers],
        "callbacks": await ids("SELECT id FROM callbacks WHERE out_trade_no NOT LIKE 'n-%' LIMIT 1"),
        "days": [ACCOUNT],
        "{account}": [yesterday.isoformat()],
        "reconciliation": await ids(_MANY_DIFFERENCES),
        "accounts": [ACCOUNT],
        "operators": [OPERATOR],
        "static": [assets.url("ops.css").rpartition("/")[2]],
    }


def pages_of(rows: Iterable[Row], values: Values, places: Places) -> dict[str, Address]:
    """Every page of the table by its pattern, and the lists with their filters.

    Raises:
        Unexpected: a parameter has no values here.
    """
    whole = {row.route.pattern: _address(row.route.pattern, values) for row in rows if row.route.method == "GET"}
    return whole | {name: _fixed(address) for name, address in _filtered(places, values).items()}


def _address(pattern: str, values: Values) -> Address:
    choices = {}
    query = f"?{urlencode(_NEEDED[pattern])}" if pattern in _NEEDED else ""
    for before, name in _parameters(pattern):
        if not values.get(before):
            raise Unexpected(f"{pattern}: the benchmark has no value of {name} after {before}")
        choices[name] = values[before]

    def address(turn: int) -> str:
        chosen = {name: quote(several[turn % len(several)], safe="") for name, several in choices.items()}
        return pattern.format(**chosen) + query

    return address


def _parameters(pattern: str) -> list[tuple[str, str]]:
    """`/ops/days/{account}/{day}` → [("days", "account"), ("{account}", "day")]."""
    parts = pattern.split("/")
    return [(before, part[1:-1]) for before, part in pairwise(parts) if part.startswith("{")]


def _fixed(address: str) -> Address:
    return lambda _turn: address


def _filtered(places: Places, values: Values) -> dict[str, str]:
    """Addresses with filters, by name: the commonest, the rarest, what fits nothing, and the last page."""
    groups = (
        _of_orders(places),
        _of_deliveries(places),
        _of_the_rest(places, values),
        {f"/ops {span}": f"/ops?span={span}" for span in SPANS},
        {f"/ops/accounts {span}": f"/ops/accounts/{ACCOUNT}?span={span}" for span in ("7d", "90d")},
        {f"/ops/overview/live {span}": f"/ops/overview/live?span={span}" for span in ("7d", "90d")},
    )
    return dict(chain.from_iterable(group.items() for group in groups))


def _of_orders(places: Places) -> dict[str, str]:
    today = datetime.now(UTC).date()
    long_ago, month_ago, week_ago = ((today - timedelta(days=days)).isoformat() for days in (89, 30, 7))
    filters: dict[str, dict[str, str]] = {
        "last page": {"cursor": places.order},
        "prefix": {"number": "copy-"},
        "no such number": {"number": "none-1"},
        "paid": {"status": "paid"},
        "paid, last page": {"status": "paid", "cursor": places.paid},
        "closed": {"status": "closed"},
        "paying": {"status": "paying"},
        "created": {"status": "created"},
        "account": {"account": ACCOUNT},
        "rare account": {"account": "rare"},
        "amount": {"amount": "47.11", "currency": "CNY"},
        "amount, closed": {"amount": "1.09", "currency": "CNY", "status": "closed"},
        "no such amount": {"amount": "0.01", "currency": "CNY"},
        "currency": {"currency": "CNY"},
        "rare currency": {"currency": "USD"},
        "open cases": {"cases": "1"},
        "open cases, rare account": {"cases": "1", "account": "rare"},
        "undelivered": {"undelivered": "1"},
        "undelivered, rare account": {"undelivered": "1", "account": "rare"},
        "placed between": {"from": month_ago, "until": week_ago},
        "placed long ago, rare account": {"until": long_ago, "account": "rare"},
        "paid between": {"paid_from": month_ago, "paid_until": week_ago},
        "paid between, rare account": {"paid_from": month_ago, "paid_until": week_ago, "account": "rare"},
        "paid between, open cases": {"paid_from": month_ago, "paid_until": week_ago, "cases": "1"},
        "account, closed": {"account": "second", "status": "closed"},
    }
    lists = {f"/ops/orders {name}": f"/ops/orders?{urlencode(chosen)}" for name, chosen in filters.items()}
    files = {
        f"/ops/orders.csv {name}": f"/ops/orders.csv?{urlencode(filters[name])}"
        for name in ("rare currency", "open cases", "undelivered, rare account")
    }
    return {**lists, **files, "/ops/orders/{order_no} first": f"/ops/orders/{PAID}"}


def _of_deliveries(places: Places) -> dict[str, str]:
    nobody, resend = "https://nobody.test/", "/ops/notifications/resend"
    lists: dict[str, dict[str, str]] = {
        **{str(listed): {"status": str(listed)} for listed in Listed},
        "delivered, last page": {"status": "delivered", "cursor": places.delivered},
        "delivered, one endpoint": {"status": "delivered", "endpoint": ENDPOINT, "since": "7d"},
        "delivered, no endpoint": {"status": "delivered", "endpoint": nobody},
        "undelivered, one endpoint": {"endpoint": ENDPOINT},
        "undelivered, no endpoint": {"endpoint": nobody},
        "of an order": {"order_no": PAID},
    }
    return {
        **{f"/ops/notifications {name}": f"/ops/notifications?{urlencode(chosen)}" for name, chosen in lists.items()},
        f"{resend} all of an endpoint": f"{resend}?{urlencode({'what': 'all', 'endpoint': ENDPOINT, 'since': '7d'})}",
        "/ops/endpoints/show paused": f"/ops/endpoints/show?{urlencode({'endpoint': PAUSED})}",
        "/ops/endpoints/show nobody": f"/ops/endpoints/show?{urlencode({'endpoint': nobody})}",
    }


def _of_the_rest(places: Places, values: Values) -> dict[str, str]:
    week_ago = (datetime.now(UTC) - timedelta(days=7)).date().isoformat()
    of: dict[str, dict[str, dict[str, str]]] = {
        "/ops/callbacks": {
            **{str(state): {"state": str(state)} for state in CallbackState},
            **{f"{state}, rare account": {"state": str(state), "account": "rare"} for state in CallbackState},
            "rare account": {"account": "rare"},
            "no such account": {"account": "nobody"},
            "of an order": {"order": PAID},
            "last page": {"cursor": places.callback},
        },
        "/ops/cases": {
            "common reason": {"reason": "paid_late"},
            "rare reason": {"reason": "transaction_claimed_twice"},
            "no such reason": {"reason": "disputed"},
            "mine": {"whose": "mine"},
            "nobody's": {"whose": "nobody"},
            "old": {"age": "week"},
            "last page": {"cursor": places.case},
        },
        "/ops/audit": {
            "person": {"by": "anna"},
            "rare act": {"action": "rare"},
            "person, rare act": {"by": "anna", "action": "rare"},
            "person without such an act": {"by": "anna", "action": "none"},
            "person, days": {"by": "p-7", "until": week_ago},
            "nobody": {"by": "nobody"},
            "subject": {"subject": values["orders"][1]},
            "person, other subject": {"by": "p-7", "subject": values["orders"][1]},
            "act, other subject": {"action": "order.query", "subject": "nothing"},
            "last page": {"before": places.act},
        },
        "/ops/audit.csv": {"person without such an act": {"by": "anna", "action": "none"}},
        "/ops/days": {
            "account": {"account": ACCOUNT},
            "last page": {"before": places.closing.isoformat(), "before_account": ACCOUNT},
        },
        "/ops/disputes": {"won": {"state": "won"}, "rare account": {"account": "rare"}, "lost": {"state": "lost"}},
        "/ops/reconciliation": {"account": {"account": ACCOUNT}, "last page": {"before": "40"}},
    }
    many = f"/ops/reconciliation/{values['reconciliation'][0]}"
    found = {
        f"{path} {name}": f"{path}?{urlencode(chosen)}"
        for path, choices in of.items()
        for name, chosen in choices.items()
    }
    return {**found, "/ops/reconciliation/{id} kind without rows": f"{many}?kind=currency"}
