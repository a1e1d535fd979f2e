"""Visits of shoppers: each kind buys in its own way, and records the pages it saw.

Shoppers pay with the form of the channel's page and read nodrop's pages as a browser does; they use no control API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from urllib.parse import urljoin

import msgspec

from simulator.kernel.faults import draw
from simulator.kernel.pay_page import Action
from simulator.shoppers.browser import Browser, Page, below, status_on
from simulator.shoppers.plan import Kind, Plan, kind_of, order_of
from simulator.shoppers.shop import Refused, Shop, ShopOrder, ShopPayment

PAY_ATTEMPTS_MAX = 8
"""Attempts to open a pay page that does not open."""

PAY_GAP_S = 0.25
WATCH_GAP_S = 0.2
WRONG_AFTER_PAYMENT = frozenset({"created", "unpaid", "failed", "closed"})
"""Statuses that a page must not show after the payment. *processing*, *review* and *paid* are correct."""


class PageKind(StrEnum):
    """Kinds of pages that a shopper views."""

    RETURN = "return"
    PAGE = "page"
    STATUS = "status"
    REFRESH = "refresh"


class PageView(msgspec.Struct, frozen=True, kw_only=True):
    """A viewed page. `since_paying_s` is None before the payment; `status` is empty on a page without one."""

    where: PageKind
    http_status: int
    status: str = ""
    since_paying_s: float | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the page showed a wrong status after the payment."""
        return self.since_paying_s is not None and self.status in WRONG_AFTER_PAYMENT


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Record of one shopper. `paid` and `agreed`: numbers of payments whose pay page showed that status; the money of
    an agreed one is taken later. `refused`: refused actions with their reasons.
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
    sights: tuple[PageView, ...] = ()

    @property
    def wrong_views(self) -> tuple[PageView, ...]:
        return tuple(sight for sight in self.sights if sight.is_wrong)


async def run(
    shop: Shop, plan: Plan, *, concurrency: int, on_progress: Callable[[Visit], None] | None = None
) -> tuple[Visit, ...]:
    """Run all shoppers, `concurrency` at a time; return their visits in order of index."""
    visits: dict[int, Visit] = {}
    waiting = iter(range(plan.shoppers))

    async def one_after_another() -> None:
        for index in waiting:
            visits[index] = done = await visit(shop, browser, plan, index)
            if on_progress is not None:
                on_progress(done)

    async with Browser() as browser, asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, plan.shoppers)):
            group.create_task(one_after_another())
    return tuple(visits[index] for index in sorted(visits))


async def visit(shop: Shop, browser: Browser, plan: Plan, index: int) -> Visit:
    """Run one shopper, for callers that decide when each arrives."""
    return await _Shopper(shop, browser, plan, index).visit()


class _Shopper:
    """One shopper: acts, and records."""

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
        self._sights: list[PageView] = []
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
        """Add a payment at another account while the page of the first stays open; then pay both."""
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
        """Follow the return link, reload, press refresh, and watch the page until it shows paid."""
        shown = await self._pay(payment, await self._open(payment))
        if "return" in shown.links:
            self._record_view(PageKind.RETURN, await self._browser.open(urljoin(shown.url, shown.links["return"])))
        self._record_view(PageKind.PAGE, await self._browser.open(self._order_page))
        await self._look_at_status()
        self._record_view(PageKind.REFRESH, await self._browser.send(below(self._order_page, "refresh")))
        for _ in range(1 + int(self._plan.watch_s / WATCH_GAP_S)):
            if await self._look_at_status() == "paid":
                break
            await asyncio.sleep(WATCH_GAP_S)
        self._record_view(PageKind.PAGE, await self._browser.open(self._order_page))

    # -- common steps --------------------------------------------------------------------------------------------------

    async def _open(self, payment: ShopPayment) -> Page:
        """Open the pay page; reload until it shows a state or the attempts are used up."""
        assert payment.pay_url is not None, "only payments with a checkout are opened"
        page = await self._browser.open(payment.pay_url)
        for _ in range(PAY_ATTEMPTS_MAX - 1):
            if page.state:
                break
            await asyncio.sleep(PAY_GAP_S)
            page = await self._browser.open(payment.pay_url)
        return page

    async def _pay(self, payment: ShopPayment, page: Page) -> Page:
        """Press Pay; without a response, reload the page before another press."""
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
        return self._record_view(PageKind.STATUS, await self._browser.open(below(self._order_page, "status")))

    def _record_view(self, where: PageKind, page: Page) -> str:
        status = status_on(page)
        since = None if self._paid_s is None else round(time.monotonic() - self._paid_s, 3)
        self._sights.append(PageView(where=where, http_status=page.http_status, status=status, since_paying_s=since))
        return status

    def _note_refusal(self, action: str, refused: Refused) -> None:
        self._refused.append(f"{action}: {refused.http_status} {refused.code}".rstrip())
