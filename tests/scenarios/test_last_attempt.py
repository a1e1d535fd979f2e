"""The attempts are used up: giving up is no evidence, so a person is told and the channel asked once a day."""

from tests.scenarios.scenario import UNIT_S, Scene, number_of
from tests.servers import eventually

DAY_UNITS = 1440


async def test_after_the_last_attempt_a_case_opens_and_the_order_is_asked_about_daily(scene: Scene) -> None:
    order = await scene.place()
    await scene.make_due(order, attempt=16)

    assert await eventually(lambda: scene.cases(number_of(order))) == ["attempts_exhausted"]

    assert await scene.status(order) == "paying"
    due_in_s = await scene.db.fetchval(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM pending WHERE out_trade_no = $1", number_of(order)
    )
    assert DAY_UNITS * UNIT_S - 30 < due_in_s <= DAY_UNITS * UNIT_S

    await scene.pay(order, "lost")
    await scene.make_due(order)
    await scene.until("paid", order)


async def test_after_the_last_attempt_a_callback_still_pays(scene: Scene) -> None:
    order = await scene.place()
    await scene.make_due(order, attempt=16)
    await eventually(lambda: scene.cases(number_of(order)))

    await scene.pay(order, "none")

    await scene.until("paid", order)
    assert await scene.paid_by(order) == "callback"
