"""A callback overtakes the order that it is about: answered with success and forgotten, it would be lost."""

from datetime import UTC, datetime

from core.order import CaseReason
from flows.place import new_number
from tests.scenarios.scenario import Scenario
from tests.servers import eventually


async def test_a_callback_for_an_order_that_is_not_there_yet_pays_it_when_it_is(scenario: Scenario) -> None:
    """The payment was created by another system of the merchant; nodrop gets it after its callback."""
    number = new_number(datetime.now(UTC))
    await scenario.create_outside(number)
    await scenario.stack.control("POST", "channel", f"/control/payments/{number}/pay")
    [stored] = await eventually(lambda: scenario.callbacks(number))
    assert not stored["is_handled"]

    placed = await scenario.post("/v1/orders", scenario.terms(account="sandbox", watch={"out_trade_no": number}))

    assert placed.status_code == 201, placed.text
    await scenario.until("paid", placed.json()["order_no"])


async def test_a_callback_for_no_order_at_all_ends_as_a_case(scenario: Scenario) -> None:
    """Acknowledged, for sending it again would not help; looked up for a day; then a person has to see it."""
    number = new_number(datetime.now(UTC))
    response = await scenario.deliver(*scenario.signed_callback(number))
    assert (response.status_code, response.content) == (200, b"ok")
    [stored] = await scenario.callbacks(number)
    assert (stored["is_handled"], stored["is_dead"]) == (False, False)

    await scenario.make_callback_due(number, attempt=16)

    assert await eventually(lambda: scenario.cases(number)) == [CaseReason.UNKNOWN_ORDER]
    [stored] = await scenario.callbacks(number)
    assert stored["is_dead"]
