"""Clients for tests, and what a server was asked."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from signal import SIGCONT, SIGSTOP
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio import Redis

from storage.redis.address import read_redis_address
from storage.redis.client import open_job_redis, open_redis


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    client = open_redis(read_redis_address(url))
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def job_client_of(url: str) -> AsyncIterator[ArqRedis]:
    client = open_job_redis(read_redis_address(url))
    try:
        yield client
    finally:
        await client.aclose()


async def calls_of(redis: Redis, *commands: str) -> int:
    """How often the server has been asked to run one of these commands, since it was started."""
    stats: dict[str, Any] = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands)


async def server_ms(redis: Redis) -> int:
    """The server's own clock."""
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process does nothing and says nothing for as long as the block lasts."""
    os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, SIGCONT)
