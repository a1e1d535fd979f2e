"""One system for the short disturbances, whose Postgres is behind the proxy that cuts."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from cli.progress import Progress
from demo.stack import Stack
from tests.chaos.ground import ENVIRONMENT, Disturbance
from tests.chaos.postgres import open_proxied_stack
from tests.chaos.run import Outcome, disturb
from tests.shared_loop import share_loop
from tests.stacks import cheap_stacks

EXPIRES_S = 4

SHORT = ENVIRONMENT | {
    "LEASE_S": "3",
    "CHANNEL_TIMEOUT_S": "2",
    "NOTIFY_TIMEOUT_S": "2",
    "CALLBACK_CONFIRM_S": "1.5",
    "TRUSTED_PROXY_HOPS": "1",
}
"""Leases end after seconds, so that the work of a killed process is soon another's."""

HERE = "tests/chaos/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all that share the system one event loop."""
    share_loop(items, HERE)


@pytest.fixture(scope="package")
def _cheap_starts(
    tmp_path_factory: pytest.TempPathFactory, forking: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    with cheap_stacks(tmp_path_factory, forking):
        yield


class Shared:
    """The shared system, and what was broken on it before."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.known: set[str] = set()

    async def disturb(self, disturbance: Disturbance, seconds: float) -> Outcome:
        with Progress() as progress:
            outcome = await disturb(
                self.stack,
                disturbance,
                seconds=seconds,
                seed=1,
                progress=progress,
                expires_s=EXPIRES_S,
                known=self.known,
            )
        self.known |= set(outcome.broken)
        return outcome


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared(servers_home: Path, _cheap_starts: None) -> AsyncIterator[Shared]:
    """The usual system with short leases."""
    async with open_proxied_stack(servers_home / "chaos", 1, unit_s=0.1, fsync=False, env=SHORT) as stack:
        yield Shared(stack)
