"""Each notification has its effect once, whatever is repeated, overtaken or ended in the middle."""

import asyncio
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.order import OrderStatus
from nodrop_client import Change, Inbox, MemoryInbox, SqlInbox, mark
from nodrop_client.inbox import TABLE
from tests.clients.messages import received
from tests.clients.programs import TEXT

PAID, CLOSED = OrderStatus.PAID, OrderStatus.CLOSED


class Postgres:
    """A connection of DB-API 2.0 over asyncpg, with "%s" for values: what psycopg is, as far as an inbox needs it."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection = self._runner.run(asyncpg.connect(url))
        self._is_open = False
        self._row: Any = None
        self.rowcount = -1

    def cursor(self) -> "Postgres":
        return self

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> None:
        if not self._is_open:
            self._run("BEGIN")
            self._is_open = True
        numbers = count(1)
        pieces = sql.split("%s")
        text = pieces[0] + "".join(f"${next(numbers)}{piece}" for piece in pieces[1:])
        if sql.startswith("SELECT"):
            self._row = self._runner.run(self._connection.fetchrow(text, *parameters))
        else:
            *_, rows = self._run(text, *parameters).split(" ")
            self.rowcount = int(rows) if rows.isdecimal() else -1

    def fetchone(self) -> Any:  # noqa: ANN401 - a row
        return self._row

    def commit(self) -> None:
        self._end("COMMIT")

    def rollback(self) -> None:
        self._end("ROLLBACK")

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def _end(self, sql: str) -> None:
        if self._is_open:
            self._run(sql)
            self._is_open = False

    def _run(self, sql: str, *parameters: object) -> str:
        status: str = self._runner.run(self._connection.execute(sql, *parameters))
        return status


EFFECTS = "CREATE TABLE effects (order_no VARCHAR(64), version BIGINT)"


def sqlite_inbox(file: Path) -> tuple[SqlInbox[Any], Callable[[], Any]]:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=120)

    return SqlInbox(connect), connect


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SqlInbox[Any], Callable[[], Any]]:
    """An inbox with its table and the shop's, and the way to connect to its database."""
    if request.param == "sqlite":
        inbox, connect = sqlite_inbox(tmp_path / "shop.db")
    else:
        url = request.getfixturevalue("unmigrated_database_url")

        def connect() -> Any:  # noqa: ANN401 - a connection
            return Postgres(url)

        inbox = SqlInbox(connect, placeholder="%s")
    inbox.create_table()
    inbox.create_table()
    with closing(connect()) as connection:
        connection.cursor().execute(EFFECTS)
        connection.commit()
    return inbox, connect


def record(connection: Any, change: Change) -> None:  # noqa: ANN401 - a connection
    """The effect: a row in the inbox's own transaction."""
    data = change.notification.data
    connection.cursor().execute(f"INSERT INTO effects VALUES ('{data.order_no}', {data.version})", ())  # noqa: S608


