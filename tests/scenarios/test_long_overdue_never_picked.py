"""A sweep that only looks back so far leaves what is older for ever."""

from tests.scenarios.scenario import Scenario

DAYS_40 = 40 * 86_400.0


async def test_what_has_been_due_for_forty_days_is_swept(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    # Without Redis only the sweep queries: not even a query that had to wait for the rate comes back as a job.
    async with scenario.no_redis():
        await scenario.make_due(order, ago_s=DAYS_40)
        await scenario.until("paid", order)

    assert await scenario.paid_by(order) == "sweep"
