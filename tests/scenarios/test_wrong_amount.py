"""Evidence of another amount, well signed: on the callback as on the query it is a case and never pays."""

from typing import Any

import pytest

from tests.scenarios.scenario import AMOUNT, Scene, number_of
from tests.servers import eventually


async def test_a_callback_of_another_amount_is_a_case_and_the_channels_answer_decides(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)

    await scene.pay(order, "wrong_amount")

    await scene.until("paid", order)
    assert await scene.cases(number_of(order)) == ["amount_mismatch"]


async def test_an_answer_of_another_amount_is_a_case_and_does_not_pay(scene: Scene) -> None:
    await scene.faults(affected=["query"], wrong_amount_in_query=1.0)
    order = await scene.place()
    await scene.pay(order, "lost")

    assert await eventually(lambda: scene.cases(number_of(order))) == ["amount_mismatch"]
    await eventually(lambda: scene.observed(order.order_no, "paid_seen"))
    assert await scene.status(order) == "paying"

    await scene.faults()
    await scene.until("paid", order)


async def test_an_answer_about_another_number_is_a_case_and_does_not_pay(scene: Scene) -> None:
    order = await scene.place()
    await scene.faults(affected=["query"], other_order=1.0)

    assert "number_mismatch" in await eventually(lambda: scene.cases(number_of(order)))

    assert await scene.status(order) == "paying"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"amount": AMOUNT - 1}, "amount_mismatch"),
        ({"amount": 1}, "amount_mismatch"),
        ({"currency": "JPY"}, "currency_mismatch"),
        ({"merchant_id": "m-sandbox"}, "account_mismatch"),
    ],
    ids=lambda said: str(next(iter(said))) if isinstance(said, dict) else "",
)
async def test_a_trusted_callback_is_compared_as_well(scene: Scene, said: dict[str, Any], reason: str) -> None:
    order = await scene.place("trusting")

    answer = await scene.deliver(*scene.signed_callback(order, account="trusting", **said), account="trusting")

    assert answer.status_code == 200
    assert await scene.cases(number_of(order)) == [reason]
    assert await scene.status(order) == "paying"


async def test_a_callback_for_a_number_of_another_account_is_nobodys(scene: Scene) -> None:
    """Each account has numbers of its own: a key of one never speaks for the other."""
    order = await scene.place("trusting")

    answer = await scene.deliver(*scene.signed_callback(order, account="sandbox"), account="sandbox")

    assert answer.status_code == 200
    assert await scene.status(order) == "paying"
    await scene.make_callback_due(number_of(order), attempt=16)
    assert await eventually(lambda: scene.cases(number_of(order))) == ["unknown_order"]
