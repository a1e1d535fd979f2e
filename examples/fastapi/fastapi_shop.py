"""An example shop in FastAPI: it places orders with nodrop's client, and ships on verified notifications, once each.

README.md says how to start it.
"""

import os
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from nodrop_client import (
    Change,
    Client,
    NewOrder,
    NodropError,
    NotificationRejected,
    Problem,
    Retries,
    SqlInbox,
    verify,
)

REQUIRED = ("NODROP_URL", "NODROP_API_KEY", "NOTIFY_SECRET", "SHOP_URL", "ACCOUNTS")
if missing := [name for name in REQUIRED if not os.environ.get(name)]:
    sys.exit(f"Set {', '.join(missing)}: examples/README.md says to what.")

NODROP_URL = os.environ["NODROP_URL"]  # https://pay.example.com
NOTIFY_SECRETS = os.environ["NOTIFY_SECRET"].split(",")  # whsec_…, two while the secret is changed
SHOP_URL = os.environ["SHOP_URL"]  # this shop as buyers and nodrop reach it
ACCOUNTS = os.environ["ACCOUNTS"].split(",")  # those among which the buyer may choose
DATABASE = os.environ.get("DATABASE", "shop.db")
SHIPS_TEST_ORDERS = os.environ.get("SHIP_TEST_ORDERS") == "1"  # for trying it out: test money ships nothing

PRODUCTS = {"tea": ("Green tea", 8888), "pot": ("Teapot", 26800)}  # prices in minor units
CURRENCY = "CNY"
MODULE = f"{NODROP_URL}/sdk/1.0.0/order-status.js"  # shows the state of an order in this shop's own page
INTEGRITY = "sha384-fYzQwJO833GB0aMgQeWtljnXc0CkUgh5dy+rKQnnyMmm2+n8RBdmuyQT3R8KlGgJ"
RETRIES = Retries(total_s=8)  # a buyer waits; afterwards the page offers to send the order again

TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    order_no   TEXT PRIMARY KEY,
    subject    TEXT    NOT NULL,
    amount     INTEGER NOT NULL,
    order_page TEXT,
    refusal    TEXT,
    goods      TEXT NOT NULL DEFAULT 'not shipped yet'
)"""


def connect() -> sqlite3.Connection:
    """Return a connection; `with closing(connect()) as db, db:` is one transaction."""
    db = sqlite3.connect(DATABASE, timeout=10)
    db.row_factory = sqlite3.Row
    return db


nodrop = Client(NODROP_URL, os.environ["NODROP_API_KEY"], retries=RETRIES)
inbox = SqlInbox(connect)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    with closing(connect()) as db:
        db.execute(TABLE)
    inbox.create_table()
    yield
    nodrop.close()


app = FastAPI(title="Example shop", lifespan=lifespan)


@app.middleware("http")
async def protect(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Let pages run nodrop's module and connect to nodrop, and nothing else."""
    response = await call_next(request)
    response.headers["content-security-policy"] = (
        f"default-src 'none'; script-src {NODROP_URL}; connect-src {NODROP_URL}; form-action 'self'"
    )
    response.headers["cache-control"] = "no-store"
    return response


# -- pages -------------------------------------------------------------------------------------------------------------


@app.get("/", response_class=HTMLResponse)
def show_products() -> str:
    buttons = "".join(
        f'<p><button name="product" value="{key}">{escape(name)}, ¥{price / 100:.2f}</button></p>'
        for key, (name, price) in PRODUCTS.items()
    )
    return page("A shop in FastAPI", f'<form method="post" action="/orders">{buttons}</form>')


@app.get("/orders/{order_no}", response_class=HTMLResponse)
def show_order(order_no: str) -> str:
    order = find(order_no)
    if order["order_page"] is None:
        reason = escape(order["refusal"] or "The payment service has not answered.")
        form = f'<form method="post" action="/orders/{escape(order_no)}/place">'
        return page(order["subject"], f'<p id="refusal">{reason}</p>{form}<button>Send the order again</button></form>')
    goods = escape(order["goods"])
    url = escape(order["order_page"])
    content = f"""<script type="module" src="{MODULE}" integrity="{INTEGRITY}" crossorigin="anonymous"></script>
<p>Order {escape(order_no)}. Goods: <span id="goods">{goods}</span>.</p>
<nodrop-order url="{url}"><p><a id="order-page" href="{url}">Pay, or see your payment</a></p></nodrop-order>"""
    return page(order["subject"], content)


def page(title: str, content: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{content}
<p><a href="/">Back to the shop</a></p>
</main>
</body>
</html>
"""


# -- orders ------------------------------------------------------------------------------------------------------------


@app.post("/orders")
def buy(product: Annotated[str, Form()]) -> RedirectResponse:
    """Record the order, then place it. Whatever happens in between, the shop knows the number."""
    if product not in PRODUCTS:
        raise HTTPException(404)
    subject, amount = PRODUCTS[product]
    order_no = f"shop-{secrets.token_hex(12)}"  # who guesses it sees the order's page
    with closing(connect()) as db, db:
        db.execute("INSERT INTO orders (order_no, subject, amount) VALUES (?, ?, ?)", (order_no, subject, amount))
    return place(order_no)


@app.post("/orders/{order_no}/place")
def place(order_no: str) -> RedirectResponse:
    """Place the order; again with the same number if the outcome is unknown, for that is the same order."""
    order = find(order_no)
    new = NewOrder(
        order_no=order_no,
        amount=order["amount"],
        currency=CURRENCY,
        subject=order["subject"],
        accounts=ACCOUNTS,
        notify_url=f"{SHOP_URL}/notifications",
        return_url=f"{SHOP_URL}/orders/{order_no}",
    )
    order_page = refusal = None
    try:
        order_page = nodrop.place(new).order_page
    except NodropError as error:
        if isinstance(error, Problem) and not error.is_transient:
            refusal = error.detail
    with closing(connect()) as db, db:
        db.execute(
            "UPDATE orders SET order_page = coalesce(?, order_page), refusal = ? WHERE order_no = ?",
            (order_page, refusal, order_no),
        )
    return RedirectResponse(f"/orders/{order_no}", status_code=303)


def find(order_no: str) -> sqlite3.Row:
    with closing(connect()) as db:
        order: sqlite3.Row | None = db.execute("SELECT * FROM orders WHERE order_no = ?", (order_no,)).fetchone()
    if order is None:
        raise HTTPException(404)
    return order


# -- notifications -----------------------------------------------------------------------------------------------------


async def raw_body(request: Request) -> bytes:
    body: bytes = await request.body()
    return body


@app.post("/notifications")
def receive(request: Request, body: Annotated[bytes, Depends(raw_body)]) -> Response:
    """Acknowledge what is stored. Any other status, also that of an exception, brings it again."""
    try:
        notification = verify(request.headers, body, NOTIFY_SECRETS)
    except NotificationRejected:
        return Response(status_code=401)
    inbox.process(notification, ship)
    return Response(status_code=204)


def ship(db: sqlite3.Connection, change: Change) -> None:
    """Ship in the transaction that remembers the notification, so it happens once.

    Where another type than `order.paid` is the first that says paid, as of a dispute or a refund that came faster, a
    person looks at the order.
    """
    data = change.notification.data
    if change.became_paid and (data.live or SHIPS_TEST_ORDERS):
        goods = "shipped" if change.notification.type == "order.paid" else "a person looks at the order"
        db.execute(
            "UPDATE orders SET goods = ? WHERE order_no = ? AND amount = ? AND goods = 'not shipped yet'",
            (goods, data.order_no, data.amount),
        )
