"""Redis is away, hangs, or takes no writes: callbacks are acknowledged, orders placed and queried all the same."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from signal import SIGCONT, SIGSTOP

import pytest

from tests.scenarios.scenario import Scene, number_of
from tests.storage.redis.tools import client_of


@asynccontextmanager
async def killed(scene: Scene) -> AsyncIterator[None]:
    async with scene.no_redis():
        yield


@asynccontextmanager
async def frozen(scene: Scene) -> AsyncIterator[None]:
    """It takes connections and never answers."""
    os.kill(scene.stack.redis.pid, SIGSTOP)
    try:
        yield
    finally:
        os.kill(scene.stack.redis.pid, SIGCONT)


@asynccontextmanager
async def read_only(scene: Scene) -> AsyncIterator[None]:
    """As after a failover that went to a replica."""
    async with client_of(scene.stack.redis.url) as redis:
        await redis.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def full(scene: Scene) -> AsyncIterator[None]:
    async with client_of(scene.stack.redis.url) as redis:
        await redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            await redis.config_set("maxmemory", "0")


Broken = Callable[[Scene], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize("broken", [killed, frozen, read_only, full])
async def test_callbacks_are_acknowledged_and_orders_paid_without_redis(scene: Scene, broken: Broken) -> None:
    """Within the five seconds after which a channel gives up waiting, or it would be no acknowledgement."""
    called, uncalled = await scene.place_many(2)
    await scene.put_off(called)
    async with broken(scene):
        await scene.pay(called, "lost")
        await scene.pay(uncalled, "lost")

        assert await scene.call_back(called) == 200

        assert len(await scene.callbacks(number_of(called))) == 1
        await scene.until("paid", called, uncalled)


async def test_a_restart_of_redis_under_load_loses_nothing(scene: Scene) -> None:
    orders = await scene.place_many(10)
    paying = [
        asyncio.create_task(scene.pay(order, None if number % 2 else "lost")) for number, order in enumerate(orders)
    ]
    await asyncio.to_thread(scene.stack.redis.restart)
    await asyncio.gather(*paying)

    await scene.until("paid", *orders)
