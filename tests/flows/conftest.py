"""The flows on real stores and against the simulated channel over HTTP; time passes by moving due times in Postgres."""

import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.base import Acknowledgement
from core.lifecycle import OrderTerms
from core.order import OrderState, Payment
from core.settings import Settings
from demo.embedded import EmbeddedPostgres
from flows.callback import receive_callback
from flows.place import PaymentRequest, Placed, place_order
from runtime.resources import Resources, open_resources
from simulator.kernel.base import Account
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key as LedgerKey
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from storage.postgres.accounts import put_account
from storage.postgres.cases import list_cases
from storage.postgres.orders import find_state
from storage.postgres.sealing import Sealer
from tests.channels.reports import CallbackRequest, Key, PaymentReport
from tests.channels.sandbox.driver import SandboxDriver

HERE = Path(__file__).parent
MASTER_KEYS = f"test:{base64.urlsafe_b64encode(bytes(32)).decode()}"
NOTIFY_SECRETS = tuple("whsec_" + base64.b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))
AMOUNT = 8888


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The channel serves the whole session, so these tests share its event loop."""
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


_EMPTY = """
TRUNCATE orders, payments, pending, refunds, order_events, observations, cases, callbacks, notifications, accounts
 CASCADE"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A pending row as a test looks at it."""

    attempt: int
    arm_no: int
    due_in_s: float
    is_leased: bool


class FlowHarness:
    """One process's resources, the far side of its accounts, and what a test does to both."""

    def __init__(self, resources: Resources, far_side: Simulation, url: str) -> None:
        self.resources = resources
        self.far_side = far_side
        self.url = url
        self.sealer = Sealer.from_setting(MASTER_KEYS)
        self.driver = SandboxDriver()

    async def add_account(self, name: str = "main", **config: Any) -> str:
        """Known here and at the channel. All accounts of these tests share keys; their merchants differ."""
        account = replace(self.driver.account(self.url), name=name, **config)
        credentials = account.credentials | {"merchant_id": f"m-{name}"}
        await put_account(self.resources.db, self.sealer, replace(account, credentials=credentials))
        far = self.driver.simulator_account()
        self.far_side.accounts[f"m-{name}"] = Account(name=name, merchant_id=f"m-{name}", keys=far.keys)
        return name

    # -- the merchant --------------------------------------------------------------------------------------------------

    async def place(self, account: str | None = "main", *, expires_in_s: float = 600.0, **terms: Any) -> Placed:
        payment = None if account is None else PaymentRequest(account=account)
        return await place_order(self.resources, order_terms(**terms), payment, expires_in_s=expires_in_s)

    async def placed(self, account: str = "main", **more: Any) -> OrderState:
        """An order with something to pay."""
        state = (await self.place(account, **more)).state
        assert state.payments[0].checkout is not None
        return state

    # -- the channel ---------------------------------------------------------------------------------------------------

    def pay(self, payment: Payment) -> None:
        """The buyer pays; the callback is lost."""
        self.far_side.pay(self.key_of(payment), AtFault(callback="event_never_generated"))

    def call_fault(self, payment: Payment, fault: str) -> None:
        """From now on calls about this payment go wrong like this; `none`: no more."""
        self.far_side.faults.force(payment.out_trade_no, AtFault(call=fault))

    def status_at_channel(self, payment: Payment) -> str | None:
        found = self.far_side.ledger.find(self.key_of(payment), self.far_side.now())
        return None if found is None else str(found.status)

    def key_of(self, payment: Payment) -> LedgerKey:
        return LedgerKey(f"m-{payment.channel_account}", payment.out_trade_no)

    def transaction_of(self, payment: Payment) -> str:
        found = self.far_side.ledger.find(self.key_of(payment), self.far_side.now())
        assert found is not None
        return found.transaction_id or ""

    def calls(self, kind: str = "query") -> int:
        """How many calls of this kind have arrived."""
        return self.far_side.traffic.counters[f"calls_{kind}"]

    def callback(self, payment: Payment, *, age_s: float = 0.0, key: Key = Key.NEW, **report: Any) -> CallbackRequest:
        """A callback, genuine unless the key is a stranger's, that says what a test wants to have said."""
        merchant = f"m-{payment.channel_account}"
        told = PaymentReport(
            **{"number": payment.out_trade_no, "merchant": merchant, "transaction": "t" * 24, **report}
        )
        notification_id = f"cb_{uuid4().hex[:24]}"
        body = self.driver.render_callback(told, notification_id)
        self.driver.merchant_id = merchant
        return self.driver.sign_callback(body, notification_id, at=time.time() - age_s, key=key)

    async def receive(self, account: str, sent: CallbackRequest) -> Acknowledgement:
        """A callback comes in."""
        return await receive_callback(self.resources, account, sent.headers, sent.body)

    # -- what became of it ---------------------------------------------------------------------------------------------

    async def state(self, before: OrderState | str) -> OrderState:
        found = await find_state(self.resources.db, before if isinstance(before, str) else before.order.order_no)
        assert found is not None
        return found

    async def cases(self, order_no: str | None = None) -> list[str]:
        rows, _ = await list_cases(self.resources.db, order_no=order_no, limit=200)
        return sorted(row.reason for row in rows)

    async def row(self, account: str, number: str) -> Row | None:
        """The pending row of a payment, or of an order's deadline when the account is empty."""
        sql = """SELECT attempt, arm_no, extract(epoch FROM due_at - now())::float8 AS due_in_s,
                        coalesce(leased_until > now(), false) AS is_leased
                   FROM pending WHERE channel_account = $1 AND out_trade_no = $2"""
        row = await self.resources.db.fetchrow(sql, account, number)
        return None if row is None else Row(**dict(row))

    async def overdue(self, state: OrderState) -> OrderState:
        """Let the order's deadline pass. Its history lacks the version that this takes."""
        sql = "UPDATE orders SET expires_at = now(), version = version + 1 WHERE order_no = $1"
        assert await self.resources.db.execute(sql, state.order.order_no) == 1
        return await self.state(state)

    async def one(self, sql: str, *args: object) -> object:
        return await self.resources.db.fetchval(sql, *args)


def order_terms(**more: Any) -> OrderTerms:
    terms: dict[str, Any] = {
        "order_no": f"F-{uuid4().hex[:12]}",
        "amount": AMOUNT,
        "currency": "CNY",
        "subject": "Tea, 250 g",
    }
    return OrderTerms(**terms | more)


@pytest.fixture(scope="session")
def flows_database_url(postgres: EmbeddedPostgres, template_database: str) -> str:
    """One database for all of these tests, emptied before each: a second cheaper, every time, than a clone."""
    postgres.create_database("flows", template_database)
    return postgres.url("flows")


@pytest.fixture
def settings(flows_database_url: str, redis_url: str) -> Settings:
    return Settings(
        database_url=flows_database_url,
        redis_url=redis_url,
        public_url="http://127.0.0.1:9",
        nodrop_master_keys=MASTER_KEYS,
        notify_secrets=NOTIFY_SECRETS[0],
        notify_allow_nets="127.0.0.1/32",
        notify_timeout_s=1.0,
        channel_timeout_s=1.0,
        callback_confirm_s=1.5,
        refresh_cooldown_s=2.0,
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[tuple[str, Simulation]]:
    async with serve_channels(seed=7) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        await opened.db.execute(_EMPTY)
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def harness(resources: Resources, running: tuple[str, Simulation]) -> FlowHarness:
    """With one account, `main`, and a channel that does everything right."""
    url, far_side = running
    await far_side.reset(7)
    opened = FlowHarness(resources, far_side, url)
    await opened.add_account("main")
    return opened
