"""Postgres accepts connections and answers nothing: a callback is answered before its channel gives it up."""

import asyncio
import time
from logging import getLogger

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario
from tests.scenarios.test_postgres_down_at_callback import parked_count

CHANNEL_WAITS_S = 5.0
"""https://pay.weixin.qq.com/doc/v3/merchant/4012791861: within five seconds."""


log = getLogger(__name__)
"""`-o log_cli_level=INFO` shows how long each callback waited."""


async def test_a_callback_is_parked_and_answered_503_within_the_channels_time(scenario: Scenario) -> None:
    orders = await scenario.place_many(6)
    await scenario.put_off(*orders)
    for order in orders:
        await scenario.pay(order, "lost")
    waited: list[float] = []

    async def callback(order: ShopOrder) -> int:
        began = time.monotonic()
        response = await scenario.deliver(*scenario.signed_callback(order))
        waited.append(time.monotonic() - began)
        return response.status_code

    with scenario.stack.postgres.frozen():
        first = await asyncio.gather(*(callback(order) for order in orders[:5]))
        second = await callback(orders[5])
        assert {*first, second} == {503}
        assert await parked_count(scenario) == len(orders)
    log.info("answered after %s s", ", ".join(f"{each:.1f}" for each in sorted(waited)))
    assert max(waited) < CHANNEL_WAITS_S
    await scenario.until("paid", *orders)
