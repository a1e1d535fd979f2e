"""For hours no query is answered, or no callback comes through, or neither of them; then everything is caught up."""

from typing import Any

import pytest

from core.admission import UNANSWERED_MAX
from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario
from tests.servers import eventually

OUTAGES: dict[str, dict[str, Any]] = {
    "queries": {"affected": ["query"], "html_error": 1.0},
    "callbacks": {"callbacks_blocked": True},
    "both": {"down": True, "callbacks_blocked": True},
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_everything_is_caught_up_after_a_long_outage(scenario: Scenario, outage: str) -> None:
    orders = await scenario.place_many(12)
    await scenario.faults(**OUTAGES[outage])
    for order in orders:
        await scenario.pay(order, None)
    if outage != "callbacks":
        await eventually(lambda: _were_tried(scenario, orders))
        assert "paid" not in {await scenario.status(order) for order in orders}

    await scenario.faults()

    await scenario.until("paid", *orders)


async def _were_tried(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    """Return whether the channel got as many calls as its breaker allows without any response."""
    tried = [await scenario.observed(order, "unclear_seen") for order in orders]
    return sum(tried) >= UNANSWERED_MAX
