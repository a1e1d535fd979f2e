"""The addresses of the shop. Every page is complete without a script; a form answers with a redirect to a page."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from urllib.parse import parse_qs

import httpx
import msgspec

from demo.shop import pages
from demo.shop.backend import Backend, Placed, Refused
from demo.shop.books import Books, Notification, Sale
from demo.shop.catalogue import PRODUCTS, find_way, subject_of
from simulator.kit.asgi import HTML, BadBody, Reply, Request, Response, Route, decode, json_response
from simulator.merchant.signature import is_signed

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {
    "shop.css": "text/css; charset=utf-8",
    "shop.js": "text/javascript; charset=utf-8",
    "shop.svg": "image/svg+xml",
}
_OWN_PATH = re.compile(r"/(?:orders(?:/[0-9a-z\-]+)?)?", re.ASCII)


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a handler uses. `keys` verify notifications; `origin` is nodrop's, to which forms lead."""

    backend: Backend
    books: Books
    keys: tuple[bytes, ...]
    origin: str


Handler = Callable[[Shop, Request], Awaitable[Reply]]


def routes(shop: Shop) -> list[Route]:
    """Addresses of the shop."""
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/", show_products),
        ("POST", "/orders", _own(buy)),
        ("GET", "/orders", show_orders),
        ("GET", "/orders/{order_no}", show_order),
        ("POST", "/orders/{order_no}/place", _own(place_again)),
        ("POST", "/callbacks", _own(switch_callbacks)),
        ("POST", "/notifications", receive_notification),
        ("GET", "/static/{name}", serve_file),
        ("GET", "/healthz", check_health),
    ]
    return [Route(method, pattern, partial(handler, shop)) for method, pattern, handler in table]


async def show_products(shop: Shop, _: Request) -> Reply:
    return await _page(shop, "/", pages.products())


async def show_orders(shop: Shop, _: Request) -> Reply:
    return await _page(shop, "/orders", pages.orders(shop.books.newest_first()))


async def show_order(shop: Shop, request: Request) -> Reply:
    sale = shop.books.find(request.params["order_no"])
    if sale is None:
        return await _page(shop, "/", pages.missing(), status=404)
    entries = await shop.backend.timeline(sale.order_no) if sale.order_page else []
    sale.paid_by = next((each.by for each in entries if each.kind == "paid"), sale.paid_by)
    codes = await shop.backend.codes(sale.order_no) if sale.status == "placed" else []
    return await _page(shop, f"/orders/{sale.order_no}", pages.order(sale, entries, codes))


async def buy(shop: Shop, request: Request) -> Reply:
    """Record the sale first, then place the order under its number: what happens in between, it is known here."""
    form = _form(request)
    product, way = PRODUCTS.get(form.get("product", "")), find_way(form.get("account", ""))
    if product is None or way is None:
        return await _page(shop, "/", pages.missing(), status=400)
    sale = Sale(
        order_no=f"tea-{token_hex(4)}",
        subject=subject_of(product, form.get("recipient", "")),
        amount=product.prices[way.currency],
        currency=way.currency,
        account=way.account,
        created_at=datetime.now(UTC),
    )
    shop.books.add(sale)
    return await _place(shop, sale)


async def place_again(shop: Shop, request: Request) -> Reply:
    sale = shop.books.find(request.params["order_no"])
    if sale is None:
        return await _page(shop, "/", pages.missing(), status=404)
    return await _place(shop, sale)


async def switch_callbacks(shop: Shop, request: Request) -> Reply:
    form = _form(request)
    try:
        await shop.backend.lose_callbacks(lost=form.get("lost") == "1")
    except httpx.HTTPError:
        return await _page(shop, "/", pages.channels_gone(), status=502)
    return _see_other(form.get("back", "/") if _OWN_PATH.fullmatch(form.get("back", "/")) else "/")


async def receive_notification(shop: Shop, request: Request) -> Reply:
    """Verify the raw bytes, process once, acknowledge. What is not acknowledged comes again."""
    now = datetime.now(UTC)
    if not is_signed(shop.keys, request, now):
        return Response(status=401)
    try:
        notification = decode(request.body, Notification)
    except BadBody:
        return Response(status=400)
    return Response(status=200 if shop.books.take(notification, now) else 404)


async def serve_file(_: Shop, request: Request) -> Reply:
    name = request.params["name"]
    if name not in CONTENT_TYPES:
        return Response(status=404)
    headers = (("cache-control", "no-cache"), ("x-content-type-options", "nosniff"))
    return Response(body=(STATIC / name).read_bytes(), content_type=CONTENT_TYPES[name], headers=headers)


async def check_health(_: Shop, __: Request) -> Reply:
    return json_response({"status": "ok"})


async def _place(shop: Shop, sale: Sale) -> Reply:
    """Place the order and lead to its page. Without a definite result the sale stays, and can be sent again."""
    match await shop.backend.place(sale):
        case Placed(order_page=order_page):
            sale.order_page = order_page
            sale.status = "placed" if sale.status == "placing" else sale.status
            return _see_other(order_page)
        case Refused(reason=reason):
            sale.refusal = reason
    return _see_other(f"/orders/{sale.order_no}")


async def _page(shop: Shop, path: str, content: pages.Content, *, status: int = 200) -> Response:
    lost = await shop.backend.are_callbacks_lost()
    body = pages.page(content, path=path, callbacks_lost=lost, orders=len(shop.books.newest_first()))
    csp = (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        f"script-src 'self' {shop.origin}; connect-src 'self' {shop.origin}; form-action 'self' {shop.origin}"
    )
    headers = (
        ("content-security-policy", csp),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    )
    return Response(status=status, body=body.encode(), content_type=HTML, headers=headers)


def _see_other(address: str) -> Response:
    return Response(status=303, headers=(("location", address),))


def _form(request: Request) -> dict[str, str]:
    fields = parse_qs(request.body.decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[0] for name, values in fields.items()}


def _own(handler: Handler) -> Handler:
    """Wrap the handler of a form: it is refused if the browser says that another site sent it."""

    async def guarded(shop: Shop, request: Request) -> Reply:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return await _page(shop, "/", pages.missing(), status=403)
        return await handler(shop, request)

    return guarded
