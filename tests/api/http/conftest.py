"""`python -m api` as a process, and a client for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from core.settings import Settings
from demo.service import NO_TLS
from runtime.resources import Resources
from storage.postgres.api_keys import create_api_key
from tests.api.conftest import environment
from tests.servers import Process


@pytest.fixture
async def process(settings: Settings, tmp_path: Path) -> AsyncIterator[Process]:
    process = Process("api", env=environment(settings), log=tmp_path / "api.log")
    async with process:
        await process.wait_for_http(f"{settings.public_url}/healthz")
        yield process


@pytest.fixture
async def http(settings: Settings, resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    _, key = await create_api_key(resources.db, "tests")
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=settings.public_url, headers=headers, trust_env=False, verify=NO_TLS, timeout=60
    ) as client:
        yield client
