"""The shops of `examples/` on real processes: a buyer pays without a callback, and the shop ships once."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from bench.peers.environment import locked_python
from demo.embedded import free_port
from demo.service import NO_TLS, ROOT, Service
from demo.stack import Stack
from tests.browser.firefox import Firefox, needs_firefox
from tests.browser.shops import DESK, STILL, buying, new_phone, pay, pay_in_firefox, scanned

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ACCOUNTS = {"wechatpay": "wechatpay", "sandbox": "sandbox"}


@pytest.fixture(scope="module")
def urls() -> dict[str, str]:
    """Addresses of the shops: other origins than nodrop's."""
    return {name: f"http://127.0.0.1:{free_port()}" for name in ("plain", "fastapi")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(servers_home: Path, urls: dict[str, str]) -> AsyncIterator[Stack]:
    """A minute is so long that no delayed query runs before the buyer is back."""
    env = {"PAGE_ORIGINS": ",".join(urls.values())}
    async with Stack(servers_home / "examples", unit_s=60, fsync=False, accounts=ACCOUNTS, env=env) as stack:
        await stack.control("PUT", "channel", "/control/faults", {"lost": 1.0})
        yield stack


def test_the_readme_explains_every_variable_that_the_shops_read() -> None:
    code = "".join(path.read_text() for path in (ROOT / "examples").glob("*/*_shop.py"))
    explained = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', code)) == set(explained)


def environment(stack: Stack, url: str, directory: Path) -> dict[str, str]:
    """The variables that the READMEs of both shops name."""
    return {
        "PATH": "",
        "PYTHONPATH": "clients/python",
        "NODROP_URL": stack.api_url,
        "NODROP_API_KEY": stack.api_key,
        "NOTIFY_SECRET": stack.notify_secret,
        "SHOP_URL": url,
        "ACCOUNTS": ",".join(ACCOUNTS),
        "DATABASE": str(directory / "shop.db"),
        "SHIP_TEST_ORDERS": "1",
    }


@pytest_asyncio.fixture(loop_scope="session")
async def plain_shop(stack: Stack, urls: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    url = urls["plain"]
    env, log = environment(stack, url, tmp_path), tmp_path / "shop.log"
    shop = Service("plain", "examples.plain.plain_shop", env=env, log=log, health_url=url)
    try:
        await shop.start()
        yield url
    finally:
        await shop.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def fastapi_shop(stack: Stack, urls: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    url = urls["fastapi"]
    options = ("uvicorn", "fastapi_shop:app", "--app-dir", "examples/fastapi", "--port", url.rpartition(":")[2])
    env, log = environment(stack, url, tmp_path), tmp_path / "shop.log"
    async with locked_python(ROOT / "examples" / "fastapi" / "requirements.txt") as python:
        shop = Service("fastapi", *options, env=env, log=log, health_url=url, python=str(python))
        try:
            await shop.start()
            yield url
        finally:
            await shop.stop()


@pytest.mark.long
async def test_the_plain_shop_ships_an_order_whose_callback_was_lost(
    stack: Stack, browser: Browser, plain_shop: str
) -> None:
    async with buying(await browser.new_context(viewport=DESK, base_url=plain_shop, **STILL)) as page:
        await buy_and_come_back(page)
        await place_again_when_nodrop_is_back(stack, page)
    await refuses_what_is_not_signed(plain_shop)


@needs_firefox
@pytest.mark.long
async def test_the_plain_shop_shows_the_result_in_firefox(plain_shop: str, firefox: Firefox) -> None:
    await firefox.open(plain_shop)
    await firefox.click("form button")
    await firefox.reads("not shipped yet", "#goods")
    await firefox.click("#order-page")
    await firefox.click("form.way:has([value=sandbox]) button")
    await firefox.reads("Continue", "#pay-link")
    await pay_in_firefox(firefox)
    await firefox.reads("Paid", "nodrop-order[status=paid] .nodrop-title")
    await firefox.reads("¥", "nodrop-order .nodrop-amount")


@pytest.mark.network
async def test_the_fastapi_shop_ships_an_order_whose_callback_was_lost(
    stack: Stack, browser: Browser, fastapi_shop: str
) -> None:
    async with buying(await browser.new_context(viewport=DESK, base_url=fastapi_shop, **STILL)) as page:
        await buy_and_come_back(page)
        await place_again_when_nodrop_is_back(stack, page)
    await refuses_what_is_not_signed(fastapi_shop)


async def buy_and_come_back(page: Page) -> None:
    """Choose a code on the order page, scan it with a phone, pay, and have the page ask the channel."""
    await page.goto("/")
    await page.get_by_role("button", name="Teapot").click()
    await expect(page.locator("#goods")).to_have_text("not shipped yet")
    shop_page = page.url
    await page.locator("#order-page").click()
    await (
        page.locator("#pay form", has=page.locator("[name=account][value=wechatpay]"))
        .first.get_by_role("button")
        .click()
    )
    await page.locator("#pay-code").wait_for()
    async with buying(await new_phone(page)) as phone:
        await phone.goto(await scanned(page))
        await pay(phone)
    await page.get_by_role("button", name="Check now").click()
    await expect(page.locator("#title")).to_have_text("Paid")
    await page.locator("#back a").click()
    assert page.url == shop_page
    await expect(page.locator("nodrop-order[status=paid] .nodrop-title")).to_have_text("Paid")
    await reads_after_reloads(page, "#goods", "shipped")


async def place_again_when_nodrop_is_back(stack: Stack, page: Page) -> None:
    (api,) = stack.apis
    await page.goto("/")
    await api.stop()
    await page.get_by_role("button", name="Green tea").click()
    await expect(page.locator("#refusal")).to_contain_text("has not answered")
    await api.start()
    await page.get_by_role("button", name="Send the order again").click()
    await expect(page.locator("#goods")).to_have_text("not shipped yet")


async def reads_after_reloads(page: Page, selector: str, text: str) -> None:
    """Reload until the notification has come: the worker sends it at once, in its own time."""
    reloads = 0
    while await page.locator(selector).inner_text() != text:
        reloads += 1
        assert reloads < 1000, await page.inner_text("main")
        await page.reload()


async def refuses_what_is_not_signed(url: str) -> None:
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as client:
        response = await client.post(f"{url}/notifications", content=b"{}", headers=headers)
    assert response.status_code == httpx.codes.UNAUTHORIZED
