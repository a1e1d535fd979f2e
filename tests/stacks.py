"""Stacks that start and end cheaply, for tests that are not about how they do."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from demo.stack import Stack
from tests.clusters import copied_clusters, place_of_run


@contextmanager
def cheap_stacks(
    factory: pytest.TempPathFactory, forking: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """Let the clusters of all stacks in this block be copies, their processes forks, and end them at once."""
    with copied_clusters(place_of_run(factory)), forking(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stack, "aclose", _end_at_once)
        yield


async def _end_at_once(stack: Stack) -> None:
    """End a stack that nobody needs any more: a web process that drains accepts for a second and more. How processes
    end on SIGTERM has tests of its own.
    """
    await asyncio.gather(*(service.kill() for service in (*stack.workers, *stack.apis, *stack.simulators)))
    await asyncio.to_thread(stack.redis.kill)
    await asyncio.to_thread(stack.postgres.stop)
