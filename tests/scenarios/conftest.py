"""Fixtures: a stack shared by all scenarios, and another one in which processes are killed at named steps."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from demo.service import NO_TLS
from demo.stack import Stack
from tests.scenarios.faulty_proxy import FaultyProxy
from tests.scenarios.five_channels import CHANNELS
from tests.scenarios.reconciling import ALONE, BIG
from tests.scenarios.router import Router
from tests.scenarios.scenario import ENVIRONMENT, SLOW_RATE_PER_S, UNIT_S, Scenario, port_of, put_accounts
from tests.shared_loop import share_loop
from tests.stacks import cheap_stacks

HERE = "tests/scenarios/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all scenarios one event loop, since they share processes."""
    for item in share_loop(items, HERE):
        item.add_marker(pytest.mark.scenario)


@pytest.fixture(scope="package", autouse=True)
def _cheap_starts(
    tmp_path_factory: pytest.TempPathFactory, forking: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    with cheap_stacks(tmp_path_factory, forking):
        yield


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def faulty_proxy() -> AsyncIterator[FaultyProxy]:
    """A proxy between nodrop and the channel of the account `proxied`."""
    async with FaultyProxy() as channel:
        yield channel


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stack(servers_home: Path, faulty_proxy: FaultyProxy) -> AsyncIterator[Stack]:
    """A stack with two web processes and two workers."""
    stack = Stack(
        servers_home / "scenarios",
        unit_s=UNIT_S,
        apis=2,
        workers=2,
        fsync=False,
        accounts={name: name for name in CHANNELS} | {"sandbox-b": "sandbox"},
        env=ENVIRONMENT,
    )
    async with stack:
        db = await stack.open_database()
        faulty_proxy.forward_to(stack.channel_url)
        accounts: dict[str, dict[str, Any]] = {
            "proxied": {"base_url": faulty_proxy.url},
            "flag": {"late_policy": "flag"},
            "refund": {"late_policy": "refund", "double_policy": "refund"},
            "trusting": {"trust_callback": True},
            "unanswered": {"trust_callback": "when_unanswered"},
            "slow": {"rate_per_s": SLOW_RATE_PER_S},
        }
        await put_accounts(stack, db, accounts)
        await db.close()
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def scenario(stack: Stack) -> AsyncIterator[Scenario]:
    """A scenario on the shared stack. It ends with a check of the invariants."""
    async with running_scenario(stack) as scenario:
        yield scenario


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def router() -> AsyncIterator[Router]:
    """The public address of the stack in which processes are killed."""
    async with Router() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kill_stack(servers_home: Path, router: Router) -> AsyncIterator[Stack]:
    """A stack with one web process and one worker that keep running while others are killed.

    It ends with the file: only a few files need it, and its idle processes poll.
    """
    environment = ENVIRONMENT | {"PUBLIC_URL": router.url, "CHANNEL_TIMEOUT_S": "1", "LEASE_S": "1.5"}
    async with Stack(servers_home / f"kills-{uuid4().hex}", unit_s=UNIT_S, fsync=False, env=environment) as stack:
        await router.lead_to(port_of(stack.api_url))
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def kill_scenario(kill_stack: Stack, router: Router) -> AsyncIterator[Scenario]:
    """A scenario for processes that are killed at a named step. It ends with a check of the invariants."""
    async with running_scenario(kill_stack) as scenario:
        scenario.public_url = router.url
        yield scenario
        await router.lead_to(port_of(kill_stack.api_url))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alone_stack(servers_home: Path) -> AsyncIterator[Stack]:
    """A stack in which nothing is queried by itself for hours. A file has one of its own: statements of a day hold all
    that was paid on it.
    """
    accounts = {name: name for name in CHANNELS} | {BIG: "sandbox"}
    async with Stack(
        servers_home / f"alone-{uuid4().hex}", unit_s=0.1, fsync=False, accounts=accounts, env=ALONE
    ) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def alone(alone_stack: Stack) -> AsyncIterator[Scenario]:
    """A scenario in which only reconciliation finds money."""
    async with running_scenario(alone_stack) as scenario:
        yield scenario


@asynccontextmanager
async def running_scenario(stack: Stack) -> AsyncIterator[Scenario]:
    """Run a scenario on this stack, settle it, and check the invariants."""
    db = await stack.open_database()
    try:
        async with (
            httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http,
            aclosing(Scenario(stack, db, http)) as scenario,
        ):
            yield scenario
            await scenario.settle()
    finally:
        await db.close()
