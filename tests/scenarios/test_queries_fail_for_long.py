"""For hours no query is answered, or no callback comes through, or neither of them; then everything is caught up."""

from typing import Any

import pytest

from core.admission import UNANSWERED_MAX
from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scene
from tests.servers import eventually

OUTAGES: dict[str, dict[str, Any]] = {
    "queries": {"affected": ["query"], "html_error": 1.0},
    "callbacks": {"callbacks_blocked": True},
    "both": {"down": True, "callbacks_blocked": True},
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_everything_is_caught_up_after_a_long_outage(scene: Scene, outage: str) -> None:
    orders = await scene.place_many(12)
    await scene.faults(**OUTAGES[outage])
    for order in orders:
        await scene.pay(order, None)
    if outage != "callbacks":
        await eventually(lambda: _were_tried(scene, orders), 30)
        assert "paid" not in {await scene.status(order) for order in orders}

    await scene.faults()

    await scene.until("paid", *orders)


async def _were_tried(scene: Scene, orders: list[ShopOrder]) -> bool:
    """Whether the channel was asked in vain as often as its breaker lets it be when it answers nothing at all."""
    tried = [await scene.observed(order, "unclear_seen") for order in orders]
    return sum(tried) >= UNANSWERED_MAX
