"""The simulated channels, for third-party libraries."""

from collections.abc import AsyncIterator

import pytest_asyncio

from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels


@pytest_asyncio.fixture
async def far_side() -> AsyncIterator[Simulation]:
    async with serve_channels(seed=3) as (_, far_side):
        yield far_side
