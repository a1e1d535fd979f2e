"""The smallest shop that loses no paid order: the standard library of Python, SQLite and two pages of HTML.

It places orders at nodrop with its API key, receives the notifications, and ships each order once. README.md says how
to start it.
"""

import base64
import hmac
import json
import os
import secrets
import sqlite3
import sys
import time
from contextlib import closing, suppress
from html import escape
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

HERE = Path(__file__).parent
REQUIRED = ("NODROP_URL", "NODROP_API_KEY", "NOTIFY_SECRET", "SHOP_URL", "ACCOUNTS")
if missing := [name for name in REQUIRED if not os.environ.get(name)]:
    sys.exit(f"Set {', '.join(missing)}: examples/README.md says to what.")

NODROP_URL = os.environ["NODROP_URL"]  # https://pay.example.com
API_KEY = os.environ["NODROP_API_KEY"]
NOTIFY_KEY = base64.b64decode(os.environ["NOTIFY_SECRET"].removeprefix("whsec_") + "==")  # the secret as nodrop has it
SHOP_URL = os.environ["SHOP_URL"]  # this shop as buyers and nodrop reach it
ACCOUNTS = os.environ["ACCOUNTS"].split(",")  # those among which the buyer may choose
DATABASE = os.environ.get("DATABASE", "shop.db")
SHIPS_TEST_ORDERS = os.environ.get("SHIP_TEST_ORDERS") == "1"  # for trying it out: test money ships nothing

PRODUCTS = {"tea": ("Green tea", 8888), "pot": ("Teapot", 26800)}  # prices in minor units
CURRENCY = "CNY"
KEY_BYTES_MIN = 24
BODY_BYTES_MAX = 1 << 20
TIMEOUT_S = 10

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    order_no   TEXT PRIMARY KEY,
    subject    TEXT    NOT NULL,
    amount     INTEGER NOT NULL,
    order_page TEXT,
    refusal    TEXT,
    status     TEXT    NOT NULL DEFAULT 'placing',
    version    INTEGER NOT NULL DEFAULT 0,
    goods      TEXT    NOT NULL DEFAULT 'not shipped yet'
);
CREATE TABLE IF NOT EXISTS notifications (id TEXT PRIMARY KEY);
"""


def connect() -> sqlite3.Connection:
    """Return a connection; `with closing(connect()) as db, db:` is one transaction."""
    db = sqlite3.connect(DATABASE, timeout=TIMEOUT_S)
    db.row_factory = sqlite3.Row
    return db


# -- orders ------------------------------------------------------------------------------------------------------------


def buy(product: str) -> str:
    """Record the order, then place it. Whatever happens in between, the shop knows the number."""
    subject, amount = PRODUCTS[product]
    order_no = f"shop-{secrets.token_hex(12)}"  # who guesses it sees the order's page
    with closing(connect()) as db, db:
        db.execute("INSERT INTO orders (order_no, subject, amount) VALUES (?, ?, ?)", (order_no, subject, amount))
    place(order_no)
    return order_no


def place(order_no: str) -> None:
    """Place the order at nodrop; again with the same number if the outcome is unknown, for that is the same order."""
    with closing(connect()) as db:
        order = db.execute("SELECT * FROM orders WHERE order_no = ?", (order_no,)).fetchone()
    terms = {
        "order_no": order_no,
        "amount": order["amount"],
        "currency": CURRENCY,
        "subject": order["subject"],
        "accounts": ACCOUNTS,
        "notify_url": f"{SHOP_URL}/notifications",
        "return_url": f"{SHOP_URL}/orders/{order_no}",
    }
    headers = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json"}
    request = Request(f"{NODROP_URL}/v1/orders", json.dumps(terms).encode(), headers)  # noqa: S310 - our own address
    refusal = page = None
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
            page = json.load(response)["order_page"]
    except HTTPError as error:
        if not is_refusal(error):
            return
        refusal = str(json.load(error)["detail"])
    except (OSError, HTTPException, ValueError):  # no whole answer: the outcome is unknown
        return
    with closing(connect()) as db, db:
        db.execute(
            "UPDATE orders SET order_page = coalesce(?, order_page), refusal = ? WHERE order_no = ?",
            (page, refusal, order_no),
        )


def is_refusal(error: HTTPError) -> bool:
    """Return whether nodrop itself refuses the order. A 404 of a router during a deploy is none."""
    is_own = error.headers.get_content_type() == "application/problem+json"
    return is_own and 400 <= error.code < 500 and error.code not in (408, 429)  # noqa: PLR2004 - the caller's fault


# -- notifications -----------------------------------------------------------------------------------------------------


def is_genuine(headers: dict[str, str], body: bytes, tolerance_s: int = 300) -> bool:
    """Return whether nodrop has signed it just now. `body` as it was on the wire."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > tolerance_s:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(NOTIFY_KEY, signed, "sha256"))
    given = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(expected, one) for one in given)


