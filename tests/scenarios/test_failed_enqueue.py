"""Success is answered although nothing was kept: the channel does not send again, and nobody knows."""

from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually


async def test_a_callback_that_could_not_be_enqueued_is_kept_and_handled_without_redis(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    async with scene.no_redis():
        await scene.pay(order, "lost")

        assert await scene.call_back(order) == 200

        assert len(await scene.callbacks(number_of(order))) == 1
        await scene.until("paid", order)


async def test_without_any_store_nothing_is_acknowledged_and_the_channels_next_try_pays(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    async with scene.no_redis(), scene.no_postgres():
        await scene.pay(order, "none")
        await eventually(lambda: _was_refused(scene, number_of(order)))

    await scene.until("paid", order)
    assert len(await scene.callbacks(number_of(order))) == 1


async def _was_refused(scene: Scene, number: str) -> bool:
    """Whether the channel has heard 503, and has no acknowledgement."""
    [payment] = [row for row in (await scene.ledger()).payments if row.out_trade_no == number]
    assert payment.callbacks.acknowledged == 0
    return payment.callbacks.last_status == 503
