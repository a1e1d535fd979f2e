"""The channel does not close the payment: then the order is not closed here either."""

from tests.scenarios.scenario import Scene
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
    await eventually(lambda: _was_closed_times(scene, 2))
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


async def test_a_close_that_falls_together_with_a_query_is_not_left_to_it_again_and_again(scene: Scene) -> None:
    """From then on both have the same gaps: n² units. The deadline must not find somebody else asking for ever."""
    order = await scene.place()
    await scene.faults(affected=["close"], answered_5xx=1.0)
    assert (await scene.close(order)).status_code == 202
    await scene.faults()

    await scene.until("closed", order, timeout_s=10)


async def _was_closed_times(scene: Scene, times: int) -> bool:
    """Whether the channel was told to close it so often."""
    return sum(call.kind == "close" for call in await scene.calls()) >= times
