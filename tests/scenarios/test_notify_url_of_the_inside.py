"""A notification address that leads to this machine, its network or its cloud is never connected to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.scenarios.scenario import Scenario
from tests.servers import Process, eventually

PORT = 8443
"""One of the two that are taken when no network is opened."""

HOSTS = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "0.0.0.0",  # noqa: S104 - where it leads, not where we listen
    "[::1]",
    "[::ffff:127.0.0.1]",
    "10.0.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "[::ffff:169.254.169.254]",
    "[fd00::1]",
]


@asynccontextmanager
async def listening() -> AsyncIterator[list[str]]:
    """Connections to that port of this machine."""
    connected: list[str] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(str(writer.get_extra_info("peername")))
        writer.close()

    try:
        server = await asyncio.start_server(note, "127.0.0.1", PORT)
    except OSError:
        pytest.skip(f"somebody listens on port {PORT} here")
    async with server:
        yield connected


async def test_no_host_of_the_inside_is_connected_to(scenario: Scenario, tmp_path: Path) -> None:
    """Orders that are closed, so the merchant is to hear of it; by a worker to which no network is opened. They were
    placed before addresses of the inside were refused.
    """
    closed = scenario.stack.environ | {"NOTIFY_ALLOW_NETS": ""}
    async with listening() as connected, scenario.frozen_workers():
        for host in HOSTS:
            placed = await scenario.post("/v1/orders", scenario.terms(notify_url="https://shop.test/hook"))
            assert placed.status_code == 201, placed.text
            order_no = placed.json()["order_no"]
            await scenario.close(order_no)
            moved = "UPDATE notifications SET url = $2 WHERE order_no = $1"
            assert await scenario.db.execute(moved, order_no, f"https://{host}:{PORT}/hook") == 1
        async with Process("worker", env=closed, log=tmp_path / "worker.log"):
            statuses = await eventually(lambda: _last_statuses(scenario))
        assert set(statuses.values()) <= {"address_refused", "bad_url"}
        assert connected == []
        await scenario.db.execute("UPDATE notifications SET dead_at = now() WHERE url LIKE $1", f"%:{PORT}/hook")


async def test_a_port_of_the_inside_is_not_knocked_at(scenario: Scenario, tmp_path: Path) -> None:
    """Without an opened network only https at its ports is taken, also for an order placed when one was open."""
    knocks = 0

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await asyncio.start_server(note, sock=listener)
        url = f"http://localhost:{listener.getsockname()[1]}/hook"
        async with server, scenario.frozen_workers():
            placed = await scenario.post("/v1/orders", scenario.terms(notify_url=url))
            await scenario.close(placed.json()["order_no"])
            closed = scenario.stack.environ | {"NOTIFY_ALLOW_NETS": ""}
            async with Process("worker", env=closed, log=tmp_path / "worker.log"):
                await eventually(lambda: _is_dead(scenario, url))
    assert knocks == 0


async def _last_statuses(scenario: Scenario) -> dict[str, str]:
    """Result of each delivery by address, once all have been tried."""
    rows = await scenario.db.fetch("SELECT url, last_status FROM notifications WHERE url LIKE $1", f"%:{PORT}/hook")
    statuses = {row["url"]: row["last_status"] for row in rows}
    return statuses if len(statuses) == len(HOSTS) and None not in statuses.values() else {}


async def _is_dead(scenario: Scenario, url: str) -> bool:
    return bool(await scenario.db.fetchval("SELECT dead_at IS NOT NULL FROM notifications WHERE url = $1", url))
