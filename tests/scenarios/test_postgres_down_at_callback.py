"""A callback comes while Postgres is down: it must not be acknowledged, and is parked in case it never comes again."""

from flows.place import new_number
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from tests.scenarios.scenario import Scene, add_account, number_of
from tests.servers import eventually
from tests.storage.redis.tools import client_of


async def test_it_is_answered_503_and_pays_later_although_the_channel_never_sends_again(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")
    async with scene.no_postgres():
        assert await scene.call_back(order) == 503
        assert await _parked(scene) == 1

    await scene.until("paid", order)

    assert await scene.paid_by(order) == "compensation"
    await eventually(lambda: _nothing_is_parked(scene))


async def test_what_is_parked_for_an_account_that_is_not_there_waits_and_holds_up_nobody(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")
    stranger = new_number()
    await scene.stack.open_account("ghost")
    async with client_of(scene.stack.redis.url) as redis:
        parked = ParkedCallbacks(redis)
        for account, (headers, body) in (
            ("ghost", scene.signed_callback(stranger, account="ghost")),
            ("sandbox", scene.signed_callback(order)),
        ):
            received_at = await scene.db.fetchval("SELECT now()")
            await parked.park(ParkedCallback(account=account, headers=headers, body=body, received_at=received_at))

    await scene.until("paid", order)
    await eventually(lambda: _is_one_parked(scene))
    [stored] = await scene.callbacks(number_of(order))
    assert stored["copies"] <= len(scene.stack.workers), "it is drained again and again"

    await add_account(scene.stack, scene.db, "ghost")
    await eventually(lambda: scene.callbacks(stranger), 20)
    await eventually(lambda: _nothing_is_parked(scene))
    await scene.make_callback_due(stranger, attempt=16)


async def _parked(scene: Scene) -> int:
    async with client_of(scene.stack.redis.url) as redis:
        return await ParkedCallbacks(redis).count()


async def _nothing_is_parked(scene: Scene) -> bool:
    return await _parked(scene) == 0


async def _is_one_parked(scene: Scene) -> bool:
    return await _parked(scene) == 1
