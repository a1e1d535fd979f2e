"""The channel's clock is wrong by a quarter of an hour: nothing it says is fresh, and nothing is lost by that."""

from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually


async def test_while_the_channels_clock_is_wrong_nothing_is_believed_and_afterwards_all_is_found(scene: Scene) -> None:
    order = await scene.place()
    await scene.faults(clock_skew_s=-900)
    await scene.pay(order, None)

    await eventually(lambda: scene.observed(order.order_no, "unclear_seen"))
    assert await scene.callbacks(number_of(order)) == [], "a stale callback is not stored"
    assert await scene.status(order) == "paying"

    await scene.faults()
    await scene.until("paid", order)
