"""Evidence of another amount, well signed: on the callback as on the query it is a case and never pays."""

from typing import Any

import pytest

from tests.scenarios.scenario import AMOUNT, Scenario, number_of
from tests.servers import eventually


async def test_a_callback_of_another_amount_is_a_case_and_the_channels_answer_decides(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)

    await scenario.pay(order, "wrong_amount")

    await scenario.until("paid", order)
    assert await scenario.cases(number_of(order)) == ["amount_mismatch"]


async def test_an_answer_of_another_amount_is_a_case_and_does_not_pay(scenario: Scenario) -> None:
    await scenario.faults(affected=["query"], wrong_amount_in_query=1.0)
    order = await scenario.place()
    await scenario.pay(order, "lost")

    assert await eventually(lambda: scenario.cases(number_of(order))) == ["amount_mismatch"]
    await eventually(lambda: scenario.observed(order.order_no, "paid_seen"))
    assert await scenario.status(order) == "paying"

    await scenario.faults()
    await scenario.until("paid", order)


async def test_an_answer_about_another_number_is_a_case_and_does_not_pay(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.faults(affected=["query"], other_order=1.0)

    assert "number_mismatch" in await eventually(lambda: scenario.cases(number_of(order)))

    assert await scenario.status(order) == "paying"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"amount": AMOUNT - 1}, "amount_mismatch"),
        ({"amount": 1}, "amount_mismatch"),
        ({"currency": "JPY"}, "currency_mismatch"),
        ({"merchant_id": "m-sandbox"}, "account_mismatch"),
    ],
    ids=lambda fields: str(next(iter(fields))) if isinstance(fields, dict) else "",
)
async def test_a_trusted_callback_is_compared_as_well(scenario: Scenario, fields: dict[str, Any], reason: str) -> None:
    order = await scenario.place("trusting")

    response = await scenario.deliver(
        *scenario.signed_callback(order, account="trusting", **fields), account="trusting"
    )

    assert response.status_code == 200
    assert await scenario.cases(number_of(order)) == [reason]
    assert await scenario.status(order) == "paying"


async def test_a_callback_for_a_number_of_another_account_pays_nothing(scenario: Scenario) -> None:
    """Each account has numbers of its own: a key of one never speaks for the other."""
    order = await scenario.place("trusting")

    response = await scenario.deliver(*scenario.signed_callback(order, account="sandbox"), account="sandbox")

    assert response.status_code == 200
    assert await scenario.status(order) == "paying"
    await scenario.make_callback_due(number_of(order), attempt=16)
    assert await eventually(lambda: scenario.cases(number_of(order))) == ["unknown_order"]
