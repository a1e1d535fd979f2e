"""Lists of orders: each combination of filters, page by page, and never more rows than a page may look at."""

from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.lifecycle import on_deadline
from core.order import OrderStatus
from storage.postgres import database, order_lists
from storage.postgres.database import Database
from storage.postgres.order_lists import OrderFilter, list_by_filter, walk_by_filter
from storage.postgres.orders import find_now
from storage.postgres.search import find_by_number
from tests.storage.postgres import test_table_scans
from tests.storage.postgres.plans import read_so_far
from tests.storage.postgres.test_table_scans import analysed, copy_first
from tests.storage.postgres.tools import (
    RULES,
    closed,
    commit_evidence,
    moved,
    number,
    paid,
    placed,
    started,
    terms_of,
)


async def listed(db: Database, limit: int = 50, **filters: Any) -> list[str]:
    """All pages together."""
    found: list[str] = []
    cursor = None
    while True:
        page = await list_by_filter(db, OrderFilter(**filters), cursor=cursor, limit=limit)
        assert len(page.states) <= limit
        found += [state.order.order_no for state in page.states]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def fill(db: Database) -> datetime:
    """Seven orders, placed one after another; returns the time after the third was placed."""
    await placed(db, "A-1")  # paid, notified
    await placed(db, "A-2", payment=terms_of(number("A-2", "wechat")))  # paying
    await placed(db, "A-3", without_payment=True)  # created
    middle = await find_now(db)
    await placed(db, "A-4", amount=500, currency="USD")  # paid, not notified
    await placed(db, "A-5")  # closed
    await placed(db, "A-6")  # paid twice, with a case
    await placed(db, "A-7", amount=500)  # paying, two payments at alipay
    await started(db, "A-7", number("A-7b"))
    for order_no in ("A-1", "A-6"):
        await commit_evidence(db, order_no, paid(order_no))
    await commit_evidence(db, "A-4", paid("A-4", amount=500, currency="USD"))
    await end(db, "A-5")
    await second_payment(db, "A-6")
    await db.execute("UPDATE notifications SET delivered_at = now() WHERE order_no IN ('A-1', 'A-5', 'A-6')")
    return middle


async def end(db: Database, order_no: str) -> None:
    """Close it, as after its deadline."""
    await commit_evidence(db, order_no, closed(order_no))
    await db.execute("UPDATE orders SET version = version + 1, expires_at = now() WHERE order_no = $1", order_no)
    await moved(db, order_no, lambda state: on_deadline(state, RULES))


async def second_payment(db: Database, order_no: str) -> None:
    """The same order is paid again at another account."""
    key = number(f"{order_no}-again", "wechat")
    await db.execute(
        """
        INSERT INTO payments (channel_account, out_trade_no, order_no, attempt_no, origin, amount, currency, status,
                              payable_until, created_at)
        VALUES ($1, $2, $3, 9, 'ours', 8888, 'CNY', 'open', now(), now())""",
        *key,
        order_no,
    )
    await commit_evidence(db, order_no, paid(key=key), key=key)


# -- what is in a list -------------------------------------------------------------------------------------------------


async def test_orders_are_listed_newest_first_in_every_size_of_page(db: Database) -> None:
    await fill(db)
    for limit in (1, 2, 3, 7, 8):
        assert await listed(db, limit) == ["A-7", "A-6", "A-5", "A-4", "A-3", "A-2", "A-1"]


