"""Redis for these tests: in this process and real, one after the other, unless a test needs a real one."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from tests.storage.redis.tools import BOTH_KINDS, Connect, connect_to, job_client_of


@pytest.fixture(params=BOTH_KINDS)
def connect(request: pytest.FixtureRequest) -> Connect:
    return connect_to(request.param, request)


@pytest.fixture
async def redis(connect: Connect) -> AsyncIterator[ArqRedis]:
    """A client of an empty Redis; `connect` opens others of the same one."""
    async with connect() as client:
        yield client


@pytest.fixture
async def real_redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    """For what only a server has: its statistics, its restarts, its connections."""
    async with job_client_of(redis_url) as client:
        yield client
