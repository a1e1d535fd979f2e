"""Real processes, shared by all tests of the client and of the snippets, and both clients for tests without any."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from demo.stack import Stack
from tests.clients.far_side import Both


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stack(servers_home: Path) -> AsyncIterator[Stack]:
    async with Stack(servers_home / f"client-{uuid4().hex}", unit_s=0.1, fsync=False) as stack:
        yield stack


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(is_async=request.param)