async def test_each_filter_holds_for_what_it_lists(db: Database) -> None:
    middle = await fill(db)
    later = await find_now(db) + timedelta(seconds=1)
    for limit in (1, 50):

        async def found(limit: int = limit, **filters: Any) -> list[str]:
            return sorted(await listed(db, limit, **filters))

        assert await found(status=OrderStatus.PAID) == ["A-1", "A-4", "A-6"]
        assert await found(status=OrderStatus.CLOSED) == ["A-5"]
        assert await found(status=OrderStatus.PAYING) == ["A-2", "A-7"]
        assert await found(status=OrderStatus.CREATED) == ["A-3"]
        assert await found(account="wechat") == ["A-2", "A-6"]
        assert await found(account="alipay") == ["A-1", "A-4", "A-5", "A-6", "A-7"]
        assert await found(account="none") == []
        assert await found(amount=500, currency="USD") == ["A-4"]
        assert await found(currency="USD") == ["A-4"]
        assert await found(open_cases=True) == ["A-6"]
        assert await found(undelivered=True) == ["A-4"]
        assert await found(created_until=middle) == ["A-1", "A-2", "A-3"]
        assert await found(created_from=middle, status=OrderStatus.PAID) == ["A-4", "A-6"]
        assert await found(paid_from=middle, paid_until=later) == ["A-1", "A-4", "A-6"]
        assert await found(paid_until=middle) == []
        assert await found(paid_from=middle, status=OrderStatus.CLOSED) == []
        assert await found(paid_from=middle, account="wechat") == ["A-6"]
        assert await found(status=OrderStatus.PAYING, account="wechat") == ["A-2"]
        assert await found(open_cases=True, paid_from=middle) == ["A-6"]
        assert await found(open_cases=True, paid_until=middle) == []
        assert await found(undelivered=True, amount=500, currency="USD", account="alipay") == ["A-4"]
        assert await found(undelivered=True, open_cases=True) == []


async def test_every_combination_lists_what_the_filters_list_alone(db: Database) -> None:
    """Whatever index is walked, the list is the intersection."""
    middle = await fill(db)
    choices: list[list[dict[str, Any]]] = [
        [{}, {"status": OrderStatus.PAID}, {"status": OrderStatus.PAYING}, {"status": OrderStatus.CLOSED}],
        [{}, {"account": "alipay"}, {"account": "wechat"}],
        [{}, {"amount": 8888, "currency": "CNY"}, {"currency": "USD"}],
        [{}, {"created_from": middle}, {"created_until": middle}],
        [{}, {"paid_from": middle}],
        [{}, {"open_cases": True}, {"undelivered": True}],
    ]
    alone = {str(one): set(await listed(db, **one)) for choice in choices for one in choice}
    for combination in product(*choices):
        filters = {name: value for one in combination for name, value in one.items()}
        expected = set.intersection(*(alone[str(one)] for one in combination))
        found = await listed(db, 2, **filters)
        assert len(found) == len(set(found)), filters
        assert set(found) == expected, filters


async def test_an_order_with_several_rows_in_an_index_is_listed_once(db: Database) -> None:
    """Two payments at one account, two cases, two notifications."""
    await fill(db)
    for limit in (1, 50):
        assert (await listed(db, limit, account="alipay")).count("A-7") == 1
    await db.execute("INSERT INTO cases (order_no, reason) VALUES ('A-6', 'disputed')")
    assert await listed(db, 1, open_cases=True) == ["A-6"]
    await db.execute("UPDATE notifications SET delivered_at = NULL, dead_at = now() WHERE order_no = 'A-6'")
    await db.execute("UPDATE notifications SET dead_at = NULL WHERE order_no = 'A-6' AND type = 'order.paid'")
    assert sorted(await listed(db, 1, undelivered=True)) == ["A-4", "A-6"]


async def test_a_case_about_no_order_is_in_no_list(db: Database) -> None:
    await db.execute("INSERT INTO cases (reason) VALUES ('callback_unreadable')")
    assert await listed(db, open_cases=True) == []


async def test_late_money_is_listed_when_it_was_accepted(db: Database) -> None:
    """Seen first, accepted later: the order became paid by the second event."""
    await fill(db)
    await db.execute(
        "INSERT INTO order_events (order_no, version, kind, by) VALUES ('A-1', 99, 'paid_late', 'operator')"
    )
    assert (await listed(db, 1, status=OrderStatus.PAID))[0] == "A-1"
    assert sorted(await listed(db, 1, status=OrderStatus.PAID)) == ["A-1", "A-4", "A-6"]


