"""The callback never comes: the most common way to lose an order."""

from tests.scenarios.scenario import Scenario
from tests.servers import eventually


async def test_every_lost_callback_is_recovered_by_the_delayed_query(scenario: Scenario) -> None:
    orders = await scenario.place_many(20)
    for order in orders:
        await scenario.pay(order, "lost")

    await scenario.until("paid", *orders)

    assert {await scenario.paid_by(order) for order in orders} == {"query"}


async def test_a_callback_that_was_never_sent_is_recovered_and_the_merchant_notified_once(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.pay(order, "event_never_generated")

    await scenario.until("paid", order)
    await eventually(lambda: scenario.deliveries(order))

    [delivery] = await scenario.deliveries(order)
    assert (delivery.type, delivery.answered) == ("order.paid", "200")


async def test_who_comes_back_from_the_channel_sees_paid_at_once(scenario: Scenario) -> None:
    """The page that opens says so, although no query is due for an hour."""
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    page = await scenario.return_from_channel(order)

    assert 'data-status="paid"' in page.text
    assert await scenario.paid_by(order) == "refresh"
