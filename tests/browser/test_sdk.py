"""The module `order-status` in Chromium: on another origin, in several tabs, and where a browser refuses."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, Page, Route, async_playwright

from api.pages.html import RELOAD_S
from api.sdk import files
from api.sdk.handlers import embedding
from core.settings import Settings
from tests.api.conftest import Channel, token_of
from tests.browser.conftest import ARGUMENTS, Buyer, new_context
from tests.browser.shop_site import ShopSite, serve_shop
from tests.browser.shops import STILL
from tests.browser.test_order_page import EVENTS, HIDE, abort, number_of, place, until_paid
from tests.servers import Process, eventually, find_whole_chromium

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ASKS = re.compile(r"/(status|refresh|events(\?.*)?)$")

RECORD_STREAMS = """
window.streams = window.streamsMost = 0;
const Original = window.EventSource;
window.EventSource = class extends Original {
  constructor(...args) {
    super(...args);
    window.streams += 1;
    window.streamsMost = Math.max(window.streamsMost, window.streams);
  }
  close() { window.streams -= 1; super.close(); }
};"""


@pytest_asyncio.fixture(loop_scope="session")
async def site() -> AsyncIterator[ShopSite]:
    async with serve_shop() as site:
        yield site


@pytest.fixture
def settings(settings: Settings, site: ShopSite) -> Settings:
    return replace(settings, page_origins=site.origin)


def thanks(site: ShopSite, settings: Settings, token: str, path: str = "/thanks") -> str:
    """A page of the shop with the six lines of /sdk/."""
    lines = embedding(settings.public_url).replace("TOKEN", token)
    return site.put(path, f'<!doctype html><html lang="en"><title>Thanks</title>\n{lines}\n')


async def shows(page: Page, status: str) -> None:
    await page.locator(f"nodrop-order[status={status}]").first.wait_for(timeout=120_000)


async def test_a_shop_on_another_origin_shows_the_result_with_six_lines(
    shop: httpx.AsyncClient, account: str, channel: Channel, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    assert len(embedding(settings.public_url).splitlines()) == 6
    order = await place(shop, account=account)
    await buyer.page.goto(thanks(site, settings, token_of(order)))
    await shows(buyer.page, "processing")
    await buyer.page.locator(".nodrop-amount", has_text="¥88.88").wait_for()
    await channel.pay(number_of(order), "none")
    await shows(buyer.page, "paid")
    assert await buyer.page.locator(".nodrop-title").inner_text() == "Paid"
    assert await buyer.page.locator(".nodrop-amount").inner_text() == "¥88.88", "as on the order's page"
    assert await buyer.page.locator(".nodrop-check").is_hidden()
    assert await buyer.page.evaluate("localStorage.getItem('nodrop.orders')") == "{}"
    assert buyer.errors == []


async def test_coming_back_asks_the_channel_at_once(
    shop: httpx.AsyncClient, account: str, channel: Channel, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    """No worker runs, so nobody else asks."""
    order = await place(shop, account=account)
    await buyer.page.goto(thanks(site, settings, token_of(order)))
    await shows(buyer.page, "processing")
    await channel.pay(number_of(order), "lost")
    await buyer.page.goto("about:blank")
    await buyer.page.go_back()
    await shows(buyer.page, "paid")


async def test_showing_the_page_again_asks_the_channel(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    await buyer.page.evaluate(HIDE, "hidden")
    await channel.pay(number_of(order), "lost")
    await buyer.page.evaluate(HIDE, "visible")
    await buyer.reads("Paid")


async def test_a_question_to_the_channel_that_was_lost_is_asked_again_beside_an_open_stream(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    """As when the network is there a moment before the requests are. No worker runs, so nobody else asks."""
    order = await place(shop, account=account)
    is_open = asyncio.Event()

    async def lose(route: Route) -> None:
        await is_open.wait()
        await route.abort()

    await buyer.page.clock.install()
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    await buyer.page.evaluate(HIDE, "hidden")
    await channel.pay(number_of(order), "lost")
    await buyer.page.route("**/refresh", lose, times=1)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.evaluate(HIDE, "visible")
    async with buyer.page.expect_event("requestfailed"):
        is_open.set()
    await buyer.page.clock.run_for(4_000)
    await buyer.reads("Paid")


async def test_an_order_left_open_is_followed_on_any_page_of_the_shop(
    shop: httpx.AsyncClient, account: str, channel: Channel, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    """The tab is gone, and with it its script; the night is spent offline."""
    order = await place(shop, account=account)
    await buyer.page.goto(thanks(site, settings, token_of(order)))
    await shows(buyer.page, "processing")
    await buyer.hurry()
    page = await buyer.context.new_page()
    await buyer.page.close()
    buyer.page = page
    await channel.pay(number_of(order), "none")
    src = f"{settings.public_url}{files.URL}"
    home = site.put(
        "/home",
        "<title>Shop</title><script>document.addEventListener('nodrop-order', (event) => {"
        "if (event.detail.definite) document.title = event.detail.status; });</script>"
        f'<script type="module" src="{src}"></script>',
    )
    await page.route(ASKS, abort)
    await page.goto(home)
    async with page.expect_event("requestfailed"):
        pass
    await page.unroute(ASKS)
    await eventually(lambda: _has_title(page, "paid"))


async def _has_title(page: Page, title: str) -> bool:
    return await page.title() == title


async def test_a_forged_token_is_said_so_and_is_forgotten(
    api: Process, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    await buyer.page.goto(thanks(site, settings, "A" * 22))
    await buyer.page.locator(".nodrop-title", has_text="This address is not valid any more").wait_for()
    assert await buyer.page.evaluate("localStorage.getItem('nodrop.orders')") == "{}"


async def test_an_origin_that_is_not_allowed_is_told_nothing(
    shop: httpx.AsyncClient, account: str, settings: Settings, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    async with serve_shop() as stranger:
        await buyer.page.goto(thanks(stranger, settings, token_of(order)))
        await buyer.page.locator(".nodrop-note", has_text="cannot be read right now").wait_for()
        assert await buyer.page.locator(".nodrop-amount").inner_text() == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "content_type": "text/html", "body": "<h1>No such app</h1>"},
        {"status": 404, "content_type": "application/json", "body": '{"type": "about:blank", "status": 404}'},
        {"status": 200, "content_type": "text/html", "body": "<h1>Welcome to the hotel's network</h1>"},
        {"status": 200, "content_type": "application/json", "body": '{"status": "ok", "version": 9, "definite": true}'},
    ],
    ids=["router", "router-json", "portal", "portal-json"],
)
async def test_only_our_own_answer_ends_the_listening(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer, answer: dict[str, Any]
) -> None:
    order = await place(shop, account=account)

    async def router(route: Route) -> None:
        await route.fulfill(**answer)

    await buyer.hurry()
    await buyer.page.route(ASKS, router)
    await buyer.page.goto(order["order_page"])
    await buyer.page.locator("#net", has_text="cannot be read right now").wait_for()
    kept = json.loads(await buyer.page.evaluate("localStorage.getItem('nodrop.orders')"))
    assert list(kept) == [token_of(order)], "it is still remembered"
    await channel.pay(number_of(order), "none")
    await buyer.page.unroute(ASKS)
    await buyer.reads("Paid")


async def test_an_api_killed_while_the_page_is_open_is_found_again(
    shop: httpx.AsyncClient, account: str, channel: Channel, api: Process, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.hurry()
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    api.kill()
    await buyer.page.locator("#net", has_text="cannot be read right now").wait_for(timeout=60_000)
    api.start()
    await channel.pay(number_of(order), "lost")
    await buyer.page.locator("#net:empty").wait_for(state="attached", timeout=120_000)
    await shop.post(f"/v1/orders/{order['order_no']}/refresh")
    await buyer.reads("Paid")


async def test_one_tab_speaks_and_the_one_in_front_takes_its_place(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.page.add_init_script(RECORD_STREAMS)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    front = await buyer.context.new_page()
    async with front.expect_response(EVENTS):
        await front.goto(order["order_page"])
    await eventually(lambda: buyer.page.evaluate("window.streams === 0"))
    asks: list[str] = []
    buyer.page.on("request", lambda request: asks.append(request.url) if ASKS.search(request.url) else None)
    await channel.pay(number_of(order), "none")
    await front.locator("#title", has_text="Paid").wait_for(timeout=60_000)
    await buyer.reads("Paid")
    assert asks == [], "it was told by the tab in front"


async def test_when_the_tab_that_speaks_is_closed_another_one_does(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    front = await buyer.context.new_page()
    async with front.expect_response(EVENTS):
        await front.goto(order["order_page"])
    async with buyer.page.expect_response(EVENTS):
        await front.close()
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")


async def test_a_tab_that_speaks_and_hangs_leaves_no_other_one_in_the_dark(
    shop: httpx.AsyncClient, account: str, channel: Channel, settings: Settings, buyer: Buyer
) -> None:
    """It has the place and says nothing. The other one is seen all the time, so nothing tells it to take the place."""
    order = await place(shop, account=account)
    await buyer.page.clock.install()
    await buyer.page.add_init_script(RECORD_STREAMS)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    hanging = await buyer.context.new_page()
    await hanging.goto(f"{settings.public_url}/sdk/")
    await hanging.evaluate(
        "(name) => void navigator.locks.request(name, {steal: true}, () => new Promise(() => {}))",
        f"nodrop.{token_of(order)}",
    )
    await eventually(lambda: buyer.page.evaluate("window.streams === 0"))
    await channel.pay(number_of(order), "none")
    await until_paid(shop, order)
    await buyer.page.clock.fast_forward(120_000)
    await buyer.reads("Paid")


async def test_many_orders_on_a_page_leave_connections_for_requests(
    shop: httpx.AsyncClient, account: str, channel: Channel, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    orders = [await place(shop, account=account) for _ in range(9)]
    elements = "".join(f'<nodrop-order url="{order["order_page"]}"></nodrop-order>' for order in orders)
    script = f'<script type="module" src="{settings.public_url}{files.URL}"></script>'
    await buyer.page.add_init_script(RECORD_STREAMS)
    await buyer.page.goto(site.put("/orders", script + elements))
    await eventually(
        lambda: buyer.page.evaluate("document.querySelectorAll('.nodrop-amount:not(:empty)').length === 9")
    )
    await eventually(lambda: buyer.page.evaluate("window.streams === 3"))
    await channel.pay(number_of(orders[8]), "none")
    await buyer.page.locator("nodrop-order[status=paid]").wait_for(timeout=120_000)
    assert await buyer.page.evaluate("window.streamsMost") == 3


@pytest.mark.parametrize("kind", ["without locks", "without channels"])
async def test_older_browsers_and_pages_without_https_work(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer, kind: str
) -> None:
    """Without Web Locks a lease in localStorage has the place; without a BroadcastChannel each tab has its own."""
    missing = "delete Navigator.prototype.locks;" if kind == "without locks" else "delete window.BroadcastChannel;"
    await buyer.context.add_init_script(missing + RECORD_STREAMS)
    order = await place(shop, account=account)
    async with buyer.page.expect_response(EVENTS):
        await buyer.page.goto(order["order_page"])
    front = await buyer.context.new_page()
    async with front.expect_response(EVENTS):
        await front.goto(order["order_page"])
    if kind == "without locks":
        await eventually(lambda: buyer.page.evaluate("window.streams === 0"))
    await channel.pay(number_of(order), "none")
    await front.locator("#title", has_text="Paid").wait_for(timeout=60_000)
    await buyer.reads("Paid")
    left = await front.evaluate("Object.keys(localStorage).filter((name) => name.includes('lease'))")
    assert left == []


async def test_blocked_site_data_stops_nothing(
    shop: httpx.AsyncClient, account: str, channel: Channel, tmp_path: Path
) -> None:
    """Chromium's own setting: the getter of `localStorage` throws, and Web Locks are refused."""
    chromium = find_whole_chromium()
    if chromium is None:
        pytest.skip("no Chromium with settings here; on Debian: apt-get install chromium")
    (tmp_path / "Default").mkdir()
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(blocked))
    order = await place(shop, account=account)
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            str(tmp_path), executable_path=chromium, args=ARGUMENTS, locale="en-GB", **STILL
        )
        page = await context.new_page()
        async with page.expect_response(EVENTS):
            await page.goto(order["order_page"])
        assert await page.evaluate("(() => { try { localStorage; return ''; } catch (e) { return e.name; } })()")
        await channel.pay(number_of(order), "none")
        await page.locator("#title", has_text="Paid").wait_for(timeout=60_000)
        await context.close()


