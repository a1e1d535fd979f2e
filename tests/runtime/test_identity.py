"""Two deployments on one Redis are noticed before one of them loses the other's work."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from core.errors import ConfigurationError
from core.settings import Settings
from flows.parked import drain_parked
from flows.rearm import rearm_after_flush
from runtime.identity import check_identity
from runtime.resources import Resources, open_resources
from storage.postgres.identity import find_identity
from storage.redis.checks import IDENTITY_KEY
from storage.redis.parked_callbacks import ParkedCallback


@pytest.fixture
def settings(new_database_url: str, redis_url: str) -> Settings:
    return Settings(
        database_url=new_database_url,
        redis_url=redis_url,
        public_url="http://127.0.0.1:9",
        nodrop_master_keys=f"test:{base64.urlsafe_b64encode(bytes(32)).decode()}",
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        yield opened


async def become_another(resources: Resources) -> None:
    """Let the database be another deployment's."""
    await resources.db.execute("UPDATE identity SET id = gen_random_uuid()")


async def test_the_first_process_writes_the_identity_and_the_others_agree(
    resources: Resources, settings: Settings
) -> None:
    identity = await find_identity(resources.db)
    assert identity is not None
    assert await resources.redis.get(IDENTITY_KEY) == identity.encode()
    async with open_resources(settings) as other:
        assert await find_identity(other.db) == identity


async def test_a_process_does_not_start_with_the_redis_of_another_deployment(
    resources: Resources, settings: Settings
) -> None:
    await become_another(resources)
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL: another deployment uses this Redis.*nodrop:\{depl"):
        async with open_resources(settings):
            pass


async def test_another_database_number_is_another_redis(resources: Resources, settings: Settings) -> None:
    await become_another(resources)
    async with open_resources(Settings(**as_arguments(settings) | {"redis_url": f"{settings.redis_url[:-1]}1"})):
        pass


def as_arguments(settings: Settings) -> dict[str, Any]:
    names = ("database_url", "redis_url", "public_url", "nodrop_master_keys")
    return {name: getattr(settings, name) for name in names}


async def test_after_a_flush_the_identity_is_simply_written_again(resources: Resources) -> None:
    await resources.redis.flushall()
    await rearm_after_flush(resources)
    assert await resources.redis.get(IDENTITY_KEY) == (await find_identity(resources.db) or "").encode()


async def test_parked_callbacks_of_another_deployment_stay(resources: Resources) -> None:
    """Its accounts are unknown here, and after a day the callbacks were dropped."""
    parked = ParkedCallback(account="theirs", headers={}, body=b"{}", received_at=datetime(2020, 1, 1, tzinfo=UTC))
    await resources.parked.park(parked)
    await become_another(resources)
    with pytest.raises(ConfigurationError):
        await drain_parked(resources)
    assert await resources.parked.count() == 1


async def test_a_database_that_is_not_migrated_yet_is_nobodys(resources: Resources) -> None:
    await resources.db.execute("DROP TABLE identity")
    await check_identity(resources.db, resources.redis)