# -- how far a page looks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filters",
    [
        {"status": OrderStatus.CREATED},
        {"account": "wechat", "created_from": datetime.fromisoformat("2000-01-01T00:00:00Z")},
        {"currency": "USD"},
        {"account": "alipay", "status": OrderStatus.CLOSED},
        {"account": "alipay", "open_cases": True},
    ],
)
async def test_a_page_that_has_looked_at_enough_ends_early_and_the_next_goes_on(
    db: Database, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    await fill(db)
    whole = await listed(db, **filters)
    monkeypatch.setattr(order_lists, "WALKED_MAX", 1)
    assert await listed(db, **filters) == whole
    page = await list_by_filter(db, OrderFilter(currency="XXX"))
    assert (page.states, page.ends_early, page.next_cursor is None) == ([], True, False)


async def test_pages_are_walked_up_to_a_number_of_orders(db: Database) -> None:
    await fill(db)

    async def walked(rows_max: int, pages_max: int = 99) -> list[list[str]]:
        pages = walk_by_filter(db, OrderFilter(), limit=3, rows_max=rows_max, pages_max=pages_max)
        return [[row.order_no for row in page.rows] async for page in pages]

    assert await walked(99) == [["A-7", "A-6", "A-5"], ["A-4", "A-3", "A-2"], ["A-1"]]
    assert await walked(4) == [["A-7", "A-6", "A-5"], ["A-4"]]
    assert await walked(99, pages_max=1) == [["A-7", "A-6", "A-5"]]


async def test_an_amount_needs_its_currency(db: Database) -> None:
    with pytest.raises(InvalidRequest, match="currency is missing"):
        await list_by_filter(db, OrderFilter(amount=500))


@pytest.mark.parametrize("filters", [{}, {"open_cases": True}, {"status": OrderStatus.PAYING}])
async def test_a_cursor_that_is_not_ours_is_refused(db: Database, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="use next_cursor"):
        await list_by_filter(db, OrderFilter(**filters), cursor="W10")


async def test_a_cursor_of_another_list_is_refused_or_read_as_a_place(db: Database) -> None:
    await fill(db)
    page = await list_by_filter(db, OrderFilter(), limit=1)
    with pytest.raises(InvalidRequest, match="use next_cursor"):
        await list_by_filter(db, OrderFilter(open_cases=True), cursor=page.next_cursor)


# -- scans -------------------------------------------------------------------------------------------------------------

LISTS: tuple[dict[str, Any], ...] = (
    {},
    {"status": OrderStatus.PAID},
    {"status": OrderStatus.CLOSED},
    {"status": OrderStatus.CREATED},
    {"account": "alipay"},
    {"account": "none"},
    {"amount": 1, "currency": "CNY"},
    {"amount": 8888, "currency": "CNY", "status": OrderStatus.CREATED},
    {"currency": "USD"},
    {"open_cases": True, "currency": "USD"},
    {"undelivered": True, "currency": "USD"},
    {"paid_from": datetime.fromisoformat("2000-01-01T00:00:00Z"), "account": "none"},
    {"created_until": datetime.fromisoformat("2000-01-01T00:00:00Z")},
    {"created_from": datetime.fromisoformat("2000-01-01T00:00:00Z"), "account": "none"},
)
NUMBERS = (
    "first-paid",
    "alipay-first-paid",
    "none-1",
    "t-alipay-first-paid",
    "copy-1",
    "4711",
    f"/o/{'x' * 22}",
    "evt-1",
)
WALKED, PAGES = 300, 2


async def look(db: Database) -> None:
    for filters in LISTS:
        cursor = None
        for _ in range(PAGES):
            page = await list_by_filter(db, OrderFilter(**filters), cursor=cursor, limit=20)
            cursor = page.next_cursor
            if cursor is None:
                break
        async for _ in walk_by_filter(db, OrderFilter(**filters), limit=20, rows_max=20, pages_max=1):
            pass
    for text in NUMBERS:
        await find_by_number(db, text)


@pytest.mark.parametrize("when", ["never", "small"])
async def test_no_list_and_no_search_reads_a_table(
    new_database_url: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Plans that were made while the tables were small; filters that no order of twenty thousand fulfils."""
    monkeypatch.setattr(database, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(order_lists, "WALKED_MAX", WALKED)
    copies = f"{test_table_scans._COPIES['notifications']}, 'due_at', now() + i * interval '1 s'"
    monkeypatch.setitem(test_table_scans._COPIES, "notifications", copies)  # no two are due at the same instant
    async with analysed(new_database_url, when) as db:
        await look(db)
        await copy_first(db)
        began = await read_so_far(db)
        await look(db)
        read = await read_so_far(db) - began
    assert read.scans == {}
    most = WALKED * (PAGES + 1) * len(LISTS) * 2
    assert {name: rows for name, rows in read.rows.items() if rows > most} == {}
