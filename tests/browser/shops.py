"""A buyer's steps at a shop, on the order page and at a simulated channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import BrowserContext, Page, ViewportSize

from tests.browser.firefox import Firefox

DESK = ViewportSize(width=1440, height=900)
SMALL = ViewportSize(width=360, height=640)
STILL: dict[str, Any] = {"reduced_motion": "reduce"}
"""Options of a device: a page in motion is drawn sixty times a second, by the processor."""

LIMIT_MS = 120_000
"""Ends a wait for what does not come, as `tests.servers.LIMIT_S`. A page that met errors rests up to 38 s by itself."""


@asynccontextmanager
async def buying(context: BrowserContext) -> AsyncIterator[Page]:
    """A page that may neither fail nor break its own content policy."""
    errors: list[str] = []
    page = await context.new_page()
    page.set_default_timeout(LIMIT_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    try:
        yield page
    finally:
        await context.close()
    assert errors == []


async def new_phone(page: Page) -> BrowserContext:
    """A second device of the same buyer."""
    browser = page.context.browser
    assert browser is not None
    return await browser.new_context(viewport=SMALL, **STILL)


async def scanned(page: Page) -> str:
    """The text of the code on the page, as a phone's camera reads it."""
    return await page.locator("#pay-code").get_attribute("data-value") or ""


async def pay_in_firefox(firefox: Firefox) -> None:
    """From the order page's link: pay at the simulated channel, come back, and go on to the shop."""
    await firefox.click("#pay-link")
    await firefox.click("button.pay")
    await firefox.click("#return")
    await firefox.reads("Paid")
    await firefox.click("#back a")


async def pay(page: Page, button: str = "Pay") -> None:
    """Press this button of the channel's page."""
    await page.get_by_role("button", name=button, exact=True).click()
    await page.locator("[data-status=paid], [data-status=agreed]").wait_for()
