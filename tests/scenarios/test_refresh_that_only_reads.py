"""The user looks again, and the database is read again: nothing can have changed there."""

from tests.scenarios.scenario import Scenario


async def test_a_refresh_asks_the_channel_and_answers_paid(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    queries = len(await scenario.query_times(order))

    assert await scenario.refresh(order) == "paid"

    assert len(await scenario.query_times(order)) == queries + 1
    assert await scenario.paid_by(order) == "refresh"
