"""Reading orders: one, many, by payment, by token, and page by page."""

import asyncio
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone

import asyncpg
import pytest

from core.errors import InvalidRequest
from core.order import OrderState, OrderStatus, PaymentKey
from storage.postgres.cursors import encode_cursor
from storage.postgres.database import Database
from storage.postgres.orders import (
    find_now,
    find_state,
    find_state_by_page_token,
    find_state_by_payment,
    list_orders,
    timeline,
)
from tests.storage.postgres.tools import closed, commit_evidence, get_state, number, paid, placed, started, terms_of

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


# -- one order ---------------------------------------------------------------------------------------------------------


async def test_there_is_none_or_one(db: Database) -> None:
    assert await find_state(db, "A-1") is None
    await placed(db)
    assert (await get_state(db)).order.order_no == "A-1"
    assert await find_state(db, "a-1") is None
    assert await find_state(db, "A-1 ") is None


async def test_a_state_is_of_the_databases_time(db: Database) -> None:
    """One clock: decisions compare the order's times with the time of the same database."""
    await placed(db)
    before = await find_now(db)
    state = await get_state(db)
    assert before <= state.now <= await find_now(db)
    assert state.now.tzinfo is not None


async def test_payments_come_in_the_order_of_their_attempts(db: Database) -> None:
    await placed(db)
    for account in ("z", "a", "m"):
        await started(db, "A-1", number("A-1", account))
    assert [payment.channel_account for payment in (await get_state(db)).payments] == ["alipay", "z", "a", "m"]


async def test_many_are_found_by_their_numbers(db: Database) -> None:
    for order_no in ("A-1", "A-2", "A-3"):
        await placed(db, order_no)
    found = await asyncio.gather(*(find_state(db, order_no) for order_no in ("A-1", "A-3", "A-9", "A-1")))
    assert [state and state.order.order_no for state in found] == ["A-1", "A-3", None, "A-1"]


