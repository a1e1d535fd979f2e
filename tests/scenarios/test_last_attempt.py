"""The attempts are used up: that is no evidence. Without an answer a case opens, and the channel is queried once a day.
A payment that its channel calls unpaid is queried on every few hours.
"""

from functools import partial

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import UNIT_S, Scenario, number_of
from tests.servers import eventually

DAY_UNITS = 1440
LAST_GAP_UNITS = 256

NO_QUERIES = {"affected": ["query"], "html_error": 1.0}


async def test_after_the_last_attempt_a_case_opens_and_the_order_is_asked_about_daily(scenario: Scenario) -> None:
    await scenario.faults(**NO_QUERIES)
    order = await scenario.place()
    await scenario.make_due(order, attempt=16)

    assert await eventually(lambda: scenario.cases(number_of(order))) == ["attempts_exhausted"]

    assert await scenario.status(order) == "paying"
    assert DAY_UNITS * UNIT_S - 30 < await _due_in_s(scenario, order) <= DAY_UNITS * UNIT_S

    await scenario.faults()
    await scenario.pay(order, "lost")
    await scenario.make_due(order)
    await scenario.until("paid", order)


async def test_an_order_that_is_merely_unpaid_is_asked_on_every_few_hours_without_a_case(scenario: Scenario) -> None:
    """Asked once a day, its money would be found up to a day late; and nobody has anything to decide."""
    order = await scenario.place()
    await scenario.make_due(order, attempt=16)

    await eventually(partial(_is_at_attempt, scenario, order, 17))

    assert await scenario.cases(number_of(order)) == []
    assert await _due_in_s(scenario, order) <= LAST_GAP_UNITS * UNIT_S
    await scenario.pay(order, "lost")
    await scenario.make_due(order)
    await scenario.until("paid", order)


async def test_after_the_last_attempt_a_callback_still_pays(scenario: Scenario) -> None:
    await scenario.faults(**NO_QUERIES)
    order = await scenario.place()
    await scenario.make_due(order, attempt=16)
    await eventually(lambda: scenario.cases(number_of(order)))
    await scenario.faults()

    await scenario.pay(order, "none")

    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "callback"


async def _is_at_attempt(scenario: Scenario, order: ShopOrder, attempt: int) -> bool:
    sql = "SELECT attempt FROM pending WHERE out_trade_no = $1"
    return bool(await scenario.db.fetchval(sql, number_of(order)) == attempt)


async def _due_in_s(scenario: Scenario, order: ShopOrder) -> float:
    sql = "SELECT extract(epoch FROM due_at - now())::float8 FROM pending WHERE out_trade_no = $1"
    return float(await scenario.db.fetchval(sql, number_of(order)))
