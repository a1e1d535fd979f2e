"""The shop's pages as HTML. Every value goes through `escape`; there is no inline script or style."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import NamedTuple

from demo.shop.backend import TimelineEntry
from demo.shop.books import Sale
from demo.shop.catalogue import NAME_CHARACTERS_MAX, PRODUCTS, WAYS, Product, find_way, price_text

NAME = "Leaf & Cup"
INTEGRITY = "sha384-fYzQwJO833GB0aMgQeWtljnXc0CkUgh5dy+rKQnnyMmm2+n8RBdmuyQT3R8KlGgJ"

STATES = {
    "placing": ("wait", "Not sent yet"),
    "placed": ("wait", "Waiting for the payment"),
    "paid": ("good", "Paid"),
    "closed": ("calm", "Closed without payment"),
}
HOW = {
    "callback": "The callback arrived, and nodrop had the channel confirm it.",
    "compensation": "The callback was stored when it arrived, and confirmed later.",
    "refresh": "You came back: the order page asked the channel, without a callback.",
    "query": "No callback came. The delayed query asked the channel and found the payment.",
    "sweep": "No callback came. The sweep found the query that was due, and the channel said paid.",
    "undelivered": "The channel listed the callback as not delivered, and nodrop fetched it.",
    "close": "Before the order was closed, nodrop asked the channel once more, and it was paid.",
    "reconciliation": "The channel's statement had the payment.",
}
"""Sentences by `by` of the timeline's entry `paid`."""


class Content(NamedTuple):
    """A page without its frame. `is_open`: it changes by itself, and so it is read again; `embedded` stays then."""

    title: str
    html: str
    is_open: bool = False
    embedded: str = ""


def page(content: Content, *, path: str, callbacks_lost: bool | None, orders: int) -> str:
    """Return a whole page. The script reads an open one again; without a script the browser reloads it."""
    reload = '<noscript><meta http-equiv="refresh" content="3"></noscript>\n' if content.is_open else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(content.title)} · {escape(NAME)}</title>
<link rel="icon" href="/static/shop.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/shop.css">
<script src="/static/shop.js" defer></script>
{reload}</head>
<body>
<header>
<p class="name"><a href="/">{escape(NAME)}</a></p>
<nav aria-label="Shop"><a href="/">Products</a> <a href="/orders">Orders ({orders})</a></nav>
</header>
{_switch(path, callbacks_lost)}
<main id="live"{" data-open" if content.is_open else ""}>
{content.html}
</main>
{content.embedded}
<footer><p>An example shop. Its channels are simulated: no money moves, and nothing is sent.</p></footer>
</body>
</html>
"""


def products() -> Content:
    """The form: a product, for whom, and a channel to begin with."""
    cards = "\n".join(_product(key, product, is_first=not at) for at, (key, product) in enumerate(PRODUCTS.items()))
    ways = "\n".join(
        f'<label class="way"><input type="radio" name="account" value="{way.account}"{"" if at else " checked"}>'
        f"<span>{escape(way.name)}</span> <small>{way.currency}</small></label>"
        for at, way in enumerate(WAYS)
    )
    html = f"""<h1>Buy tea, pay at any channel</h1>
<form method="post" action="/orders">
<fieldset class="products"><legend>Product</legend>
{cards}
</fieldset>
<fieldset class="ways"><legend>Channel</legend>
{ways}
</fieldset>
<p class="recipient"><label for="recipient">For whom (optional)</label>
<input id="recipient" name="recipient" maxlength="{NAME_CHARACTERS_MAX}" autocomplete="off"></p>
<p><button class="main">Place the order</button></p>
</form>"""
    return Content("Products", html)


def orders(sales: list[Sale]) -> Content:
    if not sales:
        return Content("Orders", '<h1>Orders</h1>\n<p>There are none yet. <a href="/">Buy something</a>.</p>')
    rows = "\n".join(
        f'<li><a href="/orders/{sale.order_no}">{escape(sale.subject)}</a>'
        f"<span>{price_text(sale.amount, sale.currency)}</span>{_state(sale)}</li>"
        for sale in sales
    )
    html = f'<h1>Orders</h1>\n<ul class="orders">\n{rows}\n</ul>'
    return Content("Orders", html, any(sale.is_open for sale in sales))


def order(sale: Sale, entries: list[TimelineEntry], codes: list[str]) -> Content:
    way = find_way(sale.account)
    begun_at = sale.account if way is None else way.name
    html = f"""<h1>{escape(sale.subject)}</h1>
