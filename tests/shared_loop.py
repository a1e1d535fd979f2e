"""One event loop for all tests of a folder, since they share processes, a browser or a channel."""

from collections.abc import Iterable, Sequence

import pytest
import pytest_asyncio


def share_loop(items: Iterable[pytest.Item], folder: str) -> Sequence[pytest.Item]:
    """Let the tests in this folder, such as `tests/flows/`, run on the session's loop; return those that need one."""
    shared = [
        item
        for item in items
        if item.nodeid.startswith(folder) and isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item)
    ]
    for item in shared:
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    return shared
