"""The merchant's answer is not "heard": when it is told again, and what is never done."""

from tests.scenarios.scenario import Scene, gaps
from tests.servers import eventually


async def test_retry_after_is_honoured_by_job_and_sweep(scene: Scene) -> None:
    """The n² gap would be 0.4 s."""
    await scene.merchant_faults(too_many=1.0, retry_after_s=3)
    order = await scene.place()
    await scene.pay(order, "lost")
    await eventually(lambda: scene.deliveries(order))
    await scene.merchant_faults()

    await eventually(lambda: scene.was_told(order, "order.paid"))

    first, second = await scene.deliveries(order)
    assert (first.answered, second.answered) == ("429", "200")
    assert (second.at - first.at).total_seconds() >= 2.9


async def test_a_merchant_that_fails_is_told_at_growing_gaps_until_it_has_heard(scene: Scene) -> None:
    await scene.merchant_faults(answered_500=1.0)
    order = await scene.place()
    await scene.pay(order, "lost")
    await eventually(lambda: _was_told_times(scene, order.order_no, 3))
    await scene.merchant_faults()

    await eventually(lambda: scene.was_told(order, "order.paid"))

    first, second, *_ = gaps([delivery.at.timestamp() for delivery in await scene.deliveries(order)])
    assert first >= 0.4 - 0.05
    assert second >= 0.9 - 0.05


async def test_a_redirect_is_a_failure_and_not_followed(scene: Scene) -> None:
    await scene.merchant_faults(redirected=1.0)
    order = await scene.place()
    await scene.pay(order, "lost")
    await eventually(lambda: _was_told_times(scene, order.order_no, 2))
    await scene.merchant_faults()

    await eventually(lambda: scene.was_told(order, "order.paid"))

    assert (await scene.effects()).counters.get("redirect_followed", 0) == 0


async def _was_told_times(scene: Scene, order_no: str, times: int) -> bool:
    return len(await scene.deliveries(order_no)) >= times
