"""The database of a test, opened as a process opens it."""

from collections.abc import AsyncIterator

import pytest

from storage.postgres.database import Database
from tests.storage.postgres.tools import opened


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database
