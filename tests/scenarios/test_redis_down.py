"""Redis is away, hangs, or takes no writes: callbacks are acknowledged, orders placed and queried all the same."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from signal import SIGCONT, SIGSTOP

import pytest

from tests.scenarios.scenario import Scenario, number_of
from tests.storage.redis.tools import client_of


@asynccontextmanager
async def killed(scenario: Scenario) -> AsyncIterator[None]:
    async with scenario.no_redis():
        yield


@asynccontextmanager
async def frozen(scenario: Scenario) -> AsyncIterator[None]:
    """It takes connections and never answers."""
    os.kill(scenario.stack.redis.pid, SIGSTOP)
    try:
        yield
    finally:
        os.kill(scenario.stack.redis.pid, SIGCONT)


@asynccontextmanager
async def read_only(scenario: Scenario) -> AsyncIterator[None]:
    """As after a failover that went to a replica."""
    async with client_of(scenario.stack.redis.url) as redis:
        await redis.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def full(scenario: Scenario) -> AsyncIterator[None]:
    async with client_of(scenario.stack.redis.url) as redis:
        await redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            await redis.config_set("maxmemory", "0")


Broken = Callable[[Scenario], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize("broken", [killed, frozen, read_only, full])
async def test_callbacks_are_acknowledged_and_orders_paid_without_redis(scenario: Scenario, broken: Broken) -> None:
    """Within the five seconds after which a channel gives up waiting, or it would be no acknowledgement."""
    called, uncalled = await scenario.place_many(2)
    await scenario.put_off(called)
    async with broken(scenario):
        await scenario.pay(called, "lost")
        await scenario.pay(uncalled, "lost")

        assert await scenario.request_callback(called) == 200

        assert len(await scenario.callbacks(number_of(called))) == 1
        await scenario.until("paid", called, uncalled)


async def test_a_restart_of_redis_under_load_loses_nothing(scenario: Scenario) -> None:
    orders = await scenario.place_many(10)
    paying = [
        asyncio.create_task(scenario.pay(order, None if number % 2 else "lost")) for number, order in enumerate(orders)
    ]
    await asyncio.to_thread(scenario.stack.redis.restart)
    await asyncio.gather(*paying)

    await scenario.until("paid", *orders)
