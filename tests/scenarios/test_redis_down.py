"""Redis is away, hangs, or takes no writes: callbacks are acknowledged, orders placed and queried all the same."""

import asyncio

import pytest

from tests.scenarios.redis_states import State, down, frozen, full, read_only
from tests.scenarios.scenario import Scenario, number_of


@pytest.mark.parametrize("state", [down, frozen, read_only, full])
async def test_callbacks_are_acknowledged_and_orders_paid_without_redis(scenario: Scenario, state: State) -> None:
    """Within the five seconds after which a channel gives up waiting, or it would be no acknowledgement."""
    called, uncalled = await scenario.place_many(2)
    await scenario.put_off(called)
    async with state(scenario.stack):
        await scenario.pay(called, "lost")
        await scenario.pay(uncalled, "lost")

        assert await scenario.request_callback(called) == 200

        assert len(await scenario.callbacks(number_of(called))) == 1
        await scenario.until("paid", called, uncalled)


async def test_a_restart_of_redis_under_load_loses_nothing(scenario: Scenario) -> None:
    orders = await scenario.place_many(10)
    paying = [
        asyncio.create_task(scenario.pay(order, None if number % 2 else "lost")) for number, order in enumerate(orders)
    ]
    await asyncio.to_thread(scenario.stack.redis.restart)
    await asyncio.gather(*paying)

    await scenario.until("paid", *orders)
