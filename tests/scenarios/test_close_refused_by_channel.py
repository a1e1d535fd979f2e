"""The channel does not close the payment: then the order is not closed here either."""

from tests.scenarios.scene import Scene
from tests.servers import eventually


async def test_an_order_paid_at_the_channel_cannot_be_closed_and_becomes_paid(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")

    answer = await scene.close(order)

    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/order_paid")
    assert await scene.status(order) == "paid"


async def test_while_the_channel_does_not_close_it_the_order_stays_open(scene: Scene) -> None:
    order = await scene.place()
    await scene.faults(affected=["close"], answered_5xx=1.0)

    answer = await scene.close(order)

    assert (answer.status_code, answer.json()["status"]) == (202, "paying")
    await eventually(lambda: _tried_again(scene, 2))
    assert await scene.status(order) == "paying"
    await scene.faults()
    await scene.until("closed", order)
    assert (await scene.at_channel(order)).status == "closed"


async def test_an_order_whose_close_was_never_answered_is_asked_about_before_it_ends(scene: Scene) -> None:
    """The channel has closed it, and its answer is lost: only the query tells."""
    order = await scene.place()
    await scene.faults(close_answer_lost=1.0)

    await scene.close(order)

    await scene.until("closed", order)
    assert (await scene.at_channel(order)).status == "closed"


async def _tried_again(scene: Scene, times: int) -> bool:
    counters = await scene.stack.control("GET", "channel", "/control/counters")
    return bool(counters.get("faults_answered_5xx", 0) >= times)
