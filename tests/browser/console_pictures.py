"""Pictures of the console, for `make screenshots`: one order's story, the overview, and the cases of a person.

The stack is one of its own, with faults as in `nodrop demo`, and a minute of two seconds, so that gaps can be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from playwright.async_api import Browser, Page, ViewportSize

from api.console.gate import LOCAL
from core.operators import Role
from demo.run import CURRENCIES, HARSH, usual_plan
from demo.service import NO_TLS
from demo.stack import Stack
from simulator.shoppers.shop import OrderRequest, Shop, ShopOrder
from simulator.shoppers.visits import run
from storage.postgres.operators import find_operator, insert_operator
from storage.postgres.sessions import begin_session
from tests.browser.shops import LIMIT_MS
from tests.servers import eventually

UNIT_S = 2.0
SHOPPERS = 60
EXPIRES_S = 20
ROLLED_UP_S = 75.0
"""A worker makes the figures of the overview once a minute."""

OPERATOR = "alice"
SCREEN = ViewportSize(width=1200, height=1000)
ORDER_NO = "tea-2026-1127"


class Look(NamedTuple):
    """The language and the colours of an operator's browser."""

    locale: str = "en-GB"
    is_dark: bool = False


ENGLISH, CHINESE = Look(), Look("zh-CN", is_dark=True)


class Console:
    """A stack with a console, and an operator who is signed in."""

    def __init__(self, browser: Browser, stack: Stack, cookie: str) -> None:
        self.stack = stack
        self._browser = browser
        self._cookie = cookie

    async def screen(self, path: str, look: Look, *, height: int = SCREEN["height"]) -> bytes:
        """The page of the console at this path."""
        async with self._page(look) as page:
            await page.set_viewport_size(ViewportSize(width=SCREEN["width"], height=height))
            response = await page.goto(f"{self.stack.api_url}{path}")
            assert response is not None
            assert response.ok, (path, response.status)
            return await page.screenshot(animations="disabled")

    @asynccontextmanager
    async def _page(self, look: Look) -> AsyncIterator[Page]:
        context = await self._browser.new_context(
            viewport=SCREEN,
            locale=look.locale,
            timezone_id="UTC",
            color_scheme="dark" if look.is_dark else "light",
            reduced_motion="reduce",
        )
        await context.add_cookies([{"name": LOCAL.session, "value": self._cookie, "url": self.stack.api_url}])
        page = await context.new_page()
        page.set_default_timeout(LIMIT_MS)
        yield page
        await context.close()


@asynccontextmanager
async def open_console(browser: Browser, directory: Path) -> AsyncIterator[Console]:
    """A console after a run with faults, and one order whose story is worth a look."""
    accounts, env = {name: name for name in CURRENCIES}, {"OPS": "1", "RECONCILE_AT": "off"}
    policies = {"late_policy": "flag", "double_policy": "flag"}
    async with Stack(directory, unit_s=UNIT_S, seed=5, accounts=accounts, account=policies, env=env) as stack:
        async with stack.shop() as shop:
            await stack.control("PUT", "channel", "/control/faults", HARSH)
            await run(shop, usual_plan(stack, SHOPPERS, 5, expires_s=EXPIRES_S), concurrency=16)
            await _tell(stack, shop)
        await asyncio.sleep(ROLLED_UP_S)
        yield Console(browser, stack, await _sign_in(stack))


async def _tell(stack: Stack, shop: Shop) -> None:
    """An order with a forged callback, a lost one, a query that finds the money, and a merchant who is down first."""
    await stack.control("PUT", "channel", "/control/faults", {"lost": 1.0})
    await stack.control("PUT", "merchant", "/control/faults", {"answered_500": 1.0})
    request = OrderRequest(
        order_no=ORDER_NO,
        amount=8888,
        currency="CNY",
        subject="Longjing tea, 100 g",
        account="sandbox",
        notify_url=stack.notify_url,
    )
    order = await shop.place(request)
    assert isinstance(order, ShopOrder)
    number = order.payments[0].out_trade_no
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
        forged = {"payment": {"out_trade_no": number, "status": "paid"}}
        headers = {"sandbox-signature": f"t=1,k=k1,v1={'0' * 64}"}
        response = await http.post(f"{stack.api_url}/callbacks/sandbox", json=forged, headers=headers)
        assert response.status_code == httpx.codes.UNAUTHORIZED
    await _until(stack, "SELECT count(*) FROM observations WHERE order_no = $1")
    await stack.control("POST", "channel", f"/control/payments/{number}/pay")
    await _until(stack, "SELECT count(*) FROM notifications WHERE order_no = $1 AND last_status IS NOT NULL")
    await stack.control("PUT", "merchant", "/control/faults", {})
    await _until(stack, "SELECT count(*) FROM notifications WHERE order_no = $1 AND delivered_at IS NOT NULL")


async def _until(stack: Stack, sql: str) -> None:
    """Wait until a statement counts rows of the order."""
    db = await stack.open_database()

    async def is_there() -> bool:
        return bool(await db.fetchval(sql, ORDER_NO))

    try:
        await eventually(is_there, 60.0, 0.2)
    finally:
        await db.close()


async def _sign_in(stack: Stack) -> str:
    """The cookie of a session of an operator."""
    db = await stack.open_database()
    try:
        await insert_operator(db, OPERATOR, Role.ADMIN, "no password is right")
        await db.execute("UPDATE operators SET must_change = false")
        operator = await find_operator(db, OPERATOR)
        assert operator is not None
        return await begin_session(db, OPERATOR, operator.epoch, address="127.0.0.1", device="Chromium")
    finally:
        await db.close()
