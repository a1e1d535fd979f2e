"""The order's page in Debian's Firefox: real background tabs, its own offline, and its own settings."""

import re

import httpx
import pytest

from tests.api.conftest import Channel
from tests.browser.firefox import Firefox, needs_firefox
from tests.browser.test_order_page import number_of, place
from tests.servers import Process, eventually

COOKIES = "network.cookie.cookieBehavior"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.long,
    needs_firefox,
]


def streams_ended(api: Process) -> int:
    """Streams that have ended, by the log of the process."""
    return len(re.findall(r'"/o/\{token\}/events"', api.output()))


async def test_offline_in_the_middle_ends_on_paid(
    shop: httpx.AsyncClient, account: str, channel: Channel, firefox: Firefox
) -> None:
    order = await place(shop, account=account)
    await firefox.open(order["order_page"])
    await firefox.reads("Payment processing")
    await firefox.set_offline(True)
    await firefox.reads("You are offline; your payment is safe", "#net")
    await channel.pay(number_of(order), "lost")
    await firefox.set_offline(False)
    await firefox.reads("Paid")


async def test_an_api_killed_while_the_page_is_open_is_found_again(
    shop: httpx.AsyncClient, account: str, channel: Channel, api: Process, firefox: Firefox
) -> None:
    order = await place(shop, account=account)
    await firefox.open(order["order_page"])
    await firefox.reads("Payment processing")
    api.kill()
    await firefox.reads("cannot be read right now", "#net")
    api.start()
    await channel.pay(number_of(order), "none")
    await firefox.reads("Paid")


async def test_the_page_polls_when_streams_are_blocked(
    shop: httpx.AsyncClient, account: str, channel: Channel, api: Process, firefox: Firefox
) -> None:
    order = await place(shop, account=account)
    await firefox.block(r"/events(\?|$)")
    await firefox.open(order["order_page"])
    await channel.pay(number_of(order), "none")
    await firefox.reads("Paid")
    assert streams_ended(api) == 0


async def test_blocked_site_data_stops_nothing(
    shop: httpx.AsyncClient, account: str, channel: Channel, firefox: Firefox
) -> None:
    """Firefox's own setting: the getter of `localStorage` throws."""
    order = await place(shop, account=account)
    await firefox.set(COOKIES, 2)
    try:
        await firefox.open(order["order_page"])
        await firefox.reads("Payment processing")
        assert await firefox.run("try { window.localStorage; return ''; } catch (error) { return error.name; }")
        await channel.pay(number_of(order), "none")
        await firefox.reads("Paid")
    finally:
        await firefox.set(COOKIES, None)


async def test_nine_tabs_opened_behind_take_no_connection(
    shop: httpx.AsyncClient, account: str, channel: Channel, api: Process, firefox: Firefox
) -> None:
    """Firefox has six connections to a server. The tab in front is the tenth, and hears of its order by its stream."""
    orders = [await place(shop, account=account) for _ in range(10)]
    await firefox.open(orders[0]["order_page"])
    await firefox.reads("Payment processing")
    behind = [await firefox.open_behind(order["order_page"]) for order in orders[1:]]
    await firefox.switch(behind[8], focus=False)
    assert await firefox.run("return document.visibilityState") == "hidden"
    await firefox.reads("Payment processing")
    await firefox.switch(behind[0])
    await firefox.reads("Payment processing")
    await channel.pay(number_of(orders[1]), "none")
    await firefox.reads("Paid")
    await firefox.switch(behind[8])
    await channel.pay(number_of(orders[9]), "none")
    await firefox.reads("Paid")


async def test_two_tabs_of_one_order_have_one_voice(
    shop: httpx.AsyncClient, account: str, channel: Channel, firefox: Firefox
) -> None:
    """The tab behind reads the result although nobody brings it to the front."""
    order = await place(shop, account=account)
    await firefox.open(order["order_page"])
    await firefox.reads("Payment processing")
    behind = await firefox.open_behind(order["order_page"])
    await channel.pay(number_of(order), "none")
    await firefox.reads("Paid")
    await firefox.switch(behind, focus=False)
    await firefox.reads("Paid")
    assert await firefox.run("return document.visibilityState") == "hidden"


async def test_the_page_moves_by_itself_when_its_script_is_blocked(
    shop: httpx.AsyncClient, account: str, channel: Channel, firefox: Firefox
) -> None:
    order = await place(shop, account=account)
    await firefox.block(r"\.js$")
    await firefox.open(order["order_page"])
    assert await firefox.run("return document.documentElement.dataset.live === undefined")
    await channel.pay(number_of(order), "none")
    await firefox.reads("Paid")


async def test_a_pressed_button_keeps_the_focus_until_the_heading_has_it(
    shop: httpx.AsyncClient, account: str, channel: Channel, firefox: Firefox
) -> None:
    order = await place(shop, account=account)
    await firefox.open(order["order_page"])
    await firefox.reads("Payment processing")
    await firefox.run("const [button] = document.querySelectorAll('#refresh button'); button.focus(); button.click();")
    script = "return document.querySelector('#refresh button').getAttribute('aria-disabled') === 'true'"
    await eventually(lambda: firefox.run(script))
    assert await firefox.run("return document.activeElement.matches('#refresh button')")
    await channel.pay(number_of(order), "none")
    await firefox.reads("Paid")
    assert await firefox.run("return document.activeElement.id") == "title"