async def test_a_locale_that_intl_refuses_ends_on_paid(
    shop: httpx.AsyncClient, account: str, channel: Channel, browser: Browser
) -> None:
    order = await place(shop, account=account)
    async with new_context(browser, locale="en-US@posix") as context:
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.add_init_script(RECORD_STREAMS)
        await page.goto(order["order_page"])
        assert await page.evaluate("navigator.language") == "en-US@posix"
        await channel.pay(number_of(order), "none")
        await page.locator("#title", has_text="Paid").wait_for(timeout=60_000)
        await page.locator("#when", has_text=re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC")).wait_for()
        assert await page.locator("#refresh").is_hidden()
        assert await page.evaluate("window.streams") == 0
        assert errors == []


async def test_a_listener_that_throws_stops_nothing(
    shop: httpx.AsyncClient, account: str, channel: Channel, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    script = (
        f'<script type="module">import {{ watchOrder }} from "{settings.public_url}{files.URL}";'
        f'watchOrder({{ url: "{order["order_page"]}", onChange() {{ throw new Error("of the shop"); }} }});'
        f'watchOrder({{ url: "{order["order_page"]}", onChange: (state) => {{ document.title = state.status; }} }});'
        "</script>"
    )
    await buyer.page.goto(site.put("/throws", script))
    await channel.pay(number_of(order), "none")
    await eventually(lambda: _has_title(buyer.page, "paid"))
    assert set(buyer.errors) == {"of the shop"}, "the page's own log has it"
    assert await buyer.page.evaluate("localStorage.getItem('nodrop.orders')") == "{}"


async def test_a_pressed_button_keeps_the_focus_until_the_heading_has_it(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    button = buyer.page.locator("#refresh button")
    await button.focus()
    await buyer.page.keyboard.press("Enter")
    await buyer.page.locator("button[aria-disabled=true]", has_text="Check again in").wait_for()
    assert await button.evaluate("(button) => document.activeElement === button")
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")
    assert await buyer.page.evaluate("document.activeElement.id") == "title"


async def test_the_page_moves_by_itself_when_every_script_is_blocked(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    """Its reload comes sooner than usual: nothing else would happen meanwhile."""
    order = await place(shop, account=account)
    usual, soon = (f'<meta http-equiv="refresh" content="{seconds}">' for seconds in (RELOAD_S, 1))
    reloads: list[bool] = []

    async def hurry(route: Route) -> None:
        response = await route.fetch()
        html = await response.text()
        reloads.append(usual in html)
        await route.fulfill(response=response, body=html.replace(usual, soon))

    await buyer.page.route(re.compile(r"\.js$"), abort)
    await buyer.page.route(order["order_page"], hurry)
    await buyer.page.goto(order["order_page"])
    await channel.pay(number_of(order), "none")
    await buyer.reads("Paid")
    assert reloads[0]


async def test_the_page_moves_by_itself_when_the_module_is_blocked(
    shop: httpx.AsyncClient, account: str, channel: Channel, buyer: Buyer
) -> None:
    await buyer.page.clock.install()
    await buyer.page.route(re.compile(r"/sdk/"), abort)
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await channel.pay(number_of(order), "none")
    await until_paid(shop, order)
    await buyer.page.clock.fast_forward(20_000)
    await buyer.reads("Paid")


async def test_the_page_does_not_reload_while_its_script_runs(
    shop: httpx.AsyncClient, account: str, buyer: Buyer
) -> None:
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await buyer.page.locator("html[data-live]").wait_for()
    assert await buyer.page.locator("meta[http-equiv=refresh]").count() == 0
    held = "document.querySelector('head template').content.querySelector('meta[http-equiv=refresh]') !== null"
    assert await buyer.page.evaluate(held)


async def test_a_hidden_page_tells_by_a_notification(
    shop: httpx.AsyncClient, account: str, channel: Channel, site: ShopSite, settings: Settings, buyer: Buyer
) -> None:
    await buyer.context.grant_permissions(["notifications"], origin=site.origin)
    await buyer.page.add_init_script(
        "window.Notification = class { static permission = 'granted'; constructor(title, options) {"
        "window.informed = [title, options.body]; } };"
    )
    order = await place(shop, account=account)
    url = thanks(site, settings, token_of(order))
    site.pages["/thanks"] = site.pages["/thanks"].replace("<nodrop-order ", "<nodrop-order notify ")
    await buyer.hurry()
    await buyer.page.goto(url)
    await shows(buyer.page, "processing")
    await buyer.page.evaluate(HIDE, "hidden")
    await channel.pay(number_of(order), "none")
    await eventually(lambda: buyer.page.evaluate("window.informed"))
    title, body = await buyer.page.evaluate("window.informed")
    assert (title, body.partition(" ")[0]) == ("Paid", "Blue")


async def test_pauses_grow_and_are_not_the_same_for_everybody(
    shop: httpx.AsyncClient, account: str, buyer: Buyer
) -> None:
    """The timers that the module sets, as it sets them, each ended at once."""
    record = """
    window.pauses = [];
    const set = window.setTimeout;
    window.setTimeout = (act, ms, ...rest) => {
      if (ms > 1400 && ms < 15000 || ms > 15000 && ms < 19999) { window.pauses.push(ms); return set(act, 1, ...rest); }
      return set(act, ms, ...rest);
    };"""
    await buyer.page.add_init_script(record)
    await buyer.page.route(ASKS, abort)
    order = await place(shop, account=account)
    await buyer.page.goto(order["order_page"])
    await eventually(lambda: buyer.page.evaluate("window.pauses.length >= 5"))
    pauses: list[float] = await buyer.page.evaluate("window.pauses.slice(0, 5)")
    assert all(pause != round(pause, -2) for pause in pauses)
    assert pauses[4] > pauses[0] * 2