<p class="amount">{price_text(sale.amount, sale.currency)}</p>
<div class="now" role="status">{_state(sale)}
<p id="how">{escape(_how(sale))}</p>
{_shipped(sale)}</div>
{_actions(sale)}
{_scanning(codes)}
{_timeline(entries)}
<p class="number">Order <code>{escape(sale.order_no)}</code>, begun at {escape(begun_at)}</p>"""
    return Content(sale.subject, html, sale.is_open, _embedded(sale))


def missing() -> Content:
    return Content("Not here", '<h1>There is no such page</h1>\n<p><a href="/">To the products</a></p>')


def channels_gone() -> Content:
    return Content("No channels", "<h1>The simulated channels do not answer</h1>")


# -- parts -------------------------------------------------------------------------------------------------------------


def _switch(path: str, lost: bool | None) -> str:  # noqa: FBT001 - None: unknown
    """The switch for all callbacks of the simulated channels."""
    if lost is None:
        return ""
    text = (
        "Callbacks are lost: nodrop has to find the payment by itself."
        if lost
        else "Callbacks arrive. Lose them, and see how the payment is found."
    )
    return f"""<form class="switch" method="post" action="/callbacks" aria-label="Simulated channels">
<input type="hidden" name="back" value="{escape(path)}">
<button role="switch" aria-checked="{str(lost).lower()}" name="lost" value="{int(not lost)}">Lose the callback</button>
<span id="callbacks">{text}</span>
</form>"""


def _product(key: str, product: Product, *, is_first: bool) -> str:
    prices = " or ".join(price_text(amount, currency) for currency, amount in product.prices.items())
    return (
        f'<label class="product"><input type="radio" name="product" value="{key}"{" checked" if is_first else ""}>'
        f'<svg viewBox="0 0 48 48" aria-hidden="true">{product.picture}</svg>'
        f"<span>{escape(product.name)}</span> <small>{prices}</small></label>"
    )


def _state(sale: Sale) -> str:
    kind, text = ("look", "Refused") if sale.refusal else STATES.get(sale.status, ("wait", sale.status))
    if sale.needs_person:
        kind, text = "look", "Paid, and a person looks at it"
    if sale.shipped_at is not None:
        kind, text = "good", "Paid and shipped"
    return f'<strong class="state {kind}">{escape(text)}</strong>'


def _how(sale: Sale) -> str:
    """A short account of where the order is and how the payment was found."""
    if sale.refusal:
        return sale.refusal
    if not sale.order_page:
        return "nodrop has not answered. Send the order again: its number makes it the same order."
    if sale.paid_by:
        return HOW.get(sale.paid_by, f"Found by: {sale.paid_by}.")
    if sale.status == "closed":
        return "The time to pay is over, and the channel confirmed that there is no money."
    return "Pay on the order page. The shop waits for nodrop's notification, not for the browser."


def _shipped(sale: Sale) -> str:
    if sale.shipped_at is None:
        return ""
    return f'<p id="shipped">Shipped once, on the notification of {_time(sale.shipped_at)}.</p>'


def _actions(sale: Sale) -> str:
    if sale.refusal:
        return '<p class="actions"><a class="button" href="/">Choose again</a></p>'
    if not sale.order_page:
        return (
            f'<form class="actions" method="post" action="/orders/{escape(sale.order_no)}/place">'
            '<button class="main">Send the order again</button></form>'
        )
    text = "Pay on the order page" if sale.status == "placed" else "Open the order page"
    return f'<p class="actions"><a class="button" id="order-page" href="{escape(sale.order_page)}">{text}</a></p>'


def _scanning(codes: list[str]) -> str:
    """Links in place of a camera: a phone does not reach the simulated channels of this machine."""
    return "".join(
        f'<p class="scan"><a href="{escape(code)}" target="_blank" rel="noreferrer">'
        "Scan the code with a simulated phone</a> (opens another tab)</p>"
        for code in codes
    )


def _embedded(sale: Sale) -> str:
    """The six lines that any shop puts into its page (docs/embedding.md)."""
    if not sale.order_page:
        return ""
    page, server = escape(sale.order_page), escape(sale.order_page.partition("/o/")[0])
    return f"""<section aria-labelledby="embedded">
<h2 id="embedded">nodrop in the shop’s own page</h2>
<script type="module" src="{server}/sdk/1.0.0/order-status.js"
        integrity="{INTEGRITY}"
        crossorigin="anonymous"></script>
<nodrop-order url="{page}">
  <a href="{page}">See your payment</a>
</nodrop-order>
</section>"""


def _timeline(entries: list[TimelineEntry]) -> str:
    if not entries:
        return ""
    rows = "\n".join(
        f"<tr><td>{escape(each.at[11:19])}</td><td>{escape(each.kind)}</td><td>{escape(each.by)}</td></tr>"
        for each in entries
    )
    return f"""<details><summary>What nodrop recorded</summary>
<table><thead><tr><th scope="col">UTC</th><th scope="col">What</th><th scope="col">By</th></tr></thead>
<tbody>
{rows}
</tbody></table></details>"""


def _time(at: datetime) -> str:
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%H:%M:%S} UTC</time>'
