"""Time of the console's searches, lists and story on top of many orders, with filters that fit many, few or none.

Statements of one connection, as the pages send them, with the plans that it keeps. Orders are copies: nine of ten are
paid, one is closed, and few wait, have a case, another currency, another account or an undelivered notification.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from statistics import quantiles

from api.v1.story_views import view_story
from bench.console_now import COPIES, Work, fill_rollups, works_of
from bench.door import pay_one, place_one
from bench.report import MS, Figure, Result, figure
from bench.sizes import ShowProgress, Sizes
from core.dispute import DisputeState
from core.order import OrderStatus
from demo.embedded import EmbeddedPostgres, temporary_directory
from storage.postgres.address import read_address
from storage.postgres.cases import count_open_cases, list_open_cases
from storage.postgres.closings import list_closings, read_money
from storage.postgres.database import Database
from storage.postgres.deliveries import Choice, Listed, count_chosen, list_notifications
from storage.postgres.disputes import list_disputes
from storage.postgres.endpoints import list_endpoints
from storage.postgres.migrate import migrate
from storage.postgres.order_facts import find_facts
from storage.postgres.order_lists import OrderFilter, list_by_filter
from storage.postgres.search import find_by_number

HOW = (
    "searches by each kind of number, lists by each combination of filters (the first pages), one order's story, and "
    "notifications and endpoints, the overview, callbacks, audit, runs and a file of orders, and what the worker reads "
    "for alerts and roll-ups; one after another on one connection; milliseconds of the statements with the reading of "
    "their rows"
)
TURNS = 20
PAGES = 5
PAID, OPEN = "first-paid", "first-open"
HOOK = "https://shop.test/hook"
CHUNK = 20_000
COPY_TIMEOUT_S = 600.0

# Every tenth order is closed, every five hundredth is open. Times are spread over the last ninety days.
_KIND = "CASE WHEN i % 500 = 0 THEN 'paying' WHEN i % 10 = 9 THEN 'closed' ELSE 'paid' END"
_AT = "now() - make_interval(secs => 7776000.0 * ($1::bigint - i) / $1::bigint)"
_ACCOUNT = "CASE WHEN i % 100000 = 7 THEN 'rare' WHEN i % 4 = 3 THEN 'second' ELSE 'sandbox' END"
_COPY = """
INSERT INTO {table}
SELECT copy.* FROM (SELECT * FROM {table} WHERE order_no = '{first}') AS t,
       (SELECT i, {kind} AS kind, {at} AS at, {account} AS account
          FROM generate_series($2::bigint, $3::bigint) AS i) AS n,
       LATERAL jsonb_populate_record(t::{table}, jsonb_build_object('order_no', 'copy-' || n.i, {changes})) AS copy
 WHERE {where}"""
_IF_PAID = "CASE WHEN n.kind = 'paid' THEN {} END"
_CHANGES: Mapping[str, tuple[str, str, str]] = {
    "orders": (
        PAID,
        f"""'page_token', md5('page' || i), 'status', n.kind, 'created_at', n.at,
            'expires_at', n.at + interval '30 min',
            'amount', 100 + i % 5000, 'currency', CASE WHEN i % 200000 = 11 THEN 'USD' ELSE 'CNY' END,
            'paid_at', {_IF_PAID.format("n.at")}, 'paid_by_account', {_IF_PAID.format("n.account")},
            'paid_by_out_trade_no', {_IF_PAID.format("'n-' || i")},
            'closed_at', CASE WHEN n.kind = 'closed' THEN n.at END""",
        "true",
    ),
    "payments": (
        PAID,
        f"""'out_trade_no', 'n-' || i, 'channel_account', n.account, 'created_at', n.at, 'amount', 100 + i % 5000,
            'status', CASE n.kind WHEN 'paying' THEN 'open' ELSE n.kind END, 'channel_reference', 'ref-' || i,
            'channel_transaction_id', {_IF_PAID.format("'t-' || i")}, 'paid_at', {_IF_PAID.format("n.at")},
            'channel_refunds', CASE WHEN i % 20 = 1 THEN jsonb_build_object('re-' || i, 5) ELSE '{{}}' END""",
        "true",
    ),
    "order_events": (
        PAID,
        """'at', n.at, 'out_trade_no', 'n-' || i, 'channel_account', n.account,
           'kind', CASE WHEN t.kind = 'paid' THEN n.kind ELSE t.kind END""",
        "NOT (t.kind = 'paid' AND n.kind = 'paying')",
    ),
    "notifications": (
        PAID,
        """'id', 'msg-' || i, 'created_at', n.at,
           'delivered_at', CASE WHEN i % 5000 <> 1 THEN n.at END, 'due_at', n.at""",
        "n.kind <> 'paying'",
    ),
    "pending": (
        OPEN,
        """'channel_account', CASE t.kind WHEN 'query' THEN n.account ELSE '' END, 'due_at', now() + interval '1 day',
           'out_trade_no', CASE t.kind WHEN 'query' THEN 'n-' || i ELSE 'copy-' || i END""",
        "n.kind = 'paying'",
    ),
}
_CALLBACKS = """
INSERT INTO callbacks
SELECT copy.* FROM (SELECT * FROM callbacks LIMIT 1) AS t, generate_series($2::bigint, $3::bigint) AS i,
       LATERAL jsonb_populate_record(t::callbacks, jsonb_build_object(
           'id', md5('callback' || i)::uuid, 'notification_id', 'evt-' || i, 'out_trade_no', 'n-' || i,
           'channel_account', {account}, 'received_at', {at})) AS copy
 WHERE i % 10 < 9"""
_CASES = """
INSERT INTO cases (order_no, reason, opened_at, resolved_at)
SELECT 'copy-' || i, 'paid_late', {at}, CASE WHEN i % 100000 <> 13 THEN now() END
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 1000 = 13"""

_DISPUTES = """
INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency, respond_by,
                      opened_at, changed_at)
