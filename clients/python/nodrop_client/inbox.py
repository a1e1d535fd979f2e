"""Each notification has its effect once, and an older version never overwrites a newer one.

Deliveries repeat and overtake each other. There is one notification for a version of an order, so one row for each
order, with its newest version, tells all: the same version again is a repetition, a lower one was overtaken. Mark and
effect belong in one transaction: a crash between two would lose the effect, or do it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from nodrop_client.models import OrderStatus
from nodrop_client.notifications import Notification

TABLE = """CREATE TABLE IF NOT EXISTS nodrop_orders (
    order_no        VARCHAR(64) PRIMARY KEY,
    version         BIGINT      NOT NULL,
    webhook_id      VARCHAR(64) NOT NULL,
    status          VARCHAR(40),
    previous_status VARCHAR(40)
)"""

# The row is there before it is compared, so that two deliveries at once wait for each other from the first one on.
_INSERT = """
INSERT INTO nodrop_orders (order_no, version, webhook_id) VALUES (?, 0, '') ON CONFLICT (order_no) DO NOTHING"""
_ADVANCE = """
UPDATE nodrop_orders SET previous_status = status, status = ?, version = ?, webhook_id = ?
 WHERE order_no = ? AND version < ?"""
_PREVIOUS = "SELECT previous_status FROM nodrop_orders WHERE order_no = ?"


class Cursor(Protocol):
    """A cursor of DB-API 2.0."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, sql: str, parameters: Any, /) -> object: ...  # noqa: ANN401 - as each driver types it
    def fetchone(self) -> Any: ...  # noqa: ANN401 - a row


class Connection(Protocol):
    """A connection of DB-API 2.0 that begins transactions by itself: not in autocommit mode."""

    def cursor(self) -> Any: ...  # noqa: ANN401 - a Cursor; drivers add arguments of their own
    def commit(self) -> object: ...
    def rollback(self) -> object: ...
    def close(self) -> object: ...


C = TypeVar("C", bound=Connection)
C_co = TypeVar("C_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A notification that is news, and the status of its order in the newest one before it, None if there was none.

    Judge by these and not by the type alone: a message that was overtaken has no effect, for the newer one has the
    whole state. An `order.disputed` that comes before its `order.paid` makes the order paid, too: ship on `order.paid`,
    and look at the order if another type is the first that says so.
    """

    notification: Notification
    previous_status: str | None

    @property
    def became_paid(self) -> bool:
        return self._became(OrderStatus.PAID)

    @property
    def became_closed(self) -> bool:
        return self._became(OrderStatus.CLOSED)

    def _became(self, status: OrderStatus) -> bool:
        return self.notification.data.status == status != self.previous_status


class Inbox(Protocol[C_co]):
    """`process` runs the effect if the notification is news, and returns whether it was. Either way it is acknowledged.

    The effect gets what belongs to the transaction. If it raises, nothing is marked: answer 500, and the next delivery
    runs it again.
    """

    def process(self, notification: Notification, effect: Callable[[C_co, Change], object]) -> bool: ...


def mark(cursor: Cursor, notification: Notification, placeholder: str = "?") -> Change | None:
    """Mark the notification in your own open transaction, before its effect. None: it is no news, do nothing.

    `placeholder` is the driver's: "?" for sqlite3, "%s" for psycopg and Django. The table is `TABLE`; the statements
    are for SQLite and PostgreSQL.
    """

    def execute(sql: str, *parameters: object) -> None:
        cursor.execute(sql.replace("?", placeholder), parameters)

    data = notification.data
    execute(_INSERT, data.order_no)
    execute(_ADVANCE, str(data.status), data.version, notification.id, data.order_no, data.version)
    if cursor.rowcount != 1:
        return None
    execute(_PREVIOUS, data.order_no)
    (previous_status,) = cursor.fetchone()
    return Change(notification=notification, previous_status=previous_status)


class SqlInbox(Generic[C]):
    """An inbox in the database that has the orders. `connect` opens a connection for each notification."""

    def __init__(self, connect: Callable[[], C], *, placeholder: str = "?") -> None:
        self._connect = connect
        self._placeholder = placeholder

    def create_table(self) -> None:
        with closing(self._connect()) as connection:
            connection.cursor().execute(TABLE)
            connection.commit()

    def process(self, notification: Notification, effect: Callable[[C, Change], object]) -> bool:
        with closing(self._connect()) as connection:
            try:
                change = mark(connection.cursor(), notification, self._placeholder)
                if change is not None:
                    effect(connection, change)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return change is not None


class MemoryInbox:
    """An inbox for tests: it forgets everything when its process ends."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, str]] = {}
        self._lock = Lock()

    def process(self, notification: Notification, effect: Callable[[None, Change], object]) -> bool:
        data = notification.data
        with self._lock:
            version, status = self._newest.get(data.order_no, (0, None))
            if data.version <= version:
                return False
            effect(None, Change(notification=notification, previous_status=status))
            self._newest[data.order_no] = (data.version, str(data.status))
            return True