def take(notification: dict[str, Any]) -> None:
    """Record the notification and its effect in one transaction: a crash loses neither, a repetition does nothing.

    Notifications may overtake each other: the newest version counts. Goods are sent on `order.paid` alone. If another
    type is the first that says paid, as of a dispute or a refund that came faster, a person looks at the order.
    """
    order = notification["data"]
    with closing(connect()) as db, db:
        new = db.execute("INSERT OR IGNORE INTO notifications VALUES (?)", (notification["id"],)).rowcount
        newer = db.execute(
            "UPDATE orders SET status = ?, version = ? WHERE order_no = ? AND amount = ? AND version < ?",
            (order["status"], order["version"], order["order_no"], order["amount"], order["version"]),
        ).rowcount
        if new and newer and order["status"] == "paid" and (order["live"] or SHIPS_TEST_ORDERS):
            goods = "shipped" if notification["type"] == "order.paid" else "a person looks at the order"
            db.execute(
                "UPDATE orders SET goods = ? WHERE order_no = ? AND goods = 'not shipped yet'",
                (goods, order["order_no"]),
            )


# -- pages -------------------------------------------------------------------------------------------------------------


def show_products() -> str:
    buttons = "\n".join(
        f'<p><button name="product" value="{key}">{escape(name)}, ¥{price / 100:.2f}</button></p>'
        for key, (name, price) in PRODUCTS.items()
    )
    return Template((HERE / "index.html").read_text("utf-8")).substitute(buttons=buttons)


def show_order(order_no: str) -> str | None:
    with closing(connect()) as db:
        order = db.execute("SELECT * FROM orders WHERE order_no = ?", (order_no,)).fetchone()
    if order is None:
        return None
    name = "order.html" if order["order_page"] else "unsent.html"
    return Template((HERE / name).read_text("utf-8")).substitute(
        nodrop_url=escape(NODROP_URL),
        order_no=escape(order_no),
        order_page=escape(order["order_page"] or ""),
        subject=escape(order["subject"]),
        goods=escape(order["goods"]),
        refusal=escape(order["refusal"] or "The payment service has not answered."),
    )


class Shop(BaseHTTPRequestHandler):
    """One request. Pages for the buyer, and `/notifications` for nodrop."""

    timeout = TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        path = urlsplit(self.path).path
        if path == "/":
            self.answer(200, show_products())
        else:
            page = show_order(path.removeprefix("/orders/"))
            self.answer(404 if page is None else 200, page or "There is no such page")

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.answer(413, "Too large")
            return
        body, path = self.rfile.read(int(length)), urlsplit(self.path).path
        if path == "/notifications":
            self.receive_notification(body)
        elif path == "/orders":
            product = parse_qs(body.decode("utf-8", "replace")).get("product", [""])[0]
            self.go_to(f"/orders/{buy(product)}" if product in PRODUCTS else "/")
        else:
            order_no = path.removeprefix("/orders/").removesuffix("/place")
            if show_order(order_no) is not None:
                place(order_no)
            self.go_to(f"/orders/{order_no}")

    def receive_notification(self, body: bytes) -> None:
        """Acknowledge what is stored. An exception is no acknowledgement, and so it comes again."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not is_genuine(headers, body):
            self.answer(401, "Not signed")
            return
        take(json.loads(body))
        self.answer(200, "")

    def go_to(self, path: str) -> None:
        self.answer(303, "", ("location", path))

    def answer(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        policy = f"default-src 'none'; script-src {NODROP_URL}; connect-src {NODROP_URL}; form-action 'self'"
        content = text.encode()
        self.send_response(status)
        for name, value in (
            ("content-type", "text/html; charset=utf-8"),
            ("content-length", str(len(content))),
            ("content-security-policy", policy),
            ("cache-control", "no-store"),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    if len(NOTIFY_KEY) < KEY_BYTES_MIN:
        sys.exit("NOTIFY_SECRET is too short for a secret of nodrop: anybody could sign.")
    with closing(connect()) as db:
        db.executescript(TABLES)
    port = int(os.environ.get("PORT") or urlsplit(SHOP_URL).port or 80)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Shop)
    except OSError as error:
        sys.exit(f"PORT: 127.0.0.1:{port} cannot be used: {error.strerror}.")
    with server, suppress(KeyboardInterrupt):
        print(f"The shop is at {SHOP_URL}; Ctrl-C ends it.")  # noqa: T201 - for the person at the terminal
        server.serve_forever()


if __name__ == "__main__":
    main()
