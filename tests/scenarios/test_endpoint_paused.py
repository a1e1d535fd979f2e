"""An operator pauses the merchant's endpoint: nothing is sent, nothing is given up, and a resume brings all of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.scenarios.scenario import Scenario
from tests.servers import eventually

ORDERS = 4
HELD = """
SELECT count(*) FROM notifications
 WHERE order_no = ANY($1::text[]) AND held_at IS NOT NULL AND attempt = 1 AND attempts IS NULL AND dead_at IS NULL"""


@asynccontextmanager
async def paused(scenario: Scenario) -> AsyncIterator[None]:
    endpoint = scenario.stack.notify_url
    code, out = await scenario.nodrop("endpoints", "pause", endpoint, "--reason", "they move house")
    assert code == 0, out
    try:
        yield
    finally:
        code, out = await scenario.nodrop("endpoints", "resume", endpoint, "--reason", "they are back")
        assert code == 0, out


async def test_what_was_paid_while_an_endpoint_is_paused_arrives_once_after_it(scenario: Scenario) -> None:
    """Also when every worker is killed meanwhile, and other ones come."""
    async with paused(scenario):
        orders = await scenario.place_many(ORDERS)
        for order in orders:
            await scenario.pay(order, "lost")
        await scenario.until("paid", *orders)
        order_nos = [order.order_no for order in orders]

        async def are_held() -> bool:
            return bool(await scenario.db.fetchval(HELD, order_nos) == ORDERS)

        await eventually(are_held)
        async with scenario.no_workers():
            pass
        assert await are_held()
        assert [await scenario.deliveries(order) for order in orders] == [[]] * ORDERS

    for order in orders:
        await eventually(lambda order=order: scenario.was_notified(order, "order.paid"))  # type: ignore[misc]
    assert [len(await scenario.deliveries(order)) for order in orders] == [1] * ORDERS
