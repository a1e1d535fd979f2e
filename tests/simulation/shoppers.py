"""The shoppers of a world: each pays, or does not, by the plan of its order, and looks at pages as a browser does.

What a page shows is compared with the truth in the moment in which it is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urljoin

import msgspec

from simulator.kernel.pay_page import Action
from simulator.kernel.simulation import Simulation
from simulator.shoppers.browser import Browser, Page, below, status_on
from simulator.shoppers.shop import ShopOrder, ShopPayment
from simulator.shoppers.visits import WRONG_AFTER_PAYMENT
from tests.simulation.channels import Channels
from tests.simulation.merchant import Backend
from tests.simulation.network import Network
from tests.simulation.plan import OrderPlan, Way

TIMEOUT_S = 20.0
ATTEMPTS_MAX = 6
GAP_S = 5.0
WATCH_GAP_S = 4.0
"""Of a page that polls."""

WATCHED = 30
PAID = ("paid", "refunded")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A page that was shown, with the truth about its order: `was_paid` at the channel when the page was asked for,
    `is_paid` when it came.
    """

    order_no: str
    status: str
    was_paid: bool
    is_paid: bool
    at: datetime

    @property
    def is_wrong(self) -> bool:
        """Whether it denied a payment, or showed one that was not."""
        return (self.was_paid and self.status in WRONG_AFTER_PAYMENT) or (self.status == "paid" and not self.is_paid)

    @property
    def sentence(self) -> str:
        truth = "paid" if self.was_paid else "not paid"
        return f"its page showed {self.status} at {self.at:%d %H:%M:%S}, and it was {truth} at the channel"


class Shoppers:
    """All shoppers of a world."""

    def __init__(self, network: Network, channels: Channels, backend: Backend, *, now: Callable[[], datetime]) -> None:
        self.wrong_views: list[View] = []
        self.views = 0
        self._network = network
        self._simulation: Simulation = channels.simulation
        self._backend = backend
        self._now = now

    def start(self, plan: OrderPlan) -> asyncio.Task[None]:
        """Let a shopper come at its time."""
        return self._network.spawn(self._visit(plan))

    async def final_status(self, order_no: str) -> str:
        """Return the status that the order's page shows now; empty when it cannot be read."""
        placed = self._backend.placed[order_no]
        return await self._look(self._browser(placed.order_no), placed, "status")

    # -- a visit -------------------------------------------------------------------------------------------------------

    async def _visit(self, plan: OrderPlan) -> None:
        await asyncio.sleep(plan.at_s)
        began_s, paid = self._elapsed_s(), list[str]()
        order = await self._backend.place(plan)
        if order is None or plan.way is Way.LEAVES:
            return
        payment = next((payment for payment in order.payments if payment.pay_url), None)
        if payment is None:
            return
        browser = self._browser(plan.order_no)
        page = await self._open(browser, payment)
        if plan.way is Way.LOOKS:
            return
        await asyncio.sleep(max(0.0, began_s + plan.pays_after_s - self._elapsed_s()))
        if plan.way is Way.PAYS_TWICE:
            paid += await self._pay_at(plan, browser)
        page = await self._pay(browser, payment, page)
        if page.state in PAID:
            paid.append(payment.out_trade_no)
        if plan.way in (Way.RETURNS, Way.WATCHES, Way.PAYS_TWICE):
            await self._come_back(plan, browser, order, page)
        if plan.refund_after_s and paid:
            await asyncio.sleep(plan.refund_after_s)
            await self._backend.refund(plan, paid[0])

    async def _pay_at(self, plan: OrderPlan, browser: Browser) -> list[str]:
        """Pay at a second account, while the first pay page stays open; return the numbers of what is paid."""
        order = await self._backend.add_payment(plan, plan.second_account)
        seconds = [] if order is None else [payment for payment in order.payments[1:] if payment.pay_url]
        return [
            second.out_trade_no
            for second in seconds
            if (await self._pay(browser, second, await self._open(browser, second))).state in PAID
        ]

    async def _come_back(self, plan: OrderPlan, browser: Browser, order: ShopOrder, page: Page) -> None:
        await asyncio.sleep(plan.returns_after_s)
        for _ in range(2 if plan.returns_twice else 1):
            if "return" in page.links:
                await self._look(browser, order, "", urljoin(page.url, page.links["return"]))
            await self._look(browser, order, "status")
        if plan.way is not Way.WATCHES:
            return
        await self._look(browser, order, "refresh", method="POST")
        for _ in range(WATCHED):
            if await self._look(browser, order, "status") in PAID:
                break
            await asyncio.sleep(WATCH_GAP_S)

    # -- pages ---------------------------------------------------------------------------------------------------------

    def _browser(self, order_no: str) -> Browser:
        return Browser(TIMEOUT_S, client=self._network.client("shopper", order_no))

    async def _open(self, browser: Browser, payment: ShopPayment) -> Page:
        """Open the pay page, again if it does not come."""
        assert payment.pay_url is not None, "only payments with a checkout are opened"
        page = await browser.open(payment.pay_url)
        for _ in range(ATTEMPTS_MAX - 1):
            if page.state:
                break
            await asyncio.sleep(GAP_S)
            page = await browser.open(payment.pay_url)
        return page

    async def _pay(self, browser: Browser, payment: ShopPayment, page: Page) -> Page:
        """Press Pay; without a response, open the page again before another press."""
        for _ in range(ATTEMPTS_MAX):
            if page.form is None:
                break
            page = await browser.press(page, Action.PAY)
            if not page.state:
                await asyncio.sleep(GAP_S)
                page = await self._open(browser, payment)
        return page

    async def _look(self, browser: Browser, order: ShopOrder, part: str, url: str = "", method: str = "GET") -> str:
        """Look at a page of the order, and compare it with the truth; return its status."""
        was_paid = self.is_paid(order.order_no)
        address = url or below(order.order_page, part)
        page = await (browser.open(address) if method == "GET" else browser.send(address))
        status = status_on(page)
        self.views += 1
        view = View(
            order_no=order.order_no,
            status=status,
            was_paid=was_paid,
            is_paid=self.is_paid(order.order_no),
            at=self._now(),
        )
        if view.is_wrong:
            self.wrong_views.append(view)
        return status

    def is_paid(self, order_no: str) -> bool:
        """Return whether any payment of the order has money at its channel, by the ledger."""
        ledger, now = self._simulation.ledger, self._now()
        payments = (
            ledger.find(key, now)
            for number in self._network.book.names.numbers(order_no)
            for key in self._simulation.find_keys(number)
        )
        return any(payment is not None and payment.status.was_paid for payment in payments)

    def _elapsed_s(self) -> float:
        return self._network.book.elapsed()
