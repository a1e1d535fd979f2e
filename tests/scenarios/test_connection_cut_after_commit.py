"""The connection to Postgres is cut between a COMMIT and its reply: the result of the commit is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from demo.embedded import free_port
from tests.connections import Connections
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import Process, eventually

PAID = b'"paid_by_account":"sandbox"'
NEW = b'"operation":"insert"'


class CuttingProxy:
    """In front of Postgres. The first statement that holds `marker` is its connection's last: its reply is swallowed,
    or, when `reaches` is False, it never arrives.
    """

    def __init__(self, behind: int, marker: bytes, *, reaches: bool) -> None:
        self.port = free_port()
        self.was_cut = False
        self._target = behind
        self._marker = marker
        self._reaches = reaches
        self._connections = Connections(self._serve)

    async def __aenter__(self) -> Self:
        await self._connections.listen(self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        replying = asyncio.create_task(_copy(server, writer))
        try:
            with suppress(OSError):
                while data := await reader.read(1 << 20):
                    if self._marker in data and not self.was_cut:
                        self.was_cut = True
                        replying.cancel()
                        await asyncio.gather(replying, return_exceptions=True)
                        if self._reaches:
                            to_server.write(data)
                            await server.read(1)
                        break
                    to_server.write(data)
                    await to_server.drain()
        finally:
            replying.cancel()
            to_server.close()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def behind_proxy(scenario: Scenario, marker: bytes, log: Path, *, reaches: bool) -> AsyncIterator[str]:
    """The address of a web process whose way to Postgres is cut at that statement."""
    database_url, port = scenario.stack.database_url, free_port()
    postgres = urlsplit(database_url).port or 0
    async with CuttingProxy(postgres, marker, reaches=reaches) as proxy:
        environ = scenario.stack.environ | {"PORT": str(port)}
        # A busy machine takes longer, and then a worker would do the work that is cut here.
        environ |= {"LEASE_S": "60", "CHANNEL_TIMEOUT_S": "10", "CALLBACK_CONFIRM_S": "30"}
        environ["DATABASE_URL"] = database_url.replace(f":{postgres}/", f":{proxy.port}/")
        async with Process("api", env=environ, log=log) as api:
            await api.wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        assert proxy.was_cut


@pytest.mark.parametrize("reaches", [True, False], ids=["committed", "never_arrived"])
async def test_an_order_is_paid_once_when_the_reply_to_its_commit_is_lost(
    scenario: Scenario, reaches: bool, tmp_path: Path
) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    headers, body = scenario.signed_callback(order)
    async with behind_proxy(scenario, PAID, tmp_path / "api.log", reaches=reaches) as url:
        async with scenario.frozen_workers():
            response = await scenario.http.post(f"{url}/callbacks/sandbox", content=body, headers=headers)
        assert response.status_code == 200
        await scenario.until("paid", order)

    await eventually(lambda: scenario.deliveries(order))
    assert [event.kind for event in await scenario.events(order)].count("paid") == 1
    assert len(await scenario.deliveries(order)) == 1
    assert len(await scenario.callbacks(number_of(order))) == 1


@pytest.mark.parametrize("reaches", [True, False], ids=["committed", "never_arrived"])
async def test_an_order_is_placed_once_when_the_reply_to_its_commit_is_lost(
    scenario: Scenario, reaches: bool, tmp_path: Path
) -> None:
    terms = scenario.terms(account="sandbox")
    async with behind_proxy(scenario, NEW, tmp_path / "api.log", reaches=reaches) as url:
        scenario.public_url = url
        order = await scenario.place(**terms)

    assert len(order.payments) == 1
    await scenario.pay(order, "lost")
    await scenario.until("paid", order)
