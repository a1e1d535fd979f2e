"""Two stacks: one is shared by all scenarios that leave it as it was, in the other one processes die at every step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from demo.stack import Stack
from tests.scenarios.faulty_proxy import CrookedProxy
from tests.scenarios.five_channels import CHANNELS
from tests.scenarios.router import Router
from tests.scenarios.scenario import ENVIRONMENT, SLOW_RATE_PER_S, UNIT_S, Scene, add_account, port_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios share processes, so they share an event loop."""
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.scenario)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crooked() -> AsyncIterator[CrookedProxy]:
    """What stands between nodrop and the channel of the account of the same name."""
    async with CrookedProxy() as channel:
        yield channel


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(servers_home: Path, crooked: CrookedProxy) -> AsyncIterator[Stack]:
    """Two web processes, two workers, and everything around them."""
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
        crooked.in_front_of(stack.channel_url)
        await add_account(stack, db, "crooked", base_url=crooked.url)
        await add_account(stack, db, "flag", late_policy="flag")
        await add_account(stack, db, "refund", late_policy="refund", double_policy="refund")
        await add_account(stack, db, "trusting", trust_callback=True)
        await add_account(stack, db, "slow", rate_per_s=SLOW_RATE_PER_S)
        await db.close()
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def scene(stack: Stack) -> AsyncIterator[Scene]:
    """The shared stack. Every scenario ends with the invariants, checked from outside."""
    async with staged(stack) as staged_scene:
        yield staged_scene


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def router() -> AsyncIterator[Router]:
    """The public address of the stack in which processes die."""
    async with Router() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dying_stack(servers_home: Path, router: Router) -> AsyncIterator[Stack]:
    """One web process and one worker that live on, for others to die beside them."""
    environment = ENVIRONMENT | {"PUBLIC_URL": router.url, "CHANNEL_TIMEOUT_S": "1", "LEASE_S": "1.5"}
    async with Stack(servers_home / "dying", unit_s=UNIT_S, fsync=False, env=environment) as stack:
        await router.lead_to(port_of(stack.api_url))
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def dying_scene(dying_stack: Stack, router: Router) -> AsyncIterator[Scene]:
    """For processes that die at a named step. It ends with the invariants as well."""
    async with staged(dying_stack) as staged_scene:
        staged_scene.public_url = router.url
        yield staged_scene
        await router.lead_to(port_of(dying_stack.api_url))


@asynccontextmanager
async def staged(stack: Stack) -> AsyncIterator[Scene]:
    """A scenario on this stack, with the end that every scenario has."""
    db = await stack.open_database()
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
            scene = Scene(stack, db, http)
            yield scene
            await scene.settle()
    finally:
        await db.close()
