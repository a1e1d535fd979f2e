"""The channel's clock is wrong by a quarter of an hour: nothing it says is fresh, and nothing is lost by that."""

from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually


async def test_while_the_channels_clock_is_wrong_nothing_is_believed_and_afterwards_all_is_found(
    scenario: Scenario,
) -> None:
    order = await scenario.place()
    await scenario.faults(clock_skew_s=-900)
    await scenario.pay(order, None)

    await eventually(lambda: scenario.observed(order.order_no, "unclear_seen"))
    assert await scenario.callbacks(number_of(order)) == [], "a stale callback is not stored"
    assert await scenario.status(order) == "paying"

    await scenario.faults()
    await scenario.until("paid", order)
