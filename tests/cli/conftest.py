"""A database, a Redis and a channel, and the command line with an environment that names them."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_bytes, token_hex

import httpx
import pytest

from core.lifecycle import OrderTerms
from core.order import OrderState
from core.settings import Settings, read_settings
from demo.service import NO_TLS
from flows.place import PaymentRequest, place_order
from runtime.resources import Resources, open_resources
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from storage.postgres.accounts import put_account
from storage.sealing import Sealer, new_master_key
from tests.cli.nodrop import Nodrop

MERCHANT_ID = "m-1001"


class Channel:
    """The sandbox channel, with the actions of the buyer and of the tests."""

    def __init__(self, url: str, far_side: Simulation, http: httpx.AsyncClient) -> None:
        self.url = url
        self.secret = token_hex(24)
        self.far_side = far_side
        self._http = http

    async def open_account(self) -> None:
        account = {"name": "main", "merchant_id": MERCHANT_ID, "keys": {"k1": self.secret}}
        (await self._http.put(f"{self.url}/control/accounts", json=[account])).raise_for_status()

    async def pay(self, out_trade_no: str) -> None:
        """The buyer pays, and the callback is lost."""
        body = {"at_fault": {"callback": "lost"}}
        answer = await self._http.post(f"{self.url}/control/payments/{out_trade_no}/pay", json=body)
        assert answer.status_code == 200, answer.text

    async def faults(self, **profile: object) -> None:
        (await self._http.put(f"{self.url}/control/faults", json=profile)).raise_for_status()

    def toml(self, **more: object) -> str:
        """Its account as an operator writes it down."""
        lines = [
            'channel = "sandbox"',
            f'base_url = "{self.url}"',
            *(f"{key} = {value}" for key, value in more.items()),
        ]
        return "\n".join([*lines, "[credentials]", f'merchant_id = "{MERCHANT_ID}"', f'keys.k1 = "{self.secret}"', ""])


Place = Callable[..., Awaitable[OrderState]]


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    async with (
        serve_channels() as (url, far_side),
        httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http,
    ):
        opened = Channel(url, far_side, http)
        await opened.open_account()
        yield opened


@pytest.fixture
def environ(database_url: str, redis_url: str) -> dict[str, str]:
    """The variables of a deployment, and no others."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PUBLIC_URL": "http://127.0.0.1:8000",
        "NODROP_MASTER_KEYS": new_master_key("first"),
        "NOTIFY_SECRETS": "whsec_" + base64.b64encode(token_bytes(32)).decode(),
        "CHANNEL_TIMEOUT_S": "2",
    }


@pytest.fixture
def nodrop(environ: dict[str, str]) -> Nodrop:
    return Nodrop(environ)


@pytest.fixture
def bare() -> Nodrop:
    """Nothing is set."""
    return Nodrop({})


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return read_settings(environ)


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        yield opened


@pytest.fixture
async def place(resources: Resources, channel: Channel) -> Place:
    """Place an order at the account `main`, which is there."""
    from cli.accounts.account_file import read_account

    sealer = Sealer.from_setting(resources.settings.nodrop_master_keys)
    await put_account(resources.db, sealer, read_account("main", "main.toml", channel.toml().encode()))

    async def place_one(order_no: str, subject: str = "A cup of tea", notify_url: str | None = None) -> OrderState:
        terms = OrderTerms(order_no=order_no, amount=8888, currency="CNY", subject=subject, notify_url=notify_url)
        placed = await place_order(resources, terms, PaymentRequest(account="main"), expires_in_s=None)
        return placed.state

    return place_one
