"""Money arrives for an order that was closed: the database must not stay closed while everybody is told success."""

from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually


async def test_money_after_close_pays_the_order_and_the_merchant_hears_that_it_is_late(scene: Scene) -> None:
    await scene.faults(settles_after_close=1.0, settle_after_s=0.5)
    order = await scene.place()
    assert (await scene.close(order)).json()["status"] == "closed"

    await scene.until("paid", order)
    effect = await eventually(lambda: scene.effect_of(order))

    assert [event.kind for event in await scene.events(order)][-2:] == ["closed", "paid_late"]
    assert await scene.cases(number_of(order)) == ["paid_late"]
    assert effect is not None
    assert effect.late


async def test_an_account_may_leave_the_order_closed_until_a_person_decides(scene: Scene) -> None:
    """The payment is paid and a case is open all the same, and the merchant hears what has happened."""
    await scene.faults(settles_after_close=1.0, settle_after_s=0.5)
    order = await scene.place("flag")
    assert (await scene.close(order)).json()["status"] == "closed"

    await eventually(lambda: scene.cases(number_of(order)))
    await eventually(lambda: scene.was_told(order, "order.paid_late"))

    assert await scene.cases(number_of(order)) == ["paid_late"]
    assert await scene.payment_status(order) == "paid"
    assert await scene.status(order) == "closed"
