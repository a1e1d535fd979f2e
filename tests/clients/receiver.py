"""A shop's receiver of notifications: `verify` and `SqlInbox` behind the standard library's HTTP server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from nodrop_client import Change, Inbox, NotificationRejected, SqlInbox, verify


class Delivery(NamedTuple):
    headers: dict[str, str]
    body: bytes
    is_news: bool


class Receiver:
    """`losses`: so many of the next acknowledgements are lost, after the effect."""

    def __init__(self, file: Path, secret: str) -> None:
        self.losses = 0
        self.deliveries: list[Delivery] = []
        self.repeated = Event()
        self.url = ""
        self._file, self._secret = file, secret
        inbox = SqlInbox(lambda: sqlite3.connect(file, timeout=120))
        inbox.create_table()
        self._inbox: Inbox[sqlite3.Connection] = inbox
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE shipped (order_no TEXT)")

    def receive(self, headers: dict[str, str], body: bytes) -> int:
        """Return the status of the response."""
        try:
            notification = verify(headers, body, self._secret)
        except NotificationRejected:
            return 400
        is_news = self._inbox.process(notification, ship)
        self.deliveries.append(Delivery(headers, body, is_news))
        if not is_news:
            self.repeated.set()
        return 204

    def shipped(self) -> list[str]:
        """Order numbers, one for each effect."""
        with closing(sqlite3.connect(self._file)) as connection:
            return [order_no for (order_no,) in connection.execute("SELECT order_no FROM shipped")]


def ship(connection: sqlite3.Connection, change: Change) -> None:
    if change.became_paid:
        connection.execute("INSERT INTO shipped VALUES (?)", (change.notification.data.order_no,))


@contextmanager
def serving(receiver: Receiver) -> Iterator[None]:
    """Serve it on a port of its own, in `url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.receive(dict(self.headers), body)
            if receiver.losses:
                receiver.losses -= 1
                self.close_connection = True
                return
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/notifications"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
