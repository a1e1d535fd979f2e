"""A sweep that only looks back so far leaves what is older for ever."""

from tests.scenarios.scenario import Scene

DAYS_40 = 40 * 86_400.0


async def test_what_has_been_due_for_forty_days_is_swept(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")

    await scene.make_due(order, ago_s=DAYS_40)

    await scene.until("paid", order)
    assert await scene.paid_by(order) == "sweep"