SELECT {account}, 'n-' || i, 'd-' || i, 'copy-' || i, 'claim', CASE WHEN i % 10000 = 17 THEN 'open' ELSE 'won' END,
       100, 'CNY', {at} + interval '7 days', {at}, {at}
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 1000 = 17"""
_DAYS = (
    """
INSERT INTO closings (channel_account, day, money)
SELECT name, current_date - n, '{"CNY": {"payments": 9, "paid": 900}}' FROM accounts, generate_series(0, 89) AS n""",
    """
INSERT INTO reconciliations (channel_account, day, dry_run, status, counts, finished_at)
SELECT name, current_date - n, false, 'finished', '{"rows": 9, "amount": 3}', now()
  FROM accounts, generate_series(1, 89) AS n""",
    """
INSERT INTO reconciliation_differences (reconciliation_id, row_no, kind, order_no, out_trade_no, channel_transaction_id,
                                        detail)
SELECT id, n, 'amount', 'copy-' || id * n, 'n-' || id * n, '', 'x' FROM reconciliations, generate_series(1, 3) AS n""",
)


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Milliseconds of each search and each list: the median, the 95th percentile and the longest."""
    began = time.monotonic()
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as server:
        server.create_database("console")
        await migrate(server.url("console"))
        async with _opened(Database(read_address(server.url("console"), ""))) as db:
            await _fill(db, sizes.rows, show_progress)
            figures: list[Figure] = []
            for name, work in _works(db, sizes.rows).items():
                show_progress(name)
                figures += await _timed(name, work, sizes.limit_s)
    return Result(
        benchmark="console",
        how=HOW,
        settings={"orders": sizes.rows},
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(figures),
    )


@asynccontextmanager
async def _opened(db: Database) -> AsyncIterator[Database]:
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def _fill(db: Database, orders: int, show_progress: ShowProgress) -> None:
    for account in ("sandbox", "second", "rare"):
        await db.execute("INSERT INTO accounts (name, channel, sealed) VALUES ($1, 'sandbox', '')", account)
    await pay_one(db, PAID)
    await place_one(db, OPEN)
    # Triggers and foreign keys would only repeat what the first orders have passed.
    for table in (*_CHANGES, "callbacks", "cases", "disputes"):
        await db.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    words = {"kind": _KIND, "at": _AT, "account": _ACCOUNT}
    statements = [
        _COPY.format(table=table, first=first, changes=changes, where=where, **words)
        for table, (first, changes, where) in _CHANGES.items()
    ]
    statements += [copy.format(**words) for copy in (_CALLBACKS, _CASES, _DISPUTES, *COPIES)]
    for start in range(1, orders + 1, CHUNK):
        show_progress(f"{start - 1} of {orders} orders are there")
        for statement in statements:
            await db.execute(statement, orders, start, min(start + CHUNK - 1, orders), timeout_s=COPY_TIMEOUT_S)
    for statement in _DAYS:
        await db.execute(statement)
    await fill_rollups(db, orders)
    for table in (*_CHANGES, "callbacks", "cases", "disputes", "audit", "refused_callbacks"):
        await db.execute(f"VACUUM (ANALYZE) {table}", timeout_s=COPY_TIMEOUT_S)
    await db.execute("CHECKPOINT", timeout_s=COPY_TIMEOUT_S)


def _works(db: Database, orders: int) -> dict[str, Work]:
    """The work of each figure, in its turn n."""

    def search(number: str) -> Work:
        async def work(turn: int) -> None:
            await find_by_number(db, number.format(1 + turn * 7919 % orders))

        return work

    def pages(wanted: OrderFilter) -> Work:
        places: list[str | None] = [None]

        async def work(turn: int) -> None:
            page = await list_by_filter(db, wanted, cursor=places[turn % len(places)])
            if page.next_cursor is not None and len(places) < PAGES and turn == len(places) - 1:
                places.append(page.next_cursor)

        return work

    async def story(turn: int) -> None:
        facts = await find_facts(db, f"copy-{1 + turn * 7919 % orders}")
        assert facts is not None, "it was copied"
        view_story(facts)

    searches = {f"search_{name}": search(number) for name, number in _NUMBERS.items()}
    lists = {f"list_{name}": pages(wanted) for name, wanted in _filters().items()}
    others = {**_delivery_works(db), **_day_works(db), **works_of(db, orders)}
    return {**searches, **lists, "story": story, **others}


