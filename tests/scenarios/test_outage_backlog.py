"""After an outage all queries are due at once: the calls must stay within the account's rate."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from redis.asyncio import Redis

from simulator.oracle.work import bounded_load
from simulator.shoppers.shop import ShopOrder
from storage.redis.admission.local import WINDOW_S
from storage.redis.admission.names import calls_key
from storage.redis.admission.script import SPAN
from tests.scenarios.scenario import ARRIVAL_WINDOW_S, SLOW_RATE_PER_S, Scenario
from tests.servers import eventually
from tests.storage.redis.tools import client_of

BACKLOG = 200


async def test_a_backlog_is_worked_off_at_the_accounts_rate_while_callbacks_go_first(scenario: Scenario) -> None:
    """Two workers and two web processes share the rate, in every single second.

    The seconds are those of Redis, where calls are reserved. At the channel a shorter time is checked: a process that
    waits for the processor sends or reads a call late, and it falls into the second of its successors.
    """
    # A second's calls at a time: of more at once, some would wait for the rate longer than a shop does.
    seconds = range(BACKLOG // SLOW_RATE_PER_S)
    orders = [order for _ in seconds for order in await scenario.place_many(SLOW_RATE_PER_S, "slow")]
    fresh = await scenario.place_many(3, "slow")
    async with scenario.no_workers():
        for order in orders:
            await scenario.pay(order, "lost")
        await scenario.put_off(*orders, *fresh)
    began = time.time()
    async with client_of(scenario.stack.redis.url) as redis, recorded_reservations(redis, "slow") as reservations:
        await scenario.make_due(*orders)  # only now: on a busy machine one worker is ready long before the other
        await eventually(lambda: _is_under_way(scenario))

        await asyncio.gather(*(scenario.pay(order, "none") for order in fresh))
        await scenario.until("paid", *fresh, *orders)
    assert await _last_paid(scenario, fresh) < await _last_paid(scenario, orders), (
        "the callbacks came after the backlog"
    )
    calls = [call.at for call in await scenario.calls() if call.merchant_id == "m-slow" and call.at >= began]
    assert len(calls) >= BACKLOG
    assert list(bounded_load(reservations.values(), limit_per_s=SLOW_RATE_PER_S)) == []
    assert list(bounded_load([at / ARRIVAL_WINDOW_S for at in calls], limit_per_s=SLOW_RATE_PER_S)) == []


@asynccontextmanager
async def recorded_reservations(redis: Redis, account: str) -> AsyncIterator[dict[str, float]]:
    """Yield the reservations within the block, with their times in seconds by Redis's clock.

    Redis keeps each for the window and is read ten times in it. One that is gone before was thrown away: no call was
    made with it.
    """
    reservations: dict[str, float] = {}
    stop = asyncio.Event()

    async def record() -> None:
        while not stop.is_set():
            kept = {name: at % SPAN for name, at in await redis.zrange(calls_key(account), 0, -1, withscores=True)}
            seconds, micros = await redis.time()  # after them, so that none of them has left the window since
            for name, at in list(reservations.items()):
                if name.encode() not in kept and at > seconds + micros / 1e6 - WINDOW_S:
                    del reservations[name]
            reservations.update({name.decode(): at / 1000 for name, at in kept.items()})
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WINDOW_S / 10)

    task = asyncio.create_task(record())
    try:
        yield reservations
    finally:
        stop.set()
        await task


async def _last_paid(scenario: Scenario, orders: list[ShopOrder]) -> datetime:
    """Return when the last of these orders became paid, by the database's clock."""
    sql = "SELECT max(at) FROM order_events WHERE order_no = ANY($1::text[]) AND kind = 'paid'"
    last: datetime = await scenario.db.fetchval(sql, [order.order_no for order in orders])
    return last


async def _left(scenario: Scenario) -> int:
    """Return the number of queries that are left."""
    sql = "SELECT count(*) FROM pending WHERE channel_account = 'slow' AND due_at < now()"
    return int(await scenario.db.fetchval(sql))


async def _is_under_way(scenario: Scenario) -> bool:
    return await _left(scenario) < BACKLOG
