"""After success comes something else: what is paid stays paid, and as it was paid."""

from typing import Any

import pytest

from tests.scenarios.scenario import AMOUNT, Scenario, number_of


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "closed", "transaction_id": None, "paid_at": None},
        {"status": "unpaid", "transaction_id": None, "paid_at": None},
        {"amount": AMOUNT + 1},
        {"transaction_id": "another-transaction-1"},
    ],
    ids=["closed", "unpaid", "another_amount", "another_transaction"],
)
async def test_a_later_callback_does_not_change_what_was_paid(scenario: Scenario, fields: dict[str, Any]) -> None:
    """Well signed, and the account trusts its callbacks: nothing but the rules stands in its way."""
    order = await scenario.place("trusting")
    await scenario.pay(order, "none")
    await scenario.until("paid", order)
    before = await _payment(scenario, number_of(order))

    response = await scenario.deliver(
        *scenario.signed_callback(order, account="trusting", **fields), account="trusting"
    )

    assert response.status_code == 200
    assert await scenario.status(order) == "paid"
    assert await _payment(scenario, number_of(order)) == before


async def test_a_closed_that_was_not_heard_never_holds_back_paid(scenario: Scenario) -> None:
    """The merchant refuses to hear "closed"; money comes late; then it hears "paid", and "closed" no more."""
    await scenario.merchant_faults(answered_500=1.0)
    order = await scenario.place()
    await scenario.close(order)
    await scenario.until("closed", order)
    await scenario.pay_late(order)
    await scenario.until("paid", order)
    await scenario.merchant_faults()

    await scenario.settle()

    types = [delivery.type for delivery in await scenario.deliveries(order) if delivery.answered == "200"]
    assert types == ["order.paid"]


async def _payment(scenario: Scenario, number: str) -> tuple[object, ...]:
    sql = "SELECT status, amount, channel_transaction_id, paid_at FROM payments WHERE out_trade_no = $1"
    row = await scenario.db.fetchrow(sql, number)
    assert row is not None
    return tuple(row)
