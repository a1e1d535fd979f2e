"""Paying from an order's page: what the page shows of it, and the buyer's own click that starts a payment.

Only a POST creates or renews one, never a GET or a timer: each costs a call of the channel, and is counted.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from urllib.parse import urlencode

import msgspec
import structlog

from api.context import Context
from api.http.fields import read_form
from api.http.request import Request
from core import paying
from core.admission import Urgency
from core.checkout import Payer
from core.errors import CallerError, NodropError, OrderClosed, OrderPaid, PaymentUnclear
from core.order import OrderState, Payment
from core.paying import Device, Way, WayKind, device_of
from flows.choice import is_test_money, ways_to_pay
from flows.place import PaymentRequest, start_payment

_SHOWN = re.compile(r"(?:^|&)(account|method|error)=([0-9a-zA-Z_.\-]{1,40})(?=&|$)", re.ASCII)

ERRORS = ("invalid", "limit", "not_offered", "origin", "refused", "unclear")
"""Reasons why a click started nothing, as the page's address has them."""

START_S = 20.0
"""Earlier payments are queried first. Whatever was begun is found again by the delayed query."""

log = structlog.get_logger()


class CurrentWay(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that can be paid now. `value` is a URL, the text of a code, or for `jsapi` parameters as JSON.

    `is_older_payable_too`: the order could be paid by another payment as well, so the page says: pay only once.
    """

    account: str
    channel: str
    method: str
    kind: WayKind
    value: str
    ends_at: datetime
    is_older_payable_too: bool


class PayView(msgspec.Struct, frozen=True, kw_only=True):
    """Paying as the page shows it. Without `ways` there is nothing to choose; `error` is one of `ERRORS`, or empty.
    `is_over`: the order takes no payment any more.

    `is_waiting`: the page may say that it waits for the buyer to pay. Such an order has no `current`, whatever the
    page's address says: a link would outlast the page. `is_handed_off`: the buyer was sent to a channel at some time.
    `is_test`: no real money is moved.
    """

    ways: tuple[Way, ...]
    current: CurrentWay | None
    order_ends_at: datetime
    is_handed_off: bool
    is_waiting: bool
    is_over: bool
    error: str
    is_test: bool


class PayForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account: str
    method: str


async def view_pay(context: Context, request: Request, state: OrderState) -> PayView:
    """Ways to pay, and the payment that can be paid: the one that the page's address names, else the newest."""
    shown = dict(_SHOWN.findall(request.query))
    ways = await ways_to_pay(context.resources, state, _device(request))
    error = shown["error"] if shown.get("error") in ERRORS else ""
    is_waiting = paying.is_waiting(state)
    is_doubtful = error == "unclear" and state.order.handed_off_at is not None
    return PayView(
        ways=ways,
        current=None if is_waiting else _current(state, ways, shown.get("account"), shown.get("method")),
        order_ends_at=state.order.expires_at,
        is_handed_off=state.order.handed_off_at is not None,
        is_waiting=is_waiting and bool(ways) and not is_doubtful,
        is_over=not paying.can_start(state),
        error=error,
        is_test=await is_test_money(context.resources, state),
    )


async def start(context: Context, request: Request, state: OrderState) -> str:
    """Start or renew the payment that the form names; return the query string of the page that shows it."""
    try:
        form = read_form(request, PayForm)
    except CallerError:
        return _failed("invalid")
    ways = await ways_to_pay(context.resources, state, _device(request))
    way = next((way for way in ways if way.method and (way.account, way.method) == (form.account, form.method)), None)
    if way is None:
        return _failed("not_offered") if ways else ""
    is_one_more = _current(state, (way,), way.account, way.method) is None
    is_full = is_one_more and len(state.payments) >= paying.PAYMENTS_MAX
    if is_full or not context.starts.take(state.order.order_no, request.address):
        return _failed("limit")
    error = await _start(context, request, state, way)
    return urlencode({"account": way.account, "method": way.method} | ({"error": error} if error else {}))


async def _start(context: Context, request: Request, state: OrderState, way: Way) -> str:
    """Start it; return the reason why nothing was started, or an empty text."""
    payer = Payer(openid=paying.openid_of(state), client_ip=request.client_ip)
    method = paying.requested_method(state, way)
    payment = PaymentRequest(account=way.account, method=method, payer=payer, urgency=Urgency.REFRESH)
    try:
        async with asyncio.timeout(START_S):
            placed = await start_payment(context.resources, state.order.order_no, payment)
    except (OrderPaid, OrderClosed):
        return ""
    except (PaymentUnclear, TimeoutError):
        return "unclear"
    except NodropError as error:
        log.warning("page_payment_not_started", order_no=state.order.order_no, error=type(error).__name__)
        return "refused" if isinstance(error, CallerError) else "unclear"
    return "" if _current(placed.state, (way,), way.account, way.method) else "unclear"


def _device(request: Request) -> Device:
    return device_of(request.headers.get("user-agent", ""))


def _failed(error: str) -> str:
    return urlencode({"error": error})


def _current(state: OrderState, ways: tuple[Way, ...], account: str | None, method: str | None) -> CurrentWay | None:
    """The named way, else the newest. A call of WeChat's browser does nothing in another one, so it must be named."""
    rows = [(row, way) for row in paying.payable_checkouts(state) if (way := _way_of(row, ways)) is not None]
    named = [(row, way) for row, way in rows if (way.account, way.method) == (account, method)]
    shown = named or [(row, way) for row, way in rows if way.fits or way.kind is not WayKind.JSAPI]
    if not shown:
        return None
    row, way = shown[-1]
    assert row.checkout is not None, "only payments that have one can be paid"
    return CurrentWay(
        account=way.account,
        channel=way.channel,
        method=way.method,
        kind=way.kind,
        value=row.checkout.value,
        ends_at=row.checkout_ends_at or row.payable_until,
        is_older_payable_too=paying.is_another_payable(state, row),
    )


def _way_of(row: Payment, ways: tuple[Way, ...]) -> Way | None:
    of_account = (way for way in ways if way.account == row.channel_account and way.method)
    return next((way for way in of_account if way.method == paying.method_of(row, way.channel)), None)
