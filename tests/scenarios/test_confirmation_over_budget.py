"""The channel confirms a callback too slowly: it is acknowledged in time, and the compensation confirms it later."""

from tests.scenarios.scenario import Scenario


async def test_a_callback_is_acknowledged_within_its_budget_and_pays_by_compensation(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.faults(affected=["query"], slow=1.0, slow_s=1.8)
    await scenario.pay(order, "lost")

    assert await scenario.request_callback(order) == 200

    assert await scenario.status(order) == "paying", "the acknowledgement did not wait for the answer"
    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "compensation"
