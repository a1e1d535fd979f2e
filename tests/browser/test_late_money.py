"""Money that comes late or twice, on the order's page: that it goes back, how much and since when, until it is back."""

import re

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import expect

from core.account import AccountConfig
from core.lifecycle import DoublePolicy, LatePolicy
from runtime.resources import Resources
from storage.postgres.accounts import put_account
from storage.sealing import Sealer
from tests.api.conftest import MASTER_KEYS, Channel, terms
from tests.browser.conftest import Buyer
from tests.browser.shops import LIMIT_MS
from tests.servers import Process, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READERS_TIME = r"\d{1,2} [A-Z][a-z]+ \d{4},? \d\d:\d\d"
REFUND_TAKES_S = 86_400


@pytest_asyncio.fixture(loop_scope="session")
async def accounts(resources: Resources, channel: Channel) -> tuple[str, str]:
    """Two accounts that give back what comes late or twice, at a channel that takes its time for a refund."""
    names = ("first", "second")
    for name in names:
        opened = await channel.open("sandbox", name)
        config = AccountConfig(
            name=name,
            channel="sandbox",
            base_url=opened["base_url"],
            credentials=opened["credentials"],
            late_policy=LatePolicy.REFUND,
            double_policy=DoublePolicy.REFUND,
        )
        await put_account(resources.db, Sealer.from_setting(MASTER_KEYS), config)
    await channel.faults(refund_settles_s=REFUND_TAKES_S)
    return names


async def give_back(channel: Channel) -> None:
    """The channel has the money on its way; here it arrives."""
    ledger = channel.simulation.ledger
    [refund] = await eventually(lambda: list(ledger.refunds()))
    ledger.settle_refund(refund.key, channel.simulation.now(), succeeds=True)


async def check_until(buyer: Buyer, title: str) -> None:
    """Press the button until the heading has this text: the first answer may be one of before the money came."""
    heading = buyer.page.locator("#title", has_text=title)
    button = buyer.page.locator("button:not([aria-disabled=true])", has_text="Check now")
    while not await heading.is_visible():
        await button.or_(heading).first.wait_for()
        if await button.is_visible():
            await button.click()


async def numbers(shop: httpx.AsyncClient, order_no: str) -> list[str]:
    order = (await shop.get(f"/v1/orders/{order_no}")).json()
    return [payment["out_trade_no"] for payment in order["payments"]]


async def refund_statuses(shop: httpx.AsyncClient, order_no: str) -> list[str]:
    order = (await shop.get(f"/v1/orders/{order_no}")).json()
    return [refund["status"] for refund in order["refunds"]]


async def test_money_for_a_closed_order_is_seen_going_back_and_then_refunded(
    shop: httpx.AsyncClient, accounts: tuple[str, str], channel: Channel, worker: Process, buyer: Buyer
) -> None:
    order = (await shop.post("/v1/orders", json=terms(account="first", currency="CNY"))).json()
    number = order["payments"][0]["out_trade_no"]
    await buyer.page.goto(order["order_page"])
    await buyer.reads("Payment processing")
    await shop.post(f"/v1/orders/{order['order_no']}/close")
    await buyer.reads("Closed")
    await channel.pay_late(number)
    await check_until(buyer, "Your money is going back")
    line = buyer.page.locator("#going-back")
    going = re.compile(f"^¥88.88 goes back to you by the way you paid, since {READERS_TIME}.$")
    await expect(line).to_have_text(going, timeout=LIMIT_MS)
    assert await buyer.page.locator("#pay").is_hidden()
    await give_back(channel)
    await buyer.reads("Refunded")
    back = re.compile(f"^¥88.88 went back to you by the way you paid, on {READERS_TIME}.$")
    await expect(line).to_have_text(back, timeout=LIMIT_MS)
    assert buyer.errors == []


async def test_a_second_payment_of_a_paid_order_is_a_line_below_paid(
    shop: httpx.AsyncClient, accounts: tuple[str, str], channel: Channel, worker: Process, buyer: Buyer
) -> None:
    """The buyer has opened both links, and pays by both before anybody hears of the first."""
    order = (await shop.post("/v1/orders", json=terms(accounts=accounts, currency="CNY"))).json()
    await buyer.page.goto(order["order_page"])
    for account in accounts:
        button = buyer.page.locator("form.way", has=buyer.page.locator(f'input[value="{account}"]')).locator("button")
        if not await button.is_visible():
            await buyer.page.locator("#pay details summary").click()
        await button.click()
        await buyer.page.wait_for_url(re.compile(f"account={account}&"))
    assert "Pay only once" in await buyer.page.locator("#pay-once").inner_text()
    for number in await numbers(shop, order["order_no"]):
        await channel.pay(number, "lost")
    await buyer.reads("Paid")
    await eventually(lambda: refund_statuses(shop, order["order_no"]))
    await buyer.page.reload()
    line = buyer.page.locator("#going-back")
    going = re.compile(f"^You paid twice. ¥88.88 goes back to you by the way you paid, since {READERS_TIME}.$")
    await expect(line).to_have_text(going, timeout=LIMIT_MS)
    await buyer.reads("Paid")
    await give_back(channel)

    async def is_back() -> bool:
        return await refund_statuses(shop, order["order_no"]) == ["succeeded"]

    await eventually(is_back)
    await buyer.page.reload()
    back = re.compile(f"^You paid twice. ¥88.88 went back to you by the way you paid, on {READERS_TIME}.$")
    await expect(line).to_have_text(back, timeout=LIMIT_MS)
    await buyer.reads("Paid")
    assert buyer.errors == []
