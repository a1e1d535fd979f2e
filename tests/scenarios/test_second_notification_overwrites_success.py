"""After success comes something else: what is paid stays paid, and as it was paid."""

from typing import Any

import pytest

from tests.scenarios.scenario import AMOUNT, Scene, number_of


@pytest.mark.parametrize(
    "said",
    [
        {"status": "closed", "transaction_id": None, "paid_at": None},
        {"status": "unpaid", "transaction_id": None, "paid_at": None},
        {"amount": AMOUNT + 1},
        {"transaction_id": "another-transaction-1"},
    ],
    ids=["closed", "unpaid", "another_amount", "another_transaction"],
)
async def test_a_later_callback_does_not_change_what_was_paid(scene: Scene, said: dict[str, Any]) -> None:
    """Well signed, and the account trusts its callbacks: nothing but the rules stands in its way."""
    order = await scene.place("trusting")
    await scene.pay(order, "none")
    await scene.until("paid", order)
    before = await _payment(scene, number_of(order))

    answer = await scene.deliver(*scene.signed_callback(order, account="trusting", **said), account="trusting")

    assert answer.status_code == 200
    assert await scene.status(order) == "paid"
    assert await _payment(scene, number_of(order)) == before


async def test_a_closed_that_was_not_heard_never_holds_back_paid(scene: Scene) -> None:
    """The merchant refuses to hear "closed"; money comes late; then it hears "paid", and "closed" no more."""
    await scene.merchant_faults(answered_500=1.0)
    await scene.faults(settles_after_close=1.0, settle_after_s=0.3)
    order = await scene.place()
    await scene.close(order)
    await scene.until("paid", order)
    await scene.merchant_faults()

    await scene.settle()

    heard = [delivery.type for delivery in await scene.deliveries(order) if delivery.answered == "200"]
    assert heard == ["order.paid"]


async def _payment(scene: Scene, number: str) -> tuple[object, ...]:
    sql = "SELECT status, amount, channel_transaction_id, paid_at FROM payments WHERE out_trade_no = $1"
    row = await scene.db.fetchrow(sql, number)
    assert row is not None
    return tuple(row)
