"""The real application over real stores, and a sandbox channel that serves over HTTP."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.application import open_application
from api.context import Context
from api.http.asgi import App
from api.http.server import listen, make_server
from core.account import AccountConfig
from core.settings import Settings
from demo.embedded import free_port
from demo.service import NO_TLS
from runtime.resources import Resources, open_resources
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.sealing import Sealer
from tests.api.driver import Client
from tests.servers import eventually

SECRET = "a secret for tests, long enough to be one"
MERCHANT_ID = "m-1001"
MASTER_KEYS = f"test:{base64.urlsafe_b64encode(bytes(32)).decode()}"


class Channel:
    """The simulated channels: their address, and the actions of buyers there."""

    def __init__(self, url: str, simulation: Simulation, http: httpx.AsyncClient) -> None:
        self.url = url
        self.simulation = simulation
        self._http = http

    async def pay(self, out_trade_no: str, callback: str = "lost") -> None:
        """The buyer pays. The callback is lost by default."""
        body = {"at_fault": {"callback": callback}}
        response = await self._http.post(f"{self.url}/control/payments/{out_trade_no}/pay", json=body)
        assert response.status_code == 200, response.text

    async def pay_late(self, out_trade_no: str) -> None:
        """The money of a payment that is closed there arrives."""
        response = await self._http.post(f"{self.url}/control/payments/{out_trade_no}/pay-late")
        assert response.status_code == 200, response.text

    async def faults(self, **profile: object) -> None:
        response = await self._http.put(f"{self.url}/control/faults", json=profile)
        assert response.status_code == 200, response.text

    async def open(self, channel: str, name: str) -> dict[str, Any]:
        """The credentials of a new account there."""
        response = await self._http.post(f"{self.url}/control/accounts", json={"name": name, "channel": channel})
        assert response.status_code == 200, response.text
        opened: dict[str, Any] = response.json()
        return opened

    async def queries(self) -> int:
        """The number of queries that have arrived."""
        response = await self._http.get(f"{self.url}/control/arrivals")
        return sum(kind == "query" for _, _, kind, _ in response.json()["arrivals"])


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    async with open_channel() as channel:
        yield channel


@asynccontextmanager
async def open_channel() -> AsyncIterator[Channel]:
    """Serve the channel's side, with the account `main`."""
    account = {"name": "main", "merchant_id": MERCHANT_ID, "keys": {"k1": SECRET}}
    async with (
        serve_channels() as (url, simulation),
        httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http,
    ):
        response = await http.put(f"{url}/control/accounts", json=[account])
        assert response.status_code == 200, response.text
        yield Channel(url, simulation, http)


@pytest.fixture
def long_cooldown() -> None:
    """For a test in which a result is still shared after the time that a busy machine takes."""


@pytest.fixture
def settings(database_url: str, redis_url: str, request: pytest.FixtureRequest) -> Settings:
    port = free_port()
    return Settings(
        host="127.0.0.1",
        port=port,
        shutdown_grace_s=4.0,
        database_url=database_url,
        redis_url=redis_url,
        public_url=f"http://127.0.0.1:{port}",
        refresh_cooldown_s=60.0 if "long_cooldown" in request.fixturenames else 3.0,
        nodrop_master_keys=MASTER_KEYS,
        notify_secrets="whsec_" + base64.b64encode(bytes(32)).decode(),
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        yield opened


@pytest.fixture
def draining() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def short_body_timeout() -> None:
    """For a test that waits for the deadline of a body. All others have time, also on a busy machine."""


@pytest.fixture
def measured_lag() -> None:
    """For a test of what a busy process refuses. All others are answered, also on a busy machine."""


@pytest.fixture
async def app(
    resources: Resources, draining: asyncio.Event, request: pytest.FixtureRequest
) -> AsyncIterator[App[Context]]:
    body_timeout_s = 0.2 if "short_body_timeout" in request.fixturenames else 60.0
    async with open_application(resources, draining, body_timeout_s=body_timeout_s) as application:
        if "measured_lag" not in request.fixturenames:
            application._lag.end()
        yield application


@pytest.fixture
async def served(app: App[Context], settings: Settings, draining: asyncio.Event) -> AsyncIterator[str]:
    """The application under our own server, at its `PUBLIC_URL`."""
    server = make_server(app, settings, draining)
    task = asyncio.create_task(server.serve(listen(settings)))
    await eventually(lambda: server.started)
    yield settings.public_url
    server.drain()
    await task


@pytest.fixture
async def client(app: App[Context], resources: Resources) -> Client:
    """The merchant's, with a key."""
    _, text = await create_api_key(resources.db, "tests")
    return Client(app, api_key=text)


@pytest.fixture
def buyer(app: App[Context]) -> Client:
    return Client(app, address="198.51.100.7")


@pytest.fixture
async def account(resources: Resources, channel: Channel) -> str:
    """A sandbox account, known here and there."""
    return await put_main_account(resources, channel)


async def put_main_account(resources: Resources, channel: Channel) -> str:
    """Store the account `main`; return its name."""
    config = AccountConfig(
        name="main",
        channel="sandbox",
        base_url=channel.url,
        credentials={"merchant_id": MERCHANT_ID, "keys": {"k1": SECRET}},
    )
    await put_account(resources.db, Sealer.from_setting(MASTER_KEYS), config)
    return "main"


async def open_elsewhere(resources: Resources, channel: Channel, kind: str, name: str) -> None:
    """An account at another of the far side's channels, with keys that are made there, known here and there."""
    opened = await channel.open(kind, name)
    fields = {field: opened[field] for field in ("channel", "base_url", "credentials")}
    await put_account(resources.db, Sealer.from_setting(MASTER_KEYS), AccountConfig(name=name, **fields))


def terms(**more: Any) -> dict[str, Any]:
    """An order that can be placed."""
    return {"order_no": f"A-{uuid4().hex[:12]}", "amount": 8888, "currency": "CNY", "subject": "Blue kettle", **more}


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The same settings for a process."""
    return {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "PUBLIC_URL": settings.public_url,
        "PAGE_ORIGINS": settings.page_origins,
        "NODROP_MASTER_KEYS": MASTER_KEYS,
        "NOTIFY_SECRETS": settings.notify_secrets,
        "HOST": settings.host,
        "PORT": str(settings.port),
        "SHUTDOWN_GRACE_S": "60",
        **more,
    }


async def expire_tokens(resources: Resources) -> None:
    """Make every order older than its page token lives, past the trigger that keeps orders from being edited."""
    await resources.db.execute("ALTER TABLE orders DISABLE TRIGGER USER")
    await resources.db.execute("UPDATE orders SET created_at = now() - interval '91 days'")


def token_of(order: dict[str, Any]) -> str:
    return str(order["order_page"]).rsplit("/", 1)[-1]
