"""One channel, one merchant and one receiver of callbacks for the session, each emptied before a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from demo.service import NO_TLS
from simulator.kernel.deliveries import Tally
from simulator.kernel.ledger import Key
from simulator.kernel.simulation import Simulation
from simulator.kernel.snapshot import LedgerPayment, LedgerSnapshot
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving
from simulator.merchant.notifications import Merchant
from simulator.servers import serve_channels, serve_merchant
from tests.simulator.sandbox_client import ACCOUNT, MERCHANT_ID, SandboxClient

SPEED = 1000.0
"""15 s become 15 ms."""

OK = Response(body=b"ok", content_type="text/plain")


async def until(condition: Callable[[], object], within_s: float = 8.0) -> None:
    """Wait until the condition is true; fail after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
            await asyncio.sleep(0.003)


class StoppedClock:
    """The simulation's clock, which moves only when a test moves it."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Receiver:
    """Receiver of callbacks: stores requests with their times; the default response is `ok`."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[float, Request]] = []
        self.response: Callable[[Request], Reply] = lambda _: OK

    async def receive(self, request: Request) -> Reply:
        self.requests.append((asyncio.get_running_loop().time(), request))
        return self.response(request)

    def bodies(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(request.body) for _, request in self.requests]

    def numbers(self) -> list[str]:
        return [body["payment"]["out_trade_no"] for body in self.bodies()]


class Channel:
    """The session's channel, used over HTTP, or directly where that is shorter."""

    def __init__(self, url: str, simulation: Simulation, client: httpx.AsyncClient) -> None:
        self.url = url
        self.simulation = simulation
        self.http = client
        self.api = SandboxClient(client, url)

    async def faults(self, **profile: object) -> None:
        response = await self.http.put(f"{self.url}/control/faults", json=profile)
        assert response.status_code == 200, response.text

    async def pay(self, number: str, **at_fault: str) -> httpx.Response:
        body = {"at_fault": at_fault} if at_fault else {}
        return await self.http.post(f"{self.url}/control/payments/{number}/pay", json=body)

    async def ledger(self) -> LedgerSnapshot:
        response = await self.http.get(f"{self.url}/control/ledger")
        return msgspec.json.decode(response.content, type=LedgerSnapshot)

    async def payment(self, number: str) -> LedgerPayment:
        return next(row for row in (await self.ledger()).payments if row.out_trade_no == number)

    def tally(self, number: str) -> Tally:
        return self.simulation.sender.tally(Key(MERCHANT_ID, number))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(App([Route("POST", "/callbacks/main", receiver.receive)])) as url:
        receiver.url = f"{url}/callbacks/main"
        yield receiver


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_channel(http: httpx.AsyncClient) -> AsyncIterator[Channel]:
    async with serve_channels(seed=7, speed=SPEED) as (url, simulation):
        response = await http.put(f"{url}/control/accounts", json=[ACCOUNT])
        assert response.status_code == 200
        yield Channel(url, simulation, http)


@pytest.fixture
def stopped_clock(session_channel: Channel, monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    """For tests of what lasts a time or belongs to a day: no other clock decides."""
    clock = StoppedClock()
    monkeypatch.setattr(session_channel.simulation, "_clock", clock.now)
    return clock


@pytest_asyncio.fixture(loop_scope="session")
async def channel(session_channel: Channel) -> Channel:
    response = await session_channel.http.post(f"{session_channel.url}/control/reset", json={"seed": 7})
    assert response.status_code == 200
    return session_channel


@pytest.fixture
def receiver(session_receiver: Receiver) -> Receiver:
    session_receiver.requests = []
    session_receiver.response = lambda _: OK
    return session_receiver


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_merchant() -> AsyncIterator[tuple[str, Merchant]]:
    async with serve_merchant(seed=7) as running:
        yield running
