"""The simulated channels, for other people's libraries to work with."""

from collections.abc import AsyncIterator

import pytest_asyncio

from simulator.kernel.simulation import Simulation
from simulator.servers import running_channel


@pytest_asyncio.fixture
async def far_side() -> AsyncIterator[Simulation]:
    async with running_channel(seed=3) as (_, far_side):
        yield far_side
