"""Money arrives for a closed order: it must not stay closed while the channel gets a success."""

from tests.scenarios.five_channels import is_closed
from tests.scenarios.scenario import QUIET_S, Scenario, number_of
from tests.servers import eventually


async def test_money_after_close_pays_the_order_and_the_merchant_hears_that_it_is_late(scenario: Scenario) -> None:
    order = await scenario.place()
    await eventually(lambda: is_closed(scenario, order), QUIET_S)
    await scenario.pay_late(order)

    await scenario.until("paid", order)
    effect = await eventually(lambda: scenario.effect_of(order), QUIET_S)

    assert [event.kind for event in await scenario.events(order)][-2:] == ["closed", "paid_late"]
    assert await scenario.cases(number_of(order)) == ["paid_late"]
    assert effect is not None
    assert effect.late


async def test_an_account_may_leave_the_order_closed_until_a_person_decides(scenario: Scenario) -> None:
    """The payment is paid and a case is open all the same, and the merchant hears what has happened."""
    order = await scenario.place("flag")
    await eventually(lambda: is_closed(scenario, order), QUIET_S)
    await scenario.pay_late(order)

    await eventually(lambda: scenario.cases(number_of(order)), QUIET_S)
    await eventually(lambda: scenario.was_notified(order, "order.paid_late"), QUIET_S)

    assert await scenario.cases(number_of(order)) == ["paid_late"]
    assert await scenario.payment_status(order) == "paid"
    assert await scenario.status(order) == "closed"
