"""`make screenshots`: pictures of the example shop, an order's page in each of its states, and the console.

The pages are those of real processes, in the state that a buyer brings them into. Several screens stand side by side in
one WebP file; Chromium encodes it.
"""

from __future__ import annotations

import asyncio
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import httpx
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from demo.embedded import free_port, temporary_directory
from demo.service import NO_TLS, ROOT
from demo.stack import Stack
from demo.up import running_shop, shop_stack
from tests.browser.conftest import ARGUMENTS
from tests.browser.console_pictures import CHINESE, ENGLISH, ORDER_NO, open_console
from tests.browser.shops import LIMIT_MS, SMALL, pay, scanned
from tests.servers import eventually, find_chromium

PICTURES = ROOT / "docs" / "pictures"
QUALITY = 85
SCREEN = ViewportSize(width=390, height=780)
DESK = ViewportSize(width=1100, height=780)
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
WECHAT = f"{IPHONE} MicroMessenger/8.0.50"
SHEET = """<!doctype html><style>
body { margin: 0; padding: 24px; display: inline-flex; gap: 24px; background: #8b949e; }
img { display: block; border-radius: 14px; }
</style>"""


class Look(NamedTuple):
    """The screen, language and colours of a buyer's browser."""

    screen: ViewportSize = SCREEN
    locale: str = "en-GB"
    is_dark: bool = False
    agent: str | None = None


