"""The channel's pay page, for people and for simulated shoppers."""

from __future__ import annotations

import base64
from datetime import UTC
from enum import StrEnum
from functools import partial
from hashlib import sha256
from html import escape
from urllib.parse import parse_qs

from msgspec.structs import replace

from simulator.kernel.dispatch import switched_off
from simulator.kernel.faults import AtFault, Fault
from simulator.kernel.ledger import Payment, PaymentStatus, Refusal
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import HTML, Reply, Request, Response, Route

# ISO 4217 exponents that are not 2. https://www.iso.org/iso-4217-currency-codes.html
_PLACES = dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0) | dict.fromkeys(
    "BHD IQD JOD KWD LYD OMR TND".split(), 3
)

_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { display: grid; place-items: center; min-height: 100vh; margin: 0; }
a { color: inherit; }
main { box-sizing: border-box; width: min(24rem, 90vw); padding: 2rem; border: 1px solid #8886; border-radius: .75rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1rem; font-weight: 500; margin: 0; }
.amount { font-size: 2.5rem; font-weight: 600; margin: .5rem 0 1.5rem; }
button { width: 100%; padding: .75rem; margin-top: .5rem; font: inherit; border: 1px solid #8888;
  border-radius: .5rem; }
button.pay { background: #0a7d38; border-color: #0a7d38; color: #fff; font-weight: 600; }
small { display: block; margin-top: 1.5rem; opacity: .7; }
"""
_STYLE_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
_CSP = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("content-security-policy", _CSP),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)

_TEXTS = {
    PaymentStatus.PAID: "Paid",
    PaymentStatus.REFUNDED: "Paid, and refunded since",
    PaymentStatus.CLOSED: "Closed: this payment takes no money any more",
}


class Action(StrEnum):
    """Values of the buttons."""

    PAY = "pay"
    PAY_LOSE_CALLBACK = "pay_lose_callback"
    CANCEL = "cancel"


def routes(simulation: Simulation) -> list[Route]:
    """Routes of the page and its form."""
    return [
        Route("GET", "/pay/{token}", partial(_show, simulation)),
        Route("POST", "/pay/{token}", partial(_act, simulation)),
    ]


async def _show(simulation: Simulation, request: Request) -> Reply:
    simulation.traffic.counters["pages_shown"] += 1
    off = switched_off(simulation)
    if off is not None:
        return off
    payment = simulation.ledger.find_by_token(request.params["token"], simulation.now())
    if payment is not None and _is_link_over(simulation, request, payment):
        return _ended_page()
    if payment is not None and _lacks_referer(request, payment):
        return _page("Not opened", '<h1 data-status="refused">This link says not where it comes from.</h1>', status=403)
    opened = None if payment is None else simulation.open(payment.key)
    if opened is None:
        return _no_such_page()
    return _payment_page(
        _with_way_back(opened, request), simulation.accounts[opened.merchant_id].channel, request.query
    )


async def _act(simulation: Simulation, request: Request) -> Reply:
    """Apply the button, then redirect to the page, so that a reload never pays."""
    off = switched_off(simulation)
    if off is not None:
        return off
    payment = simulation.ledger.find_by_token(request.params["token"], simulation.now())
    if payment is None:
        return _no_such_page()
    payment = _with_way_back(payment, request)
    if _is_link_over(simulation, request, payment):
        return _ended_page()
    try:
        action = Action(parse_qs(request.body.decode("ascii", "replace")).get("action", [""])[0])
    except ValueError:
        return _page("Unknown button", "<p>This page has no such button.</p>", status=400)
    simulation.traffic.counters[f"pages_{action}"] += 1
    if action is Action.CANCEL:
        return _page("Not paid", f"<h1>You have not paid.</h1>{_way_back(payment)}")
    lose = AtFault(callback=Fault.LOST) if action is Action.PAY_LOSE_CALLBACK else None
    if isinstance(simulation.pay(payment.key, lose), Refusal):
        return _page("Not payable", f"<h1>This payment takes no money any more.</h1>{_way_back(payment)}", status=409)
    return Response(status=303, headers=(("location", _address(payment, request.query)), *_HEADERS))


def _address(payment: Payment, query: str) -> str:
    return f"/pay/{payment.token}" + (f"?{query}" if query else "")


def _with_way_back(payment: Payment, request: Request) -> Payment:
    """The payment, with the way back that its link names; WeChat Pay takes it from there alone."""
    url = parse_qs(request.query).get("redirect_url", [""])[0]
    is_web = url.startswith(("https://", "http://"))
    return replace(payment, terms=replace(payment.terms, return_url=url)) if is_web else payment


def _lacks_referer(request: Request, payment: Payment) -> bool:
    needs = payment.terms.wire.get("needs_referer", False) and payment.status is PaymentStatus.UNPAID
    return needs and not request.headers.get("referer")


def _payment_page(payment: Payment, channel: str, query: str) -> Response:
    terms = payment.terms
    head = f'<h1>{escape(terms.subject)}</h1><p class="amount">{escape(shown_amount(terms.amount, terms.currency))}</p>'
    if payment.status is PaymentStatus.UNPAID and payment.agreed_at is not None:
        text = "Agreed: the money is taken when the shop asks for it, or when your bank has sent it"
        return _page("Agreed", f'{head}<p data-status="agreed">{text}.</p>{_way_back(payment)}')
    if payment.status is PaymentStatus.UNPAID:
        return _page("Pay", head + _form(payment, channel, query))
    text = _TEXTS[payment.status]
    return _page(text, f'{head}<p data-status="{payment.status}">{text}.</p>{_way_back(payment)}')


def _form(payment: Payment, channel: str, query: str) -> str:
    until = payment.terms.expires_at.astimezone(UTC)
    return f"""<form method="post" action="{escape(_address(payment, query))}" data-status="unpaid">
<button class="pay" name="action" value="{Action.PAY}">Pay</button>
<button name="action" value="{Action.PAY_LOSE_CALLBACK}">Pay, but lose the callback</button>
<button name="action" value="{Action.CANCEL}">Cancel</button>
</form>
<small>Simulated channel: {escape(channel)}. No money moves. Payable until {until:%Y-%m-%d %H:%M:%S} UTC.</small>"""


def _way_back(payment: Payment) -> str:
    if payment.terms.return_url is None:
        return ""
    return f'<p><a id="return" href="{escape(payment.terms.return_url)}">Back to the shop</a></p>'


def _is_link_over(simulation: Simulation, request: Request, payment: Payment) -> bool:
    """Return whether this link takes nothing any more, although the payment may still be payable by another one."""
    if payment.status is not PaymentStatus.UNPAID:
        return False
    is_past = payment.link_ends_at is not None and simulation.now() >= payment.link_ends_at
    return is_past or request.params["token"] != payment.token


def _ended_page() -> Response:
    text = "This link has ended: the shop can give you another one"
    return _page("Link ended", f'<h1 data-status="ended">{text}.</h1>', status=410)


def _no_such_page() -> Response:
    return _page("No such payment", "<h1>There is no such payment.</h1>", status=404)


def _page(title: str, content: str, *, status: int = 200) -> Response:
    html = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{_STYLE}</style></head>
<body><main>{content}</main></body>
</html>
"""
    return Response(status=status, body=html.encode(), content_type=HTML, headers=_HEADERS)


def shown_amount(amount: int, currency: str) -> str:
    """Format minor units: (1234, "CNY") → "12.34 CNY", (500, "JPY") → "500 JPY"."""
    places = _PLACES.get(currency, 2)
    whole, fraction = divmod(amount, 10**places)
    return f"{whole}.{fraction:0{places}d} {currency}" if places else f"{whole} {currency}"