def effects(connect: Callable[[], Any]) -> int:
    with closing(connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM effects", ())
        return int(cursor.fetchone()[0])


@pytest.mark.servers
def test_a_repeated_notification_has_its_effect_once(stored: tuple[SqlInbox[Any], Callable[[], Any]]) -> None:
    inbox, connect = stored
    assert [inbox.process(received(3), record) for _ in range(3)] == [True, False, False]
    assert effects(connect) == 1


@pytest.mark.servers
def test_an_effect_that_fails_leaves_no_mark(stored: tuple[SqlInbox[Any], Callable[[], Any]]) -> None:
    inbox, connect = stored

    def record_and_fail(connection: Any, change: Change) -> NoReturn:  # noqa: ANN401 - a connection
        record(connection, change)
        raise RuntimeError("the stock is locked")

    with pytest.raises(RuntimeError, match="the stock is locked"):
        inbox.process(received(3), record_and_fail)
    assert effects(connect) == 0
    assert inbox.process(received(3), record)
    assert effects(connect) == 1


@pytest.mark.servers
def test_an_older_version_changes_nothing(stored: tuple[SqlInbox[Any], Callable[[], Any]]) -> None:
    inbox, _ = stored
    changes: list[Change] = []
    for version, status in ((4, PAID), (3, CLOSED), (5, PAID)):
        inbox.process(received(version, status), lambda _, change: changes.append(change))
    assert [(one.notification.data.version, one.previous_status) for one in changes] == [
        (4, None),
        (5, "paid"),
    ]


@pytest.mark.servers
def test_deliveries_at_the_same_time_have_one_effect(stored: tuple[SqlInbox[Any], Callable[[], Any]]) -> None:
    """Also the very first, for whose order there is no row yet."""
    inbox, connect = stored
    with ThreadPoolExecutor(8) as pool:
        news = list(pool.map(lambda _: inbox.process(received(3), record), range(8)))
    assert sorted(news) == [False] * 7 + [True]
    assert effects(connect) == 1


@pytest.mark.servers
def test_orders_do_not_know_each_other(stored: tuple[SqlInbox[Any], Callable[[], Any]]) -> None:
    inbox, connect = stored
    assert [inbox.process(received(3, order_no=number), record) for number in ("A-1", "A-2")] == [True, True]
    assert effects(connect) == 2


DELIVERIES = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([PAID, CLOSED])), max_size=12)


@given(DELIVERIES)
def test_every_inbox_does_what_the_rule_says(deliveries: list[tuple[int, OrderStatus]]) -> None:
    """News is what is above every version before it; its predecessor is the last news."""
    expected: list[tuple[int, str | None]] = []
    newest, status = 0, None
    for version, next_status in deliveries:
        if version > newest:
            expected.append((version, status))
            newest, status = version, str(next_status)

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(TABLE)
        marked: list[Change] = []
        for version, next_status in deliveries:
            if change := mark(connection.cursor(), received(version, next_status)):
                marked.append(change)
    kept: list[Change] = []
    inbox: Inbox[None] = MemoryInbox()
    for version, next_status in deliveries:
        inbox.process(received(version, next_status), lambda _, change: kept.append(change))

    for changes in (marked, kept):
        assert [(one.notification.data.version, one.previous_status) for one in changes] == expected
        assert [one.became_paid for one in changes] == [
            one.notification.data.status == "paid" != one.previous_status for one in changes
        ]


def test_an_effect_that_fails_leaves_no_mark_in_memory() -> None:
    inbox = MemoryInbox()

    def fail(_: None, __: Change) -> NoReturn:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        inbox.process(received(3), fail)
    assert inbox.process(received(3), lambda *_: None)


@pytest.mark.parametrize(
    ("previous", "status", "became_paid", "became_closed"),
    [
        (None, PAID, True, False),
        ("closed", PAID, True, False),
        ("paid", PAID, False, False),
        (None, CLOSED, False, True),
        ("closed", CLOSED, False, False),
        (None, OrderStatus.PAYING, False, False),
    ],
)
def test_a_change_says_what_the_order_became(
    previous: str | None, status: OrderStatus, *, became_paid: bool, became_closed: bool
) -> None:
    change = Change(notification=received(3, status), previous_status=previous)
    assert (change.became_paid, change.became_closed) == (became_paid, became_closed)


def test_the_statement_of_the_document_does_what_the_client_does() -> None:
    """Whatever comes in whatever order: both take the same versions for news."""
    (statement,) = re.findall(r"^```sql\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for versions in ((3, 3), (3, 4), (4, 3), (4, 3, 5, 4, 5)):
        with closing(sqlite3.connect(":memory:")) as db, closing(sqlite3.connect(":memory:")) as inbox:
            inbox.execute(TABLE)
            db.execute("CREATE TABLE orders (order_no TEXT, version BIGINT DEFAULT 0, status TEXT)")
            db.execute("INSERT INTO orders (order_no) VALUES ('A-1')")
            for version in versions:
                values = {"version": version, "status": "paid", "order_no": "A-1"}
                news = db.execute(statement, values).rowcount
                assert bool(news) is (mark(inbox.cursor(), received(version)) is not None)
