"""Test money: before, a paid order did not say that nobody had paid real money, and the merchant shipped goods."""

from tests.scenarios.five_channels import CHANNELS, place_at
from tests.scenarios.scenario import Scenario
from tests.servers import eventually

BODY = "SELECT convert_from(body, 'UTF8')::json->'data'->>'live' FROM notifications WHERE order_no = $1"


async def test_test_money_is_called_so_in_the_notification_the_api_and_on_the_page(scenario: Scenario) -> None:
    orders = {channel: await place_at(scenario, channel) for channel in CHANNELS}
    for order in orders.values():
        await scenario.pay(order)
    await scenario.until("paid", *orders.values())
    for channel, order in orders.items():
        view = await scenario.view(order)
        assert (view["live"], view["payments"][0]["live"]) == (False, False), channel
        assert await scenario.db.fetchval(BODY, order.order_no) == "false", channel
        page = await scenario.http.get(view["order_page"], headers={"accept-language": "en"})
        assert "Test payment: no real money is moved" in page.text, channel
        await eventually(lambda order=order: scenario.was_notified(order, "order.paid"))  # type: ignore[misc]
