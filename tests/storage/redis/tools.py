"""Clients of a real Redis and of one in this process, and the statistics of a server."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from arq.connections import ArqRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeAsyncRedisConnection
from redis.asyncio import BlockingConnectionPool, Redis

from storage.redis.address import read_redis_address
from storage.redis.client import close_redis, open_job_redis, open_redis
from storage.redis.connection import ACQUIRE_TIMEOUT_S, CONNECTIONS_MAX
from storage.redis.delay_queue import DelayQueue, FollowUps
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job

Connect = Callable[[], AbstractAsyncContextManager[ArqRedis]]
"""Opens one more client of the same Redis, as another process does."""

BOTH_KINDS = ("fake", pytest.param("real", marks=pytest.mark.servers))
"""For a fixture's `params`: the same assertions hold for fakeredis, which needs no server, and for a real one."""


def connect_to(kind: str, request: pytest.FixtureRequest) -> Connect:
    """Clients of an empty Redis of this kind."""
    if kind == "fake":
        return partial(fake_client_of, FakeServer(version=(7,)))
    return partial(job_client_of, request.getfixturevalue("redis_url"))


@asynccontextmanager
async def fake_client_of(server: FakeServer) -> AsyncIterator[ArqRedis]:
    """As `open_job_redis`, but of a Redis in this process; `server.connected = False` cuts every connection."""
    limits: dict[str, Any] = {"max_connections": CONNECTIONS_MAX, "timeout": ACQUIRE_TIMEOUT_S}
    pool = BlockingConnectionPool(connection_class=FakeAsyncRedisConnection, server=server, **limits)
    client = ArqRedis(pool, job_serializer=encode_job, job_deserializer=decode_job, expires_extra_ms=EXPIRES_EXTRA_MS)
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    client = open_redis(read_redis_address(url))
    try:
        yield client
    finally:
        await close_redis(client)


@asynccontextmanager
async def job_client_of(url: str) -> AsyncIterator[ArqRedis]:
    client = open_job_redis(read_redis_address(url))
    try:
        yield client
    finally:
        await close_redis(client)


async def calls_of(redis: Redis, *commands: str) -> int:
    """Count the calls of these commands since the server was started."""
    stats: dict[str, Any] = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands)


async def server_ms(redis: Redis) -> int:
    """Time of the server's own clock."""
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop the process without ending it until the block ends."""
    os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, SIGCONT)


def follow_ups_of(redis: Redis) -> FollowUps:
    return FollowUps(redis, DelayQueue(redis))