class Studio:
    """A browser, a stack with its shop, and orders to look at."""

    def __init__(self, browser: Browser, stack: Stack, shop_url: str) -> None:
        self.stack = stack
        self.shop_url = shop_url
        self._browser = browser

    @asynccontextmanager
    async def buyer(self, look: Look) -> AsyncIterator[Page]:
        context = await self._context(look)
        page = await context.new_page()
        page.set_default_timeout(LIMIT_MS)
        yield page
        await context.close()

    async def place(self, **more: Any) -> dict[str, Any]:
        """Place an order of the shop as its backend does."""
        terms = {
            "order_no": f"tea-{token_hex(4)}",
            "amount": 8888,
            "currency": "CNY",
            "subject": "Longjing tea, 100 g",
            "return_url": f"{self.shop_url}/orders",
        }
        order: dict[str, Any] = await self.call("/v1/orders", terms | more)
        return order

    async def call(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        headers = {"authorization": f"Bearer {self.stack.api_key}"}
        async with httpx.AsyncClient(base_url=self.stack.api_url, headers=headers, verify=NO_TLS) as client:
            response = await client.post(path, json=body, timeout=60)
            response.raise_for_status()
            return response.json()

    async def faults(self, **profile: Any) -> None:
        await self.stack.control("PUT", "channel", "/control/faults", profile)

    async def close(self) -> dict[str, Any]:
        """Place an order and close it."""
        order = await self.place(account="sandbox")

        async def is_closed() -> bool:
            closed = await self.call(f"/v1/orders/{order['order_no']}/close")
            return bool(closed["status"] == "closed")

        await eventually(is_closed)
        return order

    async def pay(self, order: dict[str, Any]) -> None:
        """Let money arrive, and have nodrop ask for it."""
        number = order["payments"][0]["out_trade_no"]
        await self.stack.control("POST", "channel", f"/control/payments/{number}/pay")
        await self.call(f"/v1/orders/{order['order_no']}/refresh")

    async def pay_late(self, order: dict[str, Any]) -> None:
        """Let money arrive for the closed order, and have nodrop ask for it."""
        number = order["payments"][0]["out_trade_no"]
        await self.stack.control("POST", "channel", f"/control/payments/{number}/pay-late")
        await self.call(f"/v1/orders/{order['order_no']}/refresh")

    async def sheet(self, name: str, *screens: bytes) -> None:
        """Write the screens side by side."""
        context = await self._browser.new_context(viewport=ViewportSize(width=4000, height=1000))
        page = await context.new_page()
        images = "".join(f'<img src="data:image/png;base64,{b64encode(each).decode()}">' for each in screens)
        await page.set_content(SHEET + images)
        box = await page.locator("body").bounding_box()
        assert box is not None
        devtools = await context.new_cdp_session(page)
        clip = {"x": 0, "y": 0, "width": box["width"], "height": box["height"], "scale": 1}
        options = {"format": "webp", "quality": QUALITY, "clip": clip}
        shot = await devtools.send("Page.captureScreenshot", options)
        (PICTURES / f"{name}.webp").write_bytes(b64decode(shot["data"]))
        await context.close()

    async def _context(self, look: Look) -> BrowserContext:
        return await self._browser.new_context(
            viewport=look.screen,
            locale=look.locale,
            timezone_id="UTC",
            color_scheme="dark" if look.is_dark else "light",
            user_agent=look.agent,
            reduced_motion="reduce",
        )


async def reaches(page: Page, *phases: str) -> bytes:
    """The screen, once the page is in one of these phases."""
    await page.locator(", ".join(f"#order[data-phase={phase}]" for phase in phases)).wait_for()
    return await page.screenshot(animations="disabled")


# -- pictures ----------------------------------------------------------------------------------------------------------


async def paying(studio: Studio) -> None:
    """A phone chooses, a desk computer shows a code, the buyer comes back without a callback."""
    await studio.faults(lost=1.0)
    accounts = ["wechatpay", "alipay", "stripe", "sandbox"]
    order = await studio.place(accounts=accounts)
    async with studio.buyer(Look(agent=IPHONE)) as page:
        await page.goto(order["order_page"])
        choose = await reaches(page, "created", "waiting", "processing")
    async with studio.buyer(Look()) as page:
        await page.goto(order["order_page"])
        await page.locator("#pay form", has=page.locator("[value=wechatpay]")).first.get_by_role("button").click()
        await page.locator("#pay-code").wait_for()
        code = await reaches(page, "created", "waiting", "processing")
        async with studio.buyer(Look(screen=SMALL)) as phone:
            await phone.goto(await scanned(page))
            await pay(phone)
        await page.get_by_role("button", name="Check now").click()
        paid = await reaches(page, "paid")
    await studio.sheet("order-page", choose, code, paid)


async def endings(studio: Studio) -> None:
    """Processing, closed, and money that came too late: in Chinese, and in the dark."""
    await studio.faults(refund_settles_s=3600)
    opened, closed, late = await studio.place(account="sandbox"), await studio.close(), await studio.close()
    await studio.pay_late(late)
    async with studio.buyer(Look(locale="zh-CN", is_dark=True)) as page:
        await page.goto(opened["order_page"])
        processing = await reaches(page, "processing")
        await page.goto(closed["order_page"])
        is_closed = await reaches(page, "closed")
        await page.goto(late["order_page"])
        await studio.sheet("order-page-dark", processing, is_closed, await reaches(page, "going_back"))


async def others(studio: Studio) -> None:
    """Inside WeChat, another amount than the order's, and money that went back."""
    accounts = ["wechatpay", "alipay"]
    chosen = await studio.place(accounts=accounts, payer={"openid": "o6_bmjrPTlm6_2sgVt7hMZOPfL2M"})
    await studio.faults()
    late = await studio.close()
    await studio.pay_late(late)
    async with studio.buyer(Look()) as page:
        await page.goto(late["order_page"])
        gone_back = await reaches(page, "refunded", "going_back")
    await studio.faults(wrong_amount_in_query=1.0, lost=1.0)
    wrong = await studio.place(account="sandbox")
    await studio.pay(wrong)
    async with studio.buyer(Look(agent=WECHAT)) as page:
        await page.goto(chosen["order_page"])
        inside = await reaches(page, "created", "waiting", "processing")
    async with studio.buyer(Look()) as page:
        await page.goto(wrong["order_page"])
        await studio.sheet("order-page-more", inside, await reaches(page, "review"), gone_back)
    await studio.faults()


async def shop(studio: Studio) -> None:
    """The example shop: products, and an order that was paid without a callback."""
    await studio.faults(lost=1.0)
    async with studio.buyer(Look(screen=DESK)) as page:
        await page.goto(studio.shop_url)
        products = await page.screenshot()
        await page.get_by_role("radio", name="Sandbox").check()
        await page.get_by_role("button", name="Place the order").click()
        await page.locator("#pay-link").click()
        await pay(page)
        await page.locator("#return").click()
        await reaches(page, "paid")
        await page.set_viewport_size(SCREEN)
        await page.locator("#back a").click()
        await page.locator("#shipped").wait_for()
        await page.locator("summary").click()
        await studio.sheet("shop", products, await page.screenshot())


async def console(studio: Studio, browser: Browser, directory: Path) -> None:
    """An order's story in both looks, then the overview and the cases."""
    async with open_console(browser, directory) as pages:
        story = f"/ops/orders/{ORDER_NO}"
        await studio.sheet("console-order", await pages.screen(story, ENGLISH), await pages.screen(story, CHINESE))
        overview, cases = await pages.screen("/ops", ENGLISH), await pages.screen("/ops/cases", CHINESE)
        await studio.sheet("console", overview, cases)


async def main() -> int:
    """Make all pictures; return the exit code."""
    chromium, shop_url = find_chromium(), f"http://127.0.0.1:{free_port()}"
    if chromium is None:
        print("make screenshots needs Chromium: apt-get install chromium fonts-wqy-microhei", file=sys.stderr)  # noqa: T201
        return 1
    PICTURES.mkdir(exist_ok=True)
    account = {"late_policy": "refund"}
    with temporary_directory() as directory:
        async with (
            async_playwright() as playwright,
            shop_stack(directory, shop_url, unit_s=30, account=account) as stack,
        ):
            browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            async with running_shop(stack, shop_url):
                studio = Studio(browser, stack, shop_url)
                for picture in (paying, endings, others, shop):
                    await picture(studio)
            await console(studio, browser, directory / "console")
            await browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
