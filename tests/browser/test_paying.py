"""A buyer pays at every channel and method from the order's page alone, on a desk, on a phone and inside WeChat."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request, Route, ViewportSize

from api.pages.html import Page as UnreadPage
from api.pages.html import render
from runtime.resources import Resources
from tests.api.conftest import Channel, open_elsewhere, terms, token_of
from tests.browser.conftest import PHONE, new_context
from tests.browser.test_order_page import EVENTS
from tests.servers import LIMIT_S, Process

DESK = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120 Safari/537.36"
MOBILE = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/120 Mobile Safari/537.36"
WECHAT = f"{MOBILE} MicroMessenger/8.0.50"
WIDE = ViewportSize(width=1440, height=900)
pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHANNELS = ("sandbox", "wechatpay", "alipay", "stripe", "paypal")

# WeChat's own browser: what it is handed goes to the simulated channel, and it pays there.
BRIDGE = """
window.WeixinJSBridge = {
  invoke: (name, call, done) => window.openWallet(name, call).then((message) => done({err_msg: message})),
};
"""

# So many answers of the same page are time for as many renewals.
ROUND_TRIPS = """async () => {
  for (let n = 0; n < 30; n++) await (await fetch(`${location.pathname}?lang=en`, {cache: "no-store"})).text();
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def accounts(resources: Resources, channel: Channel) -> tuple[str, ...]:
    """An account at every channel, each with the channel's name."""
    for name in CHANNELS:
        await open_elsewhere(resources, channel, name, name)
    return CHANNELS


@asynccontextmanager
async def device(browser: Browser, user_agent: str) -> AsyncIterator[tuple[BrowserContext, Page, list[str]]]:
    """A device with one page, and what its console says of the content security policy and of errors."""
    size = WIDE if user_agent == DESK else PHONE
    options = {"user_agent": user_agent, "locale": "en-GB", "timezone_id": "UTC"}
    async with new_context(browser, viewport=size, **options) as context:
        faults: list[str] = []
        page = await context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        yield context, page, faults


async def place(shop: httpx.AsyncClient, *accounts: str, **more: Any) -> dict[str, Any]:
    currency = "CNY" if set(accounts) <= {"sandbox", "wechatpay", "alipay"} else "EUR"
    placed = await shop.post("/v1/orders", json=terms(accounts=accounts, currency=currency, **more))
    assert placed.status_code == 201, placed.text
    order: dict[str, Any] = placed.json()
    return order


async def choose(page: Page, account: str, method: str) -> None:
    """Press the button of a way; one for another device is behind a line that opens."""
    form = page.locator("form.way", has=page.locator(f'input[value="{account}"]'))
    button = form.locator(f'button[value="{method}"]')
    if not await button.is_visible():
        await page.locator("#pay details summary").click()
    await button.click()
    await page.wait_for_url(re.compile(f"account={account}&method={method}"))


async def pay_at_channel(page: Page) -> None:
    """Press *pay, but lose the callback* on the channel's page: only a query brings the money to light."""
    await page.locator('button[value="pay_lose_callback"]').click()
    await page.locator('[data-status="paid"], [data-status="agreed"]').wait_for()


async def until_waited_for(page: Page, order_page: str) -> None:
    """Return again while the channel's answer takes longer than a return waits for it: the page then claims nothing."""
    async with asyncio.timeout(LIMIT_S):
        while await page.locator("#order").get_attribute("data-phase") != "waiting":
            await page.goto(f"{order_page}/return")


async def reads_paid(page: Page) -> None:
    await page.locator("#title", has_text="Paid").wait_for()


@pytest.mark.parametrize(
    ("user_agent", "account", "method"),
    [
        (DESK, "sandbox", "page"),
        (DESK, "stripe", "checkout"),
        (DESK, "paypal", "checkout"),
        (DESK, "alipay", "page"),
        (MOBILE, "sandbox", "page"),
        (MOBILE, "stripe", "checkout"),
        (MOBILE, "paypal", "checkout"),
        (MOBILE, "alipay", "wap"),
        (MOBILE, "wechatpay", "h5"),
    ],
)
async def test_a_link_leads_to_the_channel_and_back(
    browser: Browser,
    shop: httpx.AsyncClient,
    channel: Channel,
    accounts: tuple[str, ...],
    user_agent: str,
    account: str,
    method: str,
) -> None:
    order = await place(shop, account)
    async with device(browser, user_agent) as (_, page, faults):
        await page.goto(order["order_page"])
        await choose(page, account, method)
        await page.locator("#pay-link").click()
        await pay_at_channel(page)
        await page.locator("#return").click()
        await reads_paid(page)
        assert await page.locator("#pay").is_hidden()
        assert faults == []


@pytest.mark.parametrize("user_agent", [DESK, MOBILE])
@pytest.mark.parametrize(("account", "method"), [("wechatpay", "native"), ("alipay", "precreate")])
async def test_a_code_is_scanned_by_another_device(
    browser: Browser,
    shop: httpx.AsyncClient,
    channel: Channel,
    accounts: tuple[str, ...],
    worker: Process,
    user_agent: str,
    account: str,
    method: str,
) -> None:
    """The callback is lost, and the page that shows the code hears of the money by itself."""
    order = await place(shop, account)
    async with device(browser, user_agent) as (_, page, faults), device(browser, MOBILE) as (_, scanned, _faults):
        await page.goto(order["order_page"])
        await choose(page, account, method)
        code = await page.locator("#pay-code").get_attribute("data-value")
        await page.locator("#pay-code svg").wait_for()
        await scanned.goto(str(code))
        await pay_at_channel(scanned)
        await reads_paid(page)
        assert faults == []


async def test_inside_wechat_its_own_browser_is_called(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    order = await place(shop, "wechatpay", payer={"openid": "o-buyer"})
    async with device(browser, WECHAT) as (context, page, faults):
        await open_wallet(context, channel)
        await page.goto(order["order_page"])
        await choose(page, "wechatpay", "jsapi")
        await page.locator("#pay-call").click()
        await reads_paid(page)
        assert faults == []


async def open_wallet(context: BrowserContext, channel: Channel) -> None:
    async def wallet(name: str, call: dict[str, str]) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            opened = await http.post(f"{channel.url}/control/wechatpay/invoke", json=call)
            assert (name, opened.status_code) == ("getBrandWCPayRequest", 200), opened.text
            await http.post(opened.json()["pay_url"], data={"action": "pay_lose_callback"})
        return "get_brand_wcpay_request:ok"

    await context.expose_function("openWallet", wallet)
    await context.add_init_script(BRIDGE)


async def test_inside_wechat_without_an_openid_the_page_asks_for_another_browser(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    order = await place(shop, "wechatpay", "alipay")
    async with device(browser, WECHAT) as (_, page, _faults):
        await page.goto(order["order_page"])
        assert "in your browser" in await page.locator("#pay").inner_text()
        await choose(page, "alipay", "wap")
        await page.locator("#pay-link").wait_for()  # a wrong guess of the device puts nothing out of reach


async def test_a_browser_that_does_not_say_what_was_pressed_pays_too(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    """Safari before 15.4, and Chromium before 81 inside older apps."""
    order = await place(shop, "alipay")
    async with device(browser, DESK) as (_, page, faults):
        await page.add_init_script("delete SubmitEvent.prototype.submitter")
        await page.goto(order["order_page"])
        await choose(page, "alipay", "precreate")
        await page.locator("#pay-code").wait_for()
        assert faults == []


async def test_a_buyer_without_a_script_pays_too(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    order = await place(shop, "wechatpay", "alipay")
    async with new_context(browser, user_agent=MOBILE, java_script_enabled=False, viewport=PHONE) as context:
        page = await context.new_page()
        await page.goto(order["order_page"])
        await choose(page, "wechatpay", "h5")
        await page.locator("#pay-link").click()
        await pay_at_channel(page)
        await page.locator("#return").click()
        await reads_paid(page)


async def test_wechat_is_told_where_the_link_stands_and_nobody_the_address_of_the_page(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    order = await place(shop, "wechatpay", "alipay")
    ours, referers = str(shop.base_url), {}
    async with device(browser, MOBILE) as (_, page, _faults):
        for account, method in (("wechatpay", "h5"), ("alipay", "wap")):
            await page.goto(order["order_page"])
            await choose(page, account, method)
            async with page.expect_request(lambda request: not request.url.startswith(ours)) as opened:
                await page.locator("#pay-link").click()
            referers[account] = (await (await opened.value).all_headers()).get("referer", "")
            await page.locator('button[value="cancel"]').wait_for()
    assert referers == {"wechatpay": f"{ours.rstrip('/')}/", "alipay": ""}


async def test_a_page_whose_order_could_not_be_read_takes_no_way_to_pay_away(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    order = await place(shop, "sandbox")
    unread = render(UnreadPage(lang="en", token=order["order_page"].rpartition("/")[2])).decode()
    async with device(browser, DESK) as (_, page, faults):
        await page.goto(order["order_page"])
        await page.route("**/pay*", lambda route: route.fulfill(status=503, content_type="text/html", body=unread))
        await page.locator("form.way button").click()
        await page.locator("#net", has_text="cannot be read").wait_for()
        await page.unroute_all()
        await choose(page, "sandbox", "page")
        await page.locator("#pay-link").wait_for()
        assert faults == []


async def test_a_clock_that_is_ahead_renews_the_page_seldom(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    """By such a clock a fresh code has ended already, and so has the next one."""
    order = await place(shop, "alipay")
    renewals: list[str] = []

    def note(request: Request) -> None:
        address, _, query = request.url.partition("?")
        if request.resource_type == "fetch" and address == order["order_page"] and "lang" not in query:
            renewals.append(request.url)

    async with device(browser, DESK) as (_, page, faults):
        await page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=1))
        await page.goto(order["order_page"])
        await choose(page, "alipay", "precreate")
        await page.locator("#pay-code").wait_for()
        page.on("request", note)
        await page.evaluate(ROUND_TRIPS)
        assert len(renewals) < 10, "one would lead to the next at once"
        assert faults == []


async def test_an_older_answer_does_not_take_back_the_way_that_was_chosen(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    """Another tab's choice renews this page; the answer comes after the buyer has chosen here."""
    order = await place(shop, "wechatpay", "alipay")
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        if route.request.resource_type != "fetch" or route.request.method != "GET" or may_answer.is_set():
            await route.continue_()
            return
        response = await route.fetch()
        is_asked.set()
        await may_answer.wait()
        await route.fulfill(response=response)

    async with device(browser, DESK) as (context, page, faults):
        await page.goto(order["order_page"])
        await page.route(order["order_page"], hold)
        other = await context.new_page()
        await other.goto(order["order_page"])
        await choose(other, "wechatpay", "native")
        await asyncio.wait_for(is_asked.wait(), LIMIT_S)
        await choose(page, "alipay", "precreate")
        async with page.expect_response(lambda response: response.url == order["order_page"]):
            may_answer.set()
        await page.evaluate(ROUND_TRIPS)
        assert page.url.endswith("account=alipay&method=precreate")
        assert "Alipay" in await page.locator("#pay-code").locator("xpath=ancestor::section").inner_text()
        assert faults == []


async def test_the_reason_why_a_click_started_nothing_stays(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    """The change that the click has made renews the page as well."""
    order = await place(shop, "wechatpay")
    async with device(browser, DESK) as (_, page, faults):
        async with page.expect_response(EVENTS):
            await page.goto(order["order_page"])
        await channel.faults(down=True)
        await page.locator('button[value="native"]').click()
        await page.locator("#pay-error", has_text="has not answered yet").wait_for()
        await page.evaluate(ROUND_TRIPS)
        assert await page.locator("#pay-error").is_visible()
        assert faults == []


@pytest.mark.parametrize("days", [-1, 1])
async def test_the_time_that_is_left_is_counted_by_the_servers_clock(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...], days: int
) -> None:
    order = await place(shop, "alipay")
    async with device(browser, DESK) as (_, page, faults):
        await page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=days))
        await page.goto(order["order_page"])
        await choose(page, "alipay", "precreate")
        await page.locator("#pay-code").wait_for()
        left = await page.locator("#pay-current time[data-countdown]").inner_text()
        assert re.search(r" \([0-9]{1,2}:[0-9]{2}\)$", left), f"half an hour, and not {left}"
        assert faults == []


@pytest.mark.parametrize("kind", ["offline", "unread"])
async def test_a_page_that_began_without_its_order_has_the_ways_to_pay_later(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...], kind: str
) -> None:
    order = await place(shop, "alipay")
    unread = render(UnreadPage(lang="en", token=token_of(order)))

    async def answer(route: Route) -> None:
        await route.fulfill(status=503, content_type="text/html; charset=utf-8", body=unread)

    async with device(browser, DESK) as (context, page, faults):
        if kind == "offline":
            await page.goto(order["order_page"])
            await page.evaluate("navigator.serviceWorker.ready.then(() => true)")
            await page.wait_for_function("navigator.serviceWorker.controller !== null")
            await context.set_offline(True)
            await page.reload()
            await page.locator("#net:not(:empty)").wait_for()
            await context.set_offline(False)
        else:
            await page.route(order["order_page"], answer, times=1)
            await page.goto(order["order_page"])
        await choose(page, "alipay", "precreate")
        await page.locator("#pay-code").wait_for()
        assert faults == []


async def test_who_comes_back_unpaid_is_waited_for_and_pays_by_the_next_click(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...], worker: Process
) -> None:
    """Two returns within three seconds share one question: the worker asks the next one."""
    order = await place(shop, "alipay")
    async with device(browser, MOBILE) as (_, page, faults):
        await page.goto(order["order_page"])
        await choose(page, "alipay", "wap")
        await page.locator("#pay-link").click()
        await page.locator('button[value="cancel"]').click()
        await page.locator("#return").click()
        await until_waited_for(page, order["order_page"])
        await page.locator("form.way").first.wait_for()
        assert await page.locator("#pay-link").count() == 0
        await choose(page, "alipay", "wap")
        await page.locator("#pay-link").click()
        await pay_at_channel(page)
        await page.locator("#return").click()
        await reads_paid(page)
        assert faults == []
    found = (await shop.get(f"/v1/orders/{order['order_no']}")).json()
    assert len(found["payments"]) == 1


async def test_a_page_in_doubt_does_not_begin_to_wait_by_its_script(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...]
) -> None:
    """A click whose answer was unclear leads there: the state has not heard of it."""
    order = await place(shop, "sandbox")
    async with device(browser, DESK) as (_, page, faults):
        await page.add_init_script(
            "window.phases = []; document.addEventListener('nodrop-order', (event) => phases.push(event.detail.phase))"
        )
        await page.goto(order["order_page"])
        await choose(page, "sandbox", "page")
        await page.goto(f"{order['order_page']}/return")
        await page.locator("#order[data-phase=waiting]").wait_for()
        await page.goto(f"{order['order_page']}?error=unclear")
        await page.evaluate(
            "() => new Promise((heard) => { const look = () => phases.includes('waiting') && heard();"
            " document.addEventListener('nodrop-order', look); look(); })"
        )
        assert await page.locator("#order").get_attribute("data-phase") == "processing"
        assert "Waiting" not in await page.locator("#state").inner_text()
        assert faults == []


async def test_a_return_while_the_service_is_gone_is_made_again_and_nothing_waits_until_then(
    browser: Browser, shop: httpx.AsyncClient, channel: Channel, accounts: tuple[str, ...], api: Process
) -> None:
    """The browser remembers that the page has waited, and shows it from its memory."""
    order = await place(shop, "sandbox")
    async with device(browser, DESK) as (_, page, faults):
        await page.goto(order["order_page"])
        await choose(page, "sandbox", "page")
        await page.goto(f"{order['order_page']}/return")
        await until_waited_for(page, order["order_page"])
        await page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        await page.wait_for_function("navigator.serviceWorker.controller !== null")
        api.kill()
        await page.goto(f"{order['order_page']}/return")
        await page.locator("#net", has_text="cannot be read right now").wait_for()
        assert await page.locator("#title").inner_text() == "Payment processing"
        api.start()
        await page.wait_for_url(order["order_page"])
        assert faults == []
    entries = (await shop.get(f"/v1/orders/{order['order_no']}/timeline")).json()["entries"]
    assert "returned" in [entry["kind"] for entry in entries]
