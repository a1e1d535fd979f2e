"""The example shop of `nodrop up`: a buyer chooses, pays, loses the callback and comes back, on real processes."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from demo.embedded import free_port
from demo.shop.pages import HOW
from demo.stack import Stack
from demo.up import running_shop, shop_stack
from tests.browser.firefox import Firefox, needs_firefox
from tests.browser.looks import LEAST, axe_findings, looks, overflow
from tests.browser.shops import DESK, LIMIT_MS, SMALL, STILL, buying, new_phone, pay, pay_in_firefox, scanned

pytestmark = [pytest.mark.browser, pytest.mark.slow]

expect.set_options(timeout=LIMIT_MS)

LONG_NAME = "A" * 40
MARKUP = "<img src=x onerror=alert(1)>\"'&"
WITHOUT_CALLBACK = re.compile("|".join(re.escape(HOW[by]) for by in ("refresh", "query", "sweep", "undelivered")))
"""On a busy machine the page is not the first to ask."""


@pytest.fixture(scope="module")
def shop_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(servers_home: Path, shop_url: str) -> AsyncIterator[Stack]:
    """All processes. A minute is so long that no delayed query runs before the buyer is back."""
    stack = shop_stack(servers_home / "shop", shop_url, unit_s=60, fsync=False)
    async with stack, running_shop(stack, shop_url):
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def buyer(browser: Browser, stack: Stack, shop_url: str) -> AsyncIterator[Page]:
    """A desk computer at the shop; its page may neither fail nor break its own content policy."""
    async with buying(await browser.new_context(viewport=DESK, base_url=shop_url, **STILL)) as page:
        yield page


async def lose_callbacks(page: Page, *, lost: bool) -> None:
    """Move the switch of the page."""
    await page.goto("/")
    switch = page.get_by_role("switch", name="Lose the callback")
    if await switch.get_attribute("aria-checked") != str(lost).lower():
        await switch.click()
    await expect(switch).to_have_attribute("aria-checked", str(lost).lower())


async def order(page: Page, channel: str, recipient: str = "") -> None:
    """Place an order for a teapot; the order page opens."""
    await page.goto("/")
    await page.get_by_role("radio", name="Clay teapot").check()
    await page.get_by_role("radio", name=channel).check()
    await page.get_by_label("For whom").fill(recipient)
    await page.get_by_role("button", name="Place the order").click()
    await page.wait_for_url(re.compile(r"/o/"))


@pytest.mark.parametrize("channel", ["Stripe", "PayPal", "Sandbox"])
async def test_a_buyer_whose_callback_was_lost_comes_back_to_paid_and_the_shop_ships_once(
    buyer: Page, channel: str
) -> None:
    await lose_callbacks(buyer, lost=True)
    await order(buyer, channel)
    await buyer.locator("#pay-link").click()
    await pay(buyer)
    await buyer.locator("#return").click()
    await expect(buyer.locator("#title")).to_have_text("Paid")
    await buyer.locator("#back a").click()
    await expect(buyer.locator("#how")).to_have_text(WITHOUT_CALLBACK)
    await expect(buyer.locator("#shipped")).to_contain_text("Shipped once")


@pytest.mark.parametrize("channel", ["WeChat Pay", "Alipay"])
async def test_a_code_is_scanned_and_paid_on_a_phone_and_the_desk_learns_it_without_a_callback(
    buyer: Page, channel: str
) -> None:
    await lose_callbacks(buyer, lost=True)
    await order(buyer, channel)
    async with buying(await new_phone(buyer)) as phone:
        await phone.goto(await scanned(buyer))
        await pay(phone)
    await buyer.get_by_role("button", name="Check now").click()
    await expect(buyer.locator("#title")).to_have_text("Paid")
    await buyer.locator("#back a").click()
    await expect(buyer.locator("#how")).to_have_text(WITHOUT_CALLBACK)
    await expect(buyer.locator("#shipped")).to_contain_text("Shipped once")


@needs_firefox
async def test_the_same_buyer_in_firefox(stack: Stack, shop_url: str, firefox: Firefox) -> None:
    await firefox.open(shop_url)
    if not await firefox.run("return document.querySelector('[role=switch][aria-checked=true]') !== null"):
        await firefox.click("[role=switch]")
    await firefox.reads("Callbacks are lost", "#callbacks")
    await firefox.click("[name=account][value=sandbox]")
    await firefox.click("form .main")
    await firefox.reads("Payment processing")
    await pay_in_firefox(firefox)
    await firefox.reads("Shipped once", "#shipped")
    assert WITHOUT_CALLBACK.fullmatch(str(await firefox.run("return document.querySelector('#how').innerText")))
    await firefox.reads("Paid", "nodrop-order[status=paid] .nodrop-title")
    price = await firefox.run("return document.querySelector('.amount').innerText")
    await firefox.reads(str(price), "nodrop-order .nodrop-amount")


async def test_with_the_switch_off_the_callback_pays_while_the_buyer_is_at_the_shop(buyer: Page) -> None:
    await lose_callbacks(buyer, lost=False)
    await order(buyer, "WeChat Pay")
    code = await scanned(buyer)
    await buyer.goto("/orders")
    await buyer.locator(".orders a").first.click()
    await expect(buyer.locator(".now .state")).to_have_text("Waiting for the payment")
    async with buyer.context.expect_page() as opened:
        await buyer.get_by_role("link", name="Scan the code").click()
    phone = await opened.value
    assert phone.url == code
    await pay(phone)
    await buyer.bring_to_front()  # the shop's page reads nothing while another tab hides it
    await expect(buyer.locator("#how")).to_have_text(HOW["callback"])
    await expect(buyer.locator(".now .state")).to_have_text("Paid and shipped")
    await expect(buyer.locator("nodrop-order[status=paid] .nodrop-title")).to_have_text("Paid")


async def test_markup_in_a_name_is_text_in_the_shop_on_the_order_page_and_at_the_channel(buyer: Page) -> None:
    await lose_callbacks(buyer, lost=False)
    await order(buyer, "Sandbox", MARKUP)
    subject = f"Clay teapot for {MARKUP}"
    await expect(buyer.locator("#subject")).to_have_text(subject)
    await buyer.locator("#pay-link").click()
    await expect(buyer.locator("h1")).to_have_text(subject)
    await buyer.goto("/orders")
    row = buyer.locator(".orders a").first
    await expect(row).to_have_text(subject)
    await row.click()
    await expect(buyer.locator("h1")).to_have_text(subject)
    assert await buyer.locator("img").count() == 0


async def test_the_shop_needs_no_script_and_fits_a_small_phone(browser: Browser, stack: Stack, shop_url: str) -> None:
    context = await browser.new_context(viewport=SMALL, base_url=shop_url, java_script_enabled=False, **STILL)
    async with buying(context) as page:
        await lose_callbacks(page, lost=True)
        await fits(page)
        await order(page, "Sandbox", LONG_NAME)
        await page.locator("#pay-link").click()
        await fits(page)
        await pay(page)
        await page.locator("#return").click()
        await page.locator("#back a").click()
        await expect(page.locator("#shipped")).to_contain_text("Shipped once")  # the browser reloads until then
        await fits(page)
        await page.goto("/orders")
        await fits(page)


async def test_each_page_of_the_shop_fits_every_screen_and_axe_has_no_findings(buyer: Page) -> None:
    """Products, an order that is waited for, one that is shipped, the list of both, and an address that is none."""
    await lose_callbacks(buyer, lost=False)
    await order(buyer, "Sandbox", LONG_NAME)
    await buyer.goto("/orders")
    await buyer.locator(".orders a").first.click()
    await expect(buyer.locator("nodrop-order .nodrop-title")).not_to_be_empty()
    waiting = buyer.url
    await order(buyer, "Sandbox", MARKUP)
    await buyer.locator("#pay-link").click()
    await pay(buyer)
    await buyer.locator("#return").click()
    await buyer.locator("#back a").click()
    await expect(buyer.locator("#shipped")).to_contain_text("Shipped once")
    for address in (buyer.url, waiting, "/", "/orders", "/orders/none"):
        await buyer.goto(address)
        async for look in looks(buyer):
            assert await overflow(buyer) == [], (address, look)
            if look in LEAST:
                assert await axe_findings(buyer) == [], (address, look)


async def test_an_order_that_nodrop_did_not_take_is_sent_again_under_its_number(stack: Stack, buyer: Page) -> None:
    (api,) = stack.apis
    await buyer.goto("/")
    await buyer.get_by_role("radio", name="Sandbox").check()
    await api.stop()
    await buyer.get_by_role("button", name="Place the order").click()
    await expect(buyer.locator("#how")).to_contain_text("nodrop has not answered")
    number = buyer.url.rpartition("/")[2]
    await api.start()
    await buyer.get_by_role("button", name="Send the order again").click()
    await buyer.wait_for_url(re.compile(r"/o/"))
    await expect(buyer.locator("#number")).to_contain_text(number)


async def fits(page: Page) -> None:
    """Nothing is wider than the screen."""
    box = await page.locator("html").bounding_box()
    assert box is not None
    for each in await page.locator("body *:visible").all():
        inner = await each.bounding_box()
        assert inner is None or inner["x"] + inner["width"] <= box["width"] + 1, await each.evaluate("e => e.outerHTML")
