"""The attempts are used up: that is no evidence, so a case opens and the channel is queried once a day."""

from tests.scenarios.scenario import UNIT_S, Scenario, number_of
from tests.servers import eventually

DAY_UNITS = 1440


async def test_after_the_last_attempt_a_case_opens_and_the_order_is_asked_about_daily(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.make_due(order, attempt=16)

    assert await eventually(lambda: scenario.cases(number_of(order))) == ["attempts_exhausted"]

    assert await scenario.status(order) == "paying"
    due_in_s = await scenario.db.fetchval(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM pending WHERE out_trade_no = $1", number_of(order)
    )
    assert DAY_UNITS * UNIT_S - 30 < due_in_s <= DAY_UNITS * UNIT_S

    await scenario.pay(order, "lost")
    await scenario.make_due(order)
    await scenario.until("paid", order)


async def test_after_the_last_attempt_a_callback_still_pays(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.make_due(order, attempt=16)
    await eventually(lambda: scenario.cases(number_of(order)))

    await scenario.pay(order, "none")

    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "callback"