def _day_works(db: Database) -> dict[str, Work]:
    """The inbox, the days and the payments that they are summed from, the disputes."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    async def day_money(turn: int) -> None:
        since = midnight - timedelta(days=1 + turn)
        await read_money(db, "sandbox", since, since + timedelta(days=1))

    async def days(turn: int) -> None:
        await list_closings(db, before=(midnight.date() - timedelta(days=turn), ""), limit=32)

    async def inbox(_turn: int) -> None:
        await list_open_cases(db, limit=51)
        await count_open_cases(db, mine="alice")

    async def disputes(turn: int) -> None:
        await list_disputes(db, state=DisputeState.WON if turn % 2 else None, limit=101)

    return {"day_money": day_money, "days": days, "inbox": inbox, "disputes": disputes}


def _delivery_works(db: Database) -> dict[str, Work]:
    """The same of notifications and endpoints."""

    def notifications(choice: Choice) -> Work:
        async def work(_turn: int) -> None:
            await list_notifications(db, choice)

        return work

    async def endpoints(_turn: int) -> None:
        await list_endpoints(db)

    async def resend_preview(_turn: int) -> None:
        choice = Choice(listed=Listed.DELIVERED, endpoint=HOOK, since=datetime.now(UTC) - timedelta(days=7))
        await count_chosen(db, choice)

    sent = {f"notifications_{name}": notifications(choice) for name, choice in _choices().items()}
    return {**sent, "endpoints": endpoints, "resend_preview": resend_preview}


_NUMBERS = {
    "order_no": "copy-{}",
    "prefix": "copy-{}9",
    "out_trade_no": "n-{}",
    "transaction": "t-{}",
    "reference": "ref-{}",
    "channel_refund": "re-{}",
    "notification": "msg-{}",
    "channel_notification": "evt-{}",
    "nothing": "none-{}",
}


def _choices() -> dict[str, Choice]:
    """Lists of notifications; for an endpoint that has none, a page reads as much as a page may read."""
    week_ago = datetime.now(UTC) - timedelta(days=7)
    return {
        **{str(listed): Choice(listed=listed) for listed in Listed},
        "delivered_endpoint": Choice(listed=Listed.DELIVERED, endpoint=HOOK, since=week_ago),
        "delivered_no_endpoint": Choice(listed=Listed.DELIVERED, endpoint="https://nobody.test/"),
    }


def _filters() -> dict[str, OrderFilter]:
    now = datetime.now(UTC)
    long_ago, month_ago, week_ago = (now - timedelta(days=days) for days in (89, 30, 7))
    return {
        "all": OrderFilter(),
        "paid": OrderFilter(status=OrderStatus.PAID),
        "closed": OrderFilter(status=OrderStatus.CLOSED),
        "open": OrderFilter(status=OrderStatus.PAYING),
        "created": OrderFilter(status=OrderStatus.CREATED),
        "account": OrderFilter(account="sandbox"),
        "rare_account": OrderFilter(account="rare"),
        "amount": OrderFilter(amount=4711, currency="CNY"),
        "amount_closed": OrderFilter(amount=109, currency="CNY", status=OrderStatus.CLOSED),
        "no_amount": OrderFilter(amount=1, currency="CNY"),
        "rare_currency": OrderFilter(currency="USD"),
        "open_cases": OrderFilter(open_cases=True),
        "undelivered": OrderFilter(undelivered=True),
        "undelivered_rare": OrderFilter(undelivered=True, account="rare"),
        "placed_between": OrderFilter(created_from=month_ago, created_until=week_ago),
        "placed_long_ago_rare": OrderFilter(created_until=long_ago, account="rare"),
        "paid_between": OrderFilter(paid_from=month_ago, paid_until=week_ago),
        "paid_between_rare": OrderFilter(paid_from=month_ago, paid_until=week_ago, account="rare"),
        "account_closed": OrderFilter(account="second", status=OrderStatus.CLOSED),
        "account_open_cases": OrderFilter(account="second", open_cases=True),
    }


async def _timed(name: str, work: Work, limit_s: float) -> list[Figure]:
    await work(0)  # so that plans are made
    spent: list[float] = []
    began = time.monotonic()
    while len(spent) < TURNS and time.monotonic() - began < limit_s:
        start = time.perf_counter()
        await work(len(spent))
        spent.append(time.perf_counter() - start)
    cuts = quantiles(spent, n=20, method="inclusive") if len(spent) > 1 else spent * 19
    shown = {"p50": cuts[9], "p95": cuts[18], "max": max(spent)}
    return [figure(f"{name}_{which}", value * MS, "ms", len(spent)) for which, value in shown.items()]
