"""The merchant does not acknowledge a notification: when it is repeated, and when not."""

from tests.scenarios.scenario import Scenario, gaps
from tests.servers import eventually


async def test_retry_after_is_honoured_by_job_and_sweep(scenario: Scenario) -> None:
    """The n² gap would be 0.4 s."""
    await scenario.merchant_faults(too_many=1.0, retry_after_s=3)
    order = await scenario.place()
    await scenario.pay(order, "lost")
    await eventually(lambda: scenario.deliveries(order))
    await scenario.merchant_faults()

    await eventually(lambda: scenario.was_notified(order, "order.paid"))

    first, second = await scenario.deliveries(order)
    assert (first.answered, second.answered) == ("429", "200")
    assert (second.at - first.at).total_seconds() >= 2.9


async def test_a_merchant_that_fails_is_notified_at_growing_gaps_until_it_answers(scenario: Scenario) -> None:
    await scenario.merchant_faults(answered_500=1.0)
    order = await scenario.place()
    await scenario.pay(order, "lost")
    await eventually(lambda: _was_told_times(scenario, order.order_no, 3))
    await scenario.merchant_faults()

    await eventually(lambda: scenario.was_notified(order, "order.paid"))

    first, second, *_ = gaps([delivery.at.timestamp() for delivery in await scenario.deliveries(order)])
    assert first >= 0.4 - 0.05
    assert second >= 0.9 - 0.05


async def test_a_redirect_is_a_failure_and_not_followed(scenario: Scenario) -> None:
    await scenario.merchant_faults(redirected=1.0)
    order = await scenario.place()
    await scenario.pay(order, "lost")
    await eventually(lambda: _was_told_times(scenario, order.order_no, 2))
    await scenario.merchant_faults()

    await eventually(lambda: scenario.was_notified(order, "order.paid"))

    assert (await scenario.effects()).counters.get("redirect_followed", 0) == 0


async def _was_told_times(scenario: Scenario, order_no: str, times: int) -> bool:
    return len(await scenario.deliveries(order_no)) >= times
