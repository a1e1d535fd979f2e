"""The order page on a phone under faults: *processing* until it is definite, and then the result."""

import re
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Route, expect

from tests.api.conftest import Channel, terms
from tests.browser.conftest import Buyer, new_context
from tests.browser.shops import LIMIT_MS
from tests.servers import Process, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WRONG_STATUS = re.compile(r"unpaid|not paid|fail|error|declined|expired|closed|no internet", re.IGNORECASE)


EVENTS = re.compile(r"/events(\?|$)")

HIDE = """state => {
  Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


RECORD_EVENT_IDS = """
const Original = window.EventSource;
window.heard = new Promise((resolve) => { window.hear = resolve; });
window.EventSource = class extends Original {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", (event) => window.hear(event.lastEventId));
  }
};"""


async def place(shop: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await shop.post("/v1/orders", json=terms(**more))
    assert answer.status_code == 201, answer.text
    order: dict[str, Any] = answer.json()
    return order


def number_of(order: dict[str, Any]) -> str:
    return str(order["payments"][0]["out_trade_no"])


async def until_paid(shop: httpx.AsyncClient, order: dict[str, Any]) -> None:
    """Wait until the service knows of the money: a page that then asks once reads it."""

    async def is_paid() -> bool:
        answer = await shop.get(f"/v1/orders/{order['order_no']}")
        return bool(answer.json()["status"] == "paid")

    await eventually(is_paid)


async def abort(route: Route) -> None:
    await route.abort()


async def test_lost_callback_and_lost_network_end_on_paid_and_never_frighten(
    shop: httpx.AsyncClient, account: str, channel: Channel, worker: Process, buyer: Buyer
) -> None:
    """The page goes offline, is reloaded without a network, the money comes meanwhile and no callback does."""
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    await buyer.has_shell()
    await buyer.context.set_offline(True)
    await channel.pay(number_of(order), "lost")
    await buyer.page.reload()
    await buyer.reads("Payment processing")
    await buyer.page.locator("#net", has_text="You are offline; your payment is safe").wait_for()
    assert await buyer.page.locator("#amount").inner_text() == "¥88.88"
    await buyer.context.set_offline(False)
    await buyer.reads("Paid")
    assert "You are offline" not in await buyer.page.inner_text("main")
    assert [text for text in buyer.shown_texts if WRONG_STATUS.search(text)] == []
    assert await buyer.page.evaluate("localStorage.getItem('nodrop.orders')") == "{}"
    assert buyer.errors == []


async def test_a_server_that_is_gone_is_a_page_that_says_processing(
    shop: httpx.AsyncClient, account: str, channel: Channel, api: Process, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.hurry()
    await buyer.page.goto(order["order_page"])
    await buyer.has_shell()
    api.kill()
    await channel.pay(number_of(order), "lost")
    await buyer.page.reload()
    await buyer.reads("Payment processing")
    await buyer.page.locator("#net", has_text="cannot be read right now").wait_for()
    api.start()
    await buyer.page.locator("#net:empty").wait_for(state="attached")
    check = buyer.page.locator("button:not([aria-disabled=true])", has_text="Check now")
    await check.dispatch_event("click")  # hidden already, if the page has asked by itself
    await buyer.reads("Paid")
    assert [text for text in buyer.shown_texts if WRONG_STATUS.search(text)] == []


async def test_a_change_reaches_the_page_by_its_stream(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    await buyer.page.route("**/status", abort)  # polling cannot be the source
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")


async def test_the_page_asks_by_itself_when_streams_are_blocked(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    await buyer.hurry()
    await buyer.page.route(EVENTS, abort)
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")


async def test_the_page_asks_by_itself_when_a_stream_is_held_back(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    """A proxy that buffers: the stream is neither refused nor answered."""
    held: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)

    await buyer.hurry()
    await buyer.page.route(EVENTS, hold)
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")
    assert held


async def test_a_restarted_server_is_found_again_with_the_last_event_id(
    shop: httpx.AsyncClient, account: str, channel: Channel, api: Process, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.page.add_init_script(RECORD_EVENT_IDS)
    await buyer.page.goto(order["order_page"])
    await buyer.page.evaluate("window.heard")
    await api.terminate()
    api.start()
    async with buyer.page.expect_response(EVENTS) as opened:
        pass
    request = (await opened.value).request
    sent = (await request.all_headers()).get("last-event-id") or request.url.partition("?last_event_id=")[2]
    assert sent == str(order["version"]), "by the browser itself, or by the script once it has begun anew"
    await buyer.page.route("**/status", abort)
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")


async def test_a_hidden_page_gives_its_connection_back(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    async with buyer.page.expect_event("requestfailed", lambda request: bool(EVENTS.search(request.url))):
        await buyer.page.evaluate(HIDE, "hidden")
    await channel.pay(number_of(order), "lost")
    await shop.post(f"/v1/orders/{order['order_no']}/refresh")
    for address in ("**/status", "**/refresh"):  # the stream alone tells it
        await buyer.page.route(address, abort)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.evaluate(HIDE, "visible")
    await buyer.reads("Paid")


async def test_an_order_left_open_is_asked_about_on_the_next_ones_page(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    first = await place(shop, account=account, subject="Blue kettle")
    second = await place(shop, account=account, subject="Red teapot")
    await buyer.hurry()
    await buyer.page.goto(first["order_page"])
    await buyer.reads("Payment processing")
    await buyer.page.goto(second["order_page"])
    row = buyer.page.locator("#others li")
    await expect(row.locator("bdi")).to_have_text("Blue kettle · ¥88.88", timeout=LIMIT_MS)
    await expect(row.locator(".state")).to_have_text("Payment processing", timeout=LIMIT_MS)
    await channel.pay(number_of(first), "none")
    await buyer.page.locator("#others li", has_text="Paid").wait_for()
    await buyer.page.reload()
    await buyer.reads("Payment processing")
    assert await row.count() == 0, "what is definite has been shown and is forgotten"


async def test_the_button_asks_the_channel_and_then_rests(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    button = buyer.page.locator("#refresh button")
    await button.click()
    await buyer.page.locator("button[aria-disabled=true]", has_text="Check again in").wait_for()
    await channel.pay(number_of(order), "lost")
    await buyer.page.locator("button:not([aria-disabled=true])", has_text="Check now").click()
    await buyer.reads("Paid")
    assert not await button.is_visible()


async def test_an_older_version_never_overwrites_a_newer_one(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    """A cache in between answers with what was true before."""
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    requests = []

    async def stale(route: Route) -> None:
        requests.append(route.request.url)
        await route.fulfill(json={"status": "created", "version": 1, "definite": False, "retry_after_s": 0})

    await buyer.hurry()
    await buyer.page.route(EVENTS, abort)
    await buyer.page.route("**/status", stale)
    await buyer.page.reload()
    await eventually(lambda: len(requests) >= 2)
    assert "Preparing payment" not in "".join(buyer.shown_texts)


async def test_a_definite_result_survives_a_reload_without_a_network(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await channel.pay(number_of(order), "lost")
    await shop.post(f"/v1/orders/{order['order_no']}/refresh")
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Paid")
    await buyer.has_shell()
    await buyer.context.set_offline(True)
    await buyer.page.reload()
    await buyer.reads("Paid")


async def test_a_subject_with_markup_is_text_and_the_policy_is_kept(
    shop: httpx.AsyncClient, account: str, buyer: Buyer
) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"
    order = await place(shop, account=account, subject=evil)
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    assert await buyer.page.locator("#subject").inner_text() == evil
    assert await buyer.page.locator("img").count() == 0
    other = await place(shop, account=account)
    await buyer.page.goto(other["order_page"])
    await buyer.page.locator("#others li", has_text=evil).wait_for()
    assert {text.split("\n", 1)[0] for text in buyer.shown_texts} == {"Payment processing"}, "the title"
    assert buyer.errors == []


async def test_without_a_script_the_page_and_its_form_work(
    shop: httpx.AsyncClient, account: str, channel: Channel, browser: Browser
) -> None:
    order = await place(shop, account=account)
    async with new_context(browser, java_script_enabled=False) as context:
        page = await context.new_page()
        await page.goto(order["order_page"])
        assert await page.locator("h1").inner_text() == "Payment processing"
        await channel.pay(number_of(order), "lost")
        await page.click("#refresh button")
        assert await page.locator("h1").inner_text() == "Paid"
        assert page.url == order["order_page"]
        assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", await page.inner_text("main"))


async def test_a_chinese_browser_reads_chinese_offline_as_well(
    shop: httpx.AsyncClient, account: str, browser: Browser
) -> None:
    order = await place(shop, account=account)
    async with new_context(browser, locale="zh-CN") as context:
        page = await context.new_page()
        await page.goto(order["order_page"])
        await page.locator("#title", has_text="支付处理中").wait_for()
        await page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        await page.wait_for_function("navigator.serviceWorker.controller !== null")
        await context.set_offline(True)
        await page.reload()
        await page.locator("#title", has_text="支付处理中").wait_for()
        await page.locator("#net", has_text="您已离线").wait_for()
