"""States of a stack's Redis in which it helps nobody: each lasts for the length of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from redis.asyncio import Redis

from demo.stack import Stack
from tests.storage.redis import tools

Command = Callable[[Redis], Awaitable[object]]
State = Callable[[Stack], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def down(stack: Stack) -> AsyncIterator[None]:
    """Kill it: connections are refused. It comes back empty."""
    await asyncio.to_thread(stack.redis.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.redis.start)


@asynccontextmanager
async def frozen(stack: Stack) -> AsyncIterator[None]:
    """Let it accept connections and answer nothing."""
    with tools.frozen(stack.redis.pid):
        yield


def read_only(stack: Stack) -> AbstractAsyncContextManager[None]:
    """Make it a replica of nobody, as after a failover."""
    return _between(stack, lambda redis: redis.replicaof("127.0.0.1", "1"), lambda redis: redis.replicaof("NO", "ONE"))


def full(stack: Stack) -> AbstractAsyncContextManager[None]:
    """Let it refuse writes, by `maxmemory` under `noeviction`."""
    return _between(
        stack, lambda redis: redis.config_set("maxmemory", "1"), lambda redis: redis.config_set("maxmemory", "0")
    )


@asynccontextmanager
async def _between(stack: Stack, begin: Command, end: Command) -> AsyncIterator[None]:
    async with tools.client_of(stack.redis.url) as redis:
        await begin(redis)
        try:
            yield
        finally:
            await end(redis)
