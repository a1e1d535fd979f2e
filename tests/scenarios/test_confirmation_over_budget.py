"""The channel confirms a callback too slowly: it is acknowledged in time, and the compensation confirms it later."""

import time

from tests.scenarios.scenario import Scene


async def test_a_callback_is_acknowledged_within_its_budget_and_pays_by_compensation(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.faults(affected=["query"], slow=1.0, slow_s=1.8)
    await scene.pay(order, "lost")
    began = time.monotonic()

    assert await scene.call_back(order) == 200

    assert time.monotonic() - began < 3.0
    assert await scene.status(order) == "paying"
    await scene.until("paid", order)
    assert await scene.paid_by(order) == "compensation"
