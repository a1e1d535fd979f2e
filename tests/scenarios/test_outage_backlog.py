"""After an outage everything is due at once: the channel must not be asked more often than the account may ask it."""

import asyncio
import time

from simulator.oracle.invariants import bounded_load
from tests.scenarios.scenario import SLOW_RATE_PER_S, Scene
from tests.servers import eventually

BACKLOG = 160


async def test_a_backlog_is_worked_off_at_the_accounts_rate_while_callbacks_go_first(scene: Scene) -> None:
    """Two workers and two web processes share the rate, in every single second."""
    orders = await scene.place_many(BACKLOG, "slow")
    fresh = await scene.place_many(3, "slow")
    async with scene.no_workers():
        for order in orders:
            await scene.pay(order, "lost")
        await scene.put_off(*fresh)
        await scene.make_due(*orders)
    began = time.time()
    await eventually(lambda: _is_under_way(scene))

    await asyncio.gather(*(scene.pay(order, "none") for order in fresh))
    await scene.until("paid", *fresh)

    assert await _left(scene) > 0, "the callbacks came after the backlog"
    await scene.until("paid", *orders)
    calls = [call.at for call in await scene.calls() if call.merchant_id == "m-slow"]
    assert list(bounded_load(calls, limit_per_s=SLOW_RATE_PER_S)) == []
    assert len([at for at in calls if at >= began]) >= BACKLOG


async def _left(scene: Scene) -> int:
    """How many of the backlog are still to be asked about."""
    sql = "SELECT count(*) FROM pending WHERE channel_account = 'slow' AND due_at < now()"
    return int(await scene.db.fetchval(sql))


async def _is_under_way(scene: Scene) -> bool:
    return await _left(scene) < BACKLOG