async def test_readers_at_once_share_statements_and_each_gets_its_own_order(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that no row can hold, an unknown one and one that two look for are among them."""
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
    statements = 0
    fetch = Database.fetch

    async def counted(db: Database, sql: str, *args: object) -> list[asyncpg.Record]:
        nonlocal statements
        statements += 1
        return await fetch(db, sql, *args)

    monkeypatch.setattr(Database, "fetch", counted)
    wanted = ["A-1", "A-9", "a\0b", "A-2", "A-1"]
    found = await asyncio.gather(*(find_state(db, order_no) for order_no in wanted), return_exceptions=True)
    numbers = [one.order.order_no if isinstance(one, OrderState) else type(one) for one in found]
    assert numbers == ["A-1", type(None), InvalidRequest, "A-2", "A-1"]
    statements = 0
    by_payment = (find_state_by_payment(db, number(order_no)) for order_no in ("A-2", "A-9", "A-1"))
    by_key = [None if one is None else one.order.order_no for one in await asyncio.gather(*by_payment)]
    assert (by_key, statements) == (["A-2", None, "A-1"], 1)


async def test_an_order_is_found_by_account_and_number(db: Database) -> None:
    """The same number at another account is another payment."""
    await placed(db)
    state = await find_state_by_payment(db, number("A-1"))
    assert state is not None
    assert state.order.order_no == "A-1"
    assert await find_state_by_payment(db, PaymentKey("wechat", "alipay-A-1")) is None
    assert await find_state_by_payment(db, PaymentKey("", "A-1")) is None


async def test_a_page_token_opens_its_order_and_no_other_while_it_is_valid(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
    state = await find_state_by_page_token(db, "page-token-of-A-2", days=90)
    assert state is not None
    assert state.order.order_no == "A-2"
    assert await find_state_by_page_token(db, "page-token-of-A-3", days=90) is None
    await db.execute("UPDATE orders SET version = version + 1, created_at = created_at - interval '91 days'")
    assert await find_state_by_page_token(db, "page-token-of-A-2", days=90) is None


@pytest.mark.parametrize("text", ["a\0b", "\0", "\ud800"])
async def test_text_that_no_row_can_hold_is_refused_and_breaks_nothing(db: Database, text: str) -> None:
    for look in (
        find_state(db, text),
        find_state_by_payment(db, PaymentKey("alipay", text)),
        find_state_by_page_token(db, text, days=90),
        list_orders(db, account=text),
    ):
        with pytest.raises(InvalidRequest, match=r"^a value that cannot be stored \(\w+\)$"):
            await look
    assert await find_state(db, "A-1") is None


# -- a watched payment's time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [1, 9999])
async def test_an_order_can_be_read_back_whatever_time_it_was_given(db: Database, year: int) -> None:
    """In UTC these lie before Christ and in the year 10000, which Postgres can hold and Python cannot read."""
    zone = timezone(timedelta(hours=14 if year == 1 else -12))
    until = datetime(year, 1, 1, tzinfo=zone) if year == 1 else datetime(year, 12, 31, 23, tzinfo=zone)
    await placed(db, payment=terms_of(number("A-1"), payable_until=until))
    state = await get_state(db)
    [payment] = state.payments
    assert state.now - timedelta(minutes=1) <= payment.payable_until <= state.now + timedelta(days=3651)


# -- listing -----------------------------------------------------------------------------------------------------------


async def listed(db: Database, limit: int = 50, **filters: object) -> list[str]:
    """All pages together."""
    found: list[str] = []
    cursor = None
    while True:
        states, cursor = await list_orders(db, cursor=cursor, limit=limit, **filters)  # type: ignore[arg-type]
        assert len(states) <= limit
        found += [state.order.order_no for state in states]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
async def test_pages_hold_every_order_once_newest_first(db: Database, limit: int) -> None:
    """Also those that were placed in the same microsecond."""
    for n in range(7):
        await placed(db, f"A-{n}")
    await db.execute("UPDATE orders SET version = version + 1, created_at = $1 WHERE order_no < 'A-4'", AT)
    assert await listed(db, limit) == ["A-6", "A-5", "A-4", "A-3", "A-2", "A-1", "A-0"]


async def test_orders_are_found_by_status_account_and_time(db: Database) -> None:
    await placed(db, "A-1")
    await placed(db, "A-2", payment=terms_of(number("A-2", "wechat")))
    await placed(db, "A-3", without_payment=True)
    await commit_evidence(db, "A-1", paid("A-1"))
    await started(db, "A-3", number("A-3", "wechat"))
    now = await find_now(db)
    assert await listed(db, status=OrderStatus.PAID) == ["A-1"]
    assert await listed(db, status=OrderStatus.CLOSED) == []
    assert await listed(db, account="wechat") == ["A-3", "A-2"]
    assert await listed(db, account="wechat", status=OrderStatus.PAYING, limit=1) == ["A-3", "A-2"]
    assert await listed(db, created_after=now) == []
    assert await listed(db, created_before=now) == ["A-3", "A-2", "A-1"]
    first = (await get_state(db, "A-1")).order.created_at
    assert await listed(db, created_after=first, created_before=first + timedelta(microseconds=1)) == ["A-1"]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "A",
        "é",
        "\0",
        "AAAA",
        "W10",  # []
        "WzEsMl0",  # [1,2]
        "WyIyMDI2LTAzLTAxVDEyOjAwOjAwIiwieCJd",  # a time without its zone
        "bm90IGpzb24",
        "[" * 300,
        encode_cursor(AT, "A\0"),
        encode_cursor(AT, "A 1"),
        encode_cursor(AT, ""),
    ],
)
async def test_a_cursor_that_is_not_ours_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^cursor: use next_cursor of the page before, as it is$"):
        await list_orders(db, cursor=cursor)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_cursor_made_up_with_a_time_of_no_calendar_is_refused(db: Database, at: str) -> None:
    cursor = urlsafe_b64encode(f'["{at}","A-1"]'.encode()).decode().rstrip("=")
    with pytest.raises(InvalidRequest):
        await list_orders(db, cursor=cursor)


# -- the timeline ------------------------------------------------------------------------------------------------------


async def test_the_timeline_is_the_orders_own_and_oldest_first(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
        await commit_evidence(db, order_no, closed(order_no))
    entries = await timeline(db, "A-1")
    assert [entry.kind for entry in entries] == ["placed", "payment_closed"]
    assert [entry.version for entry in entries] == [1, 2]
    assert entries[0].at <= entries[1].at
    assert await timeline(db, "A-9") == []


async def test_the_timeline_has_an_end(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.postgres.orders.TIMELINE_MAX", 3)
    await placed(db)
    for _ in range(5):
        await commit_evidence(db, "A-1", paid(amount=1))
    assert len(await timeline(db, "A-1")) == 3
