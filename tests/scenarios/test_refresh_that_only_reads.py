"""The user looks again, and the database is read again: nothing can have changed there."""

from tests.scenarios.scenario import Scene


async def test_a_refresh_asks_the_channel_and_answers_paid(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")
    asked = len(await scene.asked(order))

    assert await scene.refresh(order) == "paid"

    assert len(await scene.asked(order)) == asked + 1
    assert await scene.paid_by(order) == "refresh"
