"""Orders: find one by any number, list them by filters, and the list as a file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from urllib.parse import urlencode

import msgspec

from api.console.instants import midnight
from api.console.render import csv_file, csv_lines, render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.errors import InvalidRequest
from core.money import CURRENCIES, decimal_text, minor_units
from core.order import OrderStatus, public_status
from core.sentences import Sentence
from storage.postgres.accounts import list_accounts
from storage.postgres.order_lists import OrderFilter, list_by_filter, walk_by_filter
from storage.postgres.order_rows import OrderRow
from storage.postgres.search import NUMBER_CHARACTERS_MAX, find_by_number, order_of, token_of

PAGE = 50
FILE_ROWS_MAX = 10_000
FILE_PAGES_MAX = 40
FILE_PAGE = 500


class Query(msgspec.Struct, frozen=True, kw_only=True, rename={"since": "from"}):
    """Filters as the address has them. Days are in UTC, both within."""

    number: str = ""
    status: OrderStatus | None = None
    account: str = ""
    amount: str = ""
    currency: str = ""
    since: date | None = None
    until: date | None = None
    paid_from: date | None = None
    paid_until: date | None = None
    cases: str = ""
    undelivered: str = ""
    cursor: str | None = None


async def show(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(Query)
    if query.number:
        return await _show_matches(visit, query)
    page = await list_by_filter(visit.db, filter_of(query), cursor=query.cursor, limit=PAGE)
    return render(
        visit,
        "orders/list.html",
        title=visit.language.texts["orders.title"],
        query=query,
        accounts=await _accounts(visit),
        states=[(state, public_status(state.order, state.payments, state.disputes)) for state in page.states],
        sorted_by=page.sorted_by,
        ends_early=page.ends_early,
        more=visit.url(cursor=page.next_cursor) if page.next_cursor else "",
        file=visit.url(cursor=None).replace("/ops/orders", "/ops/orders.csv", 1),
        matches=None,
    )


async def find(_context: Context, visit: Visit) -> Reply:
    """The search box. It is a form, so that a page's link, which is a secret, is in no address."""
    number = visit.form.get("number", "").strip()
    if not number:
        return see_other("/ops/orders")
    if len(number) > NUMBER_CHARACTERS_MAX:
        raise InvalidRequest(Sentence("a number has at most {max} characters", max=NUMBER_CHARACTERS_MAX))
    order_no = order_of(await find_by_number(visit.db, number))
    if order_no is not None:
        return see_other(path_of("/ops/orders/{order_no}", order_no=order_no))
    if token_of(number) is not None:
        return see_other("/ops/orders", "orders.no_such_link")
    return see_other(f"/ops/orders?{urlencode({'number': number})}")


async def download(_context: Context, visit: Visit) -> Reply:
    """The orders that the filters choose, at most 10,000. `incomplete` in its name: there are more."""
    wanted = filter_of(visit.read_query(Query))
    await visit.record(ActName.ORDERS_FILE, "", dict(visit.query))
    lines: list[bytes] = []
    is_whole = False
    async for page in walk_by_filter(
        visit.db, wanted, limit=FILE_PAGE, rows_max=FILE_ROWS_MAX, pages_max=FILE_PAGES_MAX
    ):
        lines.append(csv_lines(map(_cells, page.rows)))
        is_whole = page.is_last
    return csv_file("orders" if is_whole else "orders-incomplete", _COLUMNS, *lines)


async def _show_matches(visit: Visit, query: Query) -> Reply:
    matches = await find_by_number(visit.db, query.number)
    order_no = order_of(matches)
    if order_no is not None:
        return see_other(path_of("/ops/orders/{order_no}", order_no=order_no))
    return render(
        visit,
        "orders/list.html",
        title=visit.language.texts["orders.title"],
        query=query,
        accounts=await _accounts(visit),
        states=[],
        sorted_by="",
        ends_early=False,
        more="",
        file="",
        matches=matches,
    )


async def _accounts(visit: Visit) -> list[str]:
    return [account.name for account in await list_accounts(visit.db)]


def filter_of(query: Query) -> OrderFilter:
    """The filter of an address.

    Raises:
        InvalidRequest: a currency or an amount that is none.
    """
    currency = query.currency.strip().upper() or None
    if currency is not None and currency not in CURRENCIES:
        raise InvalidRequest("currency: a code of ISO 4217, such as CNY")
    amount = query.amount.strip() or None
    if amount is not None and currency is None:
        raise InvalidRequest("currency is missing: an amount is of one currency")
    return OrderFilter(
        status=query.status,
        account=query.account or None,
        amount=None if amount is None or currency is None else minor_units(amount, currency),
        currency=currency,
        created_from=midnight(query.since),
        created_until=midnight(query.until, days=1),
        paid_from=midnight(query.paid_from),
        paid_until=midnight(query.paid_until, days=1),
        open_cases=bool(query.cases),
        undelivered=bool(query.undelivered),
    )


_COLUMNS = (
    *("order_no", "placed_at", "status", "page_status", "amount", "currency", "subject", "paid_at", "closed_at"),
    *("accounts", "out_trade_nos", "channel_transaction_ids", "refunded", "open_cases"),
)


def _cells(order: OrderRow) -> Sequence[object]:
    return (
        order.order_no,
        order.created_at,
        order.status.value,
        order.page_status.value,
        decimal_text(order.amount, order.currency),
        order.currency,
        order.subject,
        order.paid_at,
        order.closed_at,
        " ".join(dict.fromkeys(order.accounts)),
        " ".join(order.out_trade_nos),
        " ".join(order.channel_transaction_ids),
        "" if order.refunded is None else decimal_text(order.refunded, order.currency),
        " ".join(order.reasons),
    )
