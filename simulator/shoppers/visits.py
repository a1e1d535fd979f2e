"""People who buy: seeded kinds of them, each doing what such people do, and an honest record of what they saw.

They pay on the channel's own page with its own form, and look at nodrop's pages as a browser would; nothing is taken
from a control API. Which shopper does what depends on the seed and the shopper's index alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import msgspec

from simulator.kernel.faults import draw
from simulator.kernel.pay_page import Action
from simulator.kit.asgi import BadBody, decode
from simulator.shoppers.browser import Browser, Page
from simulator.shoppers.plan import Kind, Plan, kind_of, order_of
from simulator.shoppers.shop import Refused, Shop, ShopOrder, ShopPayment

PAY_ATTEMPTS_MAX = 8
"""How often a person who wants to pay opens a page that does not open."""

PAY_GAP_S = 0.25
WATCH_GAP_S = 0.2
UNTRUE_AFTER_PAYING = frozenset({"created", "unpaid", "failed", "closed"})
"""What nobody who has paid may be told: *processing* and *review* are true, and *paid* is what they want to read."""


class Where(StrEnum):
    """Where a shopper looked."""

    RETURN = "return"
    PAGE = "page"
    STATUS = "status"
    REFRESH = "refresh"


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What was there. `since_paying_s` is None before paying; `status` is empty where a page tells none."""

    where: Where
    http_status: int
    status: str = ""
    since_paying_s: float | None = None

    @property
    def is_untrue(self) -> bool:
        """Whether somebody who had paid was told otherwise."""
        return self.since_paying_s is not None and self.status in UNTRUE_AFTER_PAYING


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What one shopper did and saw. `paid`: the numbers whose pay page said paid. `refused`: what was not, and why.

    `agreed`: those whose pay page said that the buyer has done everything, and whose money the channel takes later.
    """

    order_no: str
    kind: Kind
    account: str
    amount: int
    currency: str
    placed: bool
    out_trade_nos: tuple[str, ...] = ()
    paid: tuple[str, ...] = ()
    agreed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    sights: tuple[Sight, ...] = ()

    @property
    def untrue(self) -> tuple[Sight, ...]:
        return tuple(sight for sight in self.sights if sight.is_untrue)


async def run(
    shop: Shop, plan: Plan, *, concurrency: int, on_progress: Callable[[Visit], None] | None = None
) -> tuple[Visit, ...]:
    """Sends all shoppers through, `concurrency` at a time; gives their visits in the order of their index."""
    visits: dict[int, Visit] = {}
    waiting = iter(range(plan.shoppers))

    async def one_after_another() -> None:
        for index in waiting:
            visits[index] = visit = await _Shopper(shop, browser, plan, index).visit()
            if on_progress is not None:
                on_progress(visit)

    async with Browser() as browser, asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, plan.shoppers)):
            group.create_task(one_after_another())
    return tuple(visits[index] for index in sorted(visits))


class _Shopper:
    """One person on the way through the shop: does, and writes down."""

    def __init__(self, shop: Shop, browser: Browser, plan: Plan, index: int) -> None:
        self._shop = shop
        self._browser = browser
        self._plan = plan
        self._kind = kind_of(plan, index)
        self._request = order_of(plan, index)
        self._order_page = ""
        self._opened: list[str] = []
        self._paid: list[str] = []
        self._agreed: list[str] = []
        self._refused: list[str] = []
        self._sights: list[Sight] = []
        self._began_s = time.monotonic()
        self._paid_s: float | None = None

    async def visit(self) -> Visit:
        placed = await self._shop.place(self._request)
        if isinstance(placed, Refused):
            self._note_refusal("place", placed)
        else:
            self._order_page = placed.order_page
            await self._act(placed)
        return Visit(
            order_no=self._request.order_no,
            kind=self._kind,
            account=self._request.account,
            amount=self._request.amount,
            currency=self._request.currency,
            placed=isinstance(placed, ShopOrder),
            out_trade_nos=tuple(self._opened),
            paid=tuple(self._paid),
            agreed=tuple(self._agreed),
            refused=tuple(self._refused),
            sights=tuple(self._sights),
        )

    async def _act(self, order: ShopOrder) -> None:
        acts: dict[Kind, Callable[[ShopPayment], Awaitable[None]]] = {
            Kind.PAYS_AT_ONCE: self._pays_at_once,
            Kind.WALKS_AWAY: self._walks_away,
            Kind.PAYS_LATE: self._pays_late,
            Kind.PAYS_TWICE: self._pays_twice,
            Kind.COMES_BACK: self._comes_back,
        }
        payment = next(payment for payment in order.payments if payment.pay_url)
        self._opened.append(payment.out_trade_no)
        await acts[self._kind](payment)

    # -- the kinds -----------------------------------------------------------------------------------------------------

    async def _pays_at_once(self, payment: ShopPayment) -> None:
        await self._pay(payment, await self._open(payment))
        await self._look_at_status()

    async def _walks_away(self, payment: ShopPayment) -> None:
        await self._open(payment)

    async def _pays_late(self, payment: ShopPayment) -> None:
        page = await self._open(payment)
        left_s = self._began_s + self._plan.expires_in_s - self._plan.late_margin_s - time.monotonic()
        await asyncio.sleep(max(0.0, left_s))
        await self._pay(payment, page)
        await self._look_at_status()

    async def _pays_twice(self, payment: ShopPayment) -> None:
        """A second payment is begun elsewhere while the page of the first stays open; then both are paid."""
        first = await self._open(payment)
        currency, mine = self._request.currency, self._request.account
        others = [name for name in self._plan.accounts if name != mine and currency in self._plan.takes(name)]
        picked = int(draw(self._plan.seed, "second", self._request.order_no) * len(others))
        order = await self._shop.add_payment(self._request.order_no, others[picked] if others else mine)
        if isinstance(order, Refused):
            self._note_refusal("second", order)
        else:
            for second in order.payments:
                if second.pay_url and second.out_trade_no != payment.out_trade_no:
                    self._opened.append(second.out_trade_no)
                    await self._pay(second, await self._open(second))
        await self._pay(payment, first)
        await self._look_at_status()

    async def _comes_back(self, payment: ShopPayment) -> None:
        """Follows the way back, reloads, presses refresh, and watches the page until it says paid."""
        shown = await self._pay(payment, await self._open(payment))
        if "return" in shown.links:
            self._see(Where.RETURN, await self._browser.open(urljoin(shown.url, shown.links["return"])))
        self._see(Where.PAGE, await self._browser.open(self._order_page))
        await self._look_at_status()
        self._see(Where.REFRESH, await self._browser.send(self._below("refresh")))
        for _ in range(1 + int(self._plan.watch_s / WATCH_GAP_S)):
            if await self._look_at_status() == "paid":
                break
            await asyncio.sleep(WATCH_GAP_S)
        self._see(Where.PAGE, await self._browser.open(self._order_page))

    # -- what they all do ----------------------------------------------------------------------------------------------

    async def _open(self, payment: ShopPayment) -> Page:
        """The pay page, reloaded until it shows a state or patience ends."""
        assert payment.pay_url is not None, "only payments with a checkout are opened"
        page = await self._browser.open(payment.pay_url)
        for _ in range(PAY_ATTEMPTS_MAX - 1):
            if page.state:
                break
            await asyncio.sleep(PAY_GAP_S)
            page = await self._browser.open(payment.pay_url)
        return page

    async def _pay(self, payment: ShopPayment, page: Page) -> Page:
        """Press Pay; when no answer comes, look again before pressing again, as people are told to."""
        for _ in range(PAY_ATTEMPTS_MAX):
            if page.form is None:
                break
            page = await self._browser.press(page, Action.PAY)
            if not page.state:
                await asyncio.sleep(PAY_GAP_S)
                page = await self._open(payment)
        if page.state in ("paid", "refunded"):
            self._paid.append(payment.out_trade_no)
            self._paid_s = self._paid_s or time.monotonic()
        elif page.state == "agreed":
            self._agreed.append(payment.out_trade_no)
        else:
            self._refused.append(f"pay: {page.http_status} {page.state}".rstrip())
        return page

    async def _look_at_status(self) -> str:
        return self._see(Where.STATUS, await self._browser.open(self._below("status")))

    def _below(self, name: str) -> str:
        """An address below the order page's, with the same query."""
        parts = urlsplit(self._order_page)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))

    def _see(self, where: Where, page: Page) -> str:
        status = _status_in(page.body) or page.state
        since = None if self._paid_s is None else round(time.monotonic() - self._paid_s, 3)
        self._sights.append(Sight(where=where, http_status=page.http_status, status=status, since_paying_s=since))
        return status

    def _note_refusal(self, what: str, refused: Refused) -> None:
        self._refused.append(f"{what}: {refused.http_status} {refused.code}".rstrip())


def _status_in(body: bytes) -> str:
    """The `status` of a JSON object, else nothing."""
    try:
        told: dict[str, Any] = decode(body, dict[str, Any])
    except BadBody:
        return ""
    status = told.get("status", "")
    return status if isinstance(status, str) else ""
