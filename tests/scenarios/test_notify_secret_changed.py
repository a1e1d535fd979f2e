"""A merchant's notification secret is changed while orders are paid: every notification is taken at the first try."""

import time

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario
from tests.servers import eventually

HOST = "127.1"
"""Another name of the merchant's address, so that other scenarios keep their secret."""

IN_FORCE_S = 10.0
"""As the command says."""


async def test_no_notification_is_refused_while_the_secret_is_changed(scenario: Scenario) -> None:
    url = scenario.stack.notify_url.replace("127.0.0.1", HOST)
    orders: list[ShopOrder] = []

    async def pay_one() -> None:
        order = await scenario.place(notify_url=url)
        orders.append(order)
        await scenario.pay(order, "none")
        await eventually(lambda: scenario.was_notified(order, "order.paid"))

    try:
        await pay_one()
        code, text = await scenario.nodrop("secrets", "rotate", HOST)
        changed_at = time.monotonic()
        assert code == 0, text
        (secret,) = [line for line in text.splitlines() if line.startswith("whsec_")]
        while time.monotonic() - changed_at < IN_FORCE_S:
            await pay_one()
        await use_secret(scenario, secret)
        await pay_one()
        assert (await scenario.nodrop("secrets", "retire", HOST))[0] == 0
        await pay_one()
    finally:
        await scenario.nodrop("secrets", "remove", HOST)
        await use_secret(scenario, scenario.stack.notify_secret)

    for order in orders:
        assert [delivery.answered for delivery in await scenario.deliveries(order)] == ["200"]


async def use_secret(scenario: Scenario, secret: str) -> None:
    await scenario.stack.control("PUT", "merchant", "/control/secrets", {"secrets": [secret]})
