"""Fixtures of the flows' tests: real stores and the simulated channel over HTTP. A test moves due times in Postgres."""

import asyncio
import base64
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.base import Acknowledgement
from core.decision import Outcome
from core.lifecycle import LatePolicy, OrderTerms
from core.order import OrderState, OrderStatus, Payment
from core.settings import Settings
from flows.callback import receive_callback
from flows.close import close_scheduled, request_close
from flows.notify import Notifier
from flows.place import PaymentRequest, Placed, Watch, place_order
from flows.query import query_scheduled
from flows.sweep import sweep_once, swept_kinds
from runtime.resources import Resources, open_resources
from simulator.kernel.base import Account
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key as LedgerKey
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kernel.ledger import Terms
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from storage.postgres.accounts import put_account
from storage.postgres.cases import list_cases
from storage.postgres.orders import find_state
from storage.sealing import Sealer
from tests.channels.reports import CallbackRequest, Key, PaymentReport
from tests.channels.sandbox.driver import SandboxDriver
from tests.shared_loop import share_loop

HERE = "tests/flows/"
MASTER_KEYS = f"test:{base64.urlsafe_b64encode(bytes(32)).decode()}"
NOTIFY_SECRETS = tuple("whsec_" + base64.b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))
AMOUNT = 8888
HOOK = "https://merchant.example/hook"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these tests on the event loop of the session, because the simulated channel serves the whole session."""
    share_loop(items, HERE)


class PendingRow(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of a pending row that tests compare."""

    attempt: int
    arm_no: int
    due_in_s: float
    is_leased: bool


class FlowHarness:
    """One process's resources, the simulation of its accounts, and the actions of a test on both."""

    def __init__(self, resources: Resources, simulation: Simulation, url: str) -> None:
        self.resources = resources
        self.simulation = simulation
        self.url = url
        self.sealer = Sealer.from_setting(MASTER_KEYS)
        self.driver = SandboxDriver()

    async def add_account(self, name: str = "main", **config: Any) -> str:
        """Add an account here and at the channel. The accounts of these tests share keys; their merchants differ."""
        account = replace(self.driver.account(self.url), name=name, **config)
        credentials = account.credentials | {"merchant_id": f"m-{name}"}
        await put_account(self.resources.db, self.sealer, replace(account, credentials=credentials))
        simulated = self.driver.simulator_account()
        self.simulation.accounts[f"m-{name}"] = Account(name=name, merchant_id=f"m-{name}", keys=simulated.keys)
        return name

    # -- the merchant -------------------------------------------------------------------------------------------------

    async def place(self, account: str | None = "main", *, expires_in_s: float = 600.0, **terms: Any) -> Placed:
        payment = None if account is None else PaymentRequest(account=account)
        return await place_order(self.resources, order_terms(**terms), payment, expires_in_s=expires_in_s)

    async def placed_order(self, account: str = "main", **more: Any) -> OrderState:
        """Place an order whose payment has a checkout, and return its state."""
        state = (await self.place(account, **more)).state
        assert state.payments[0].checkout is not None
        return state

    async def watched_order(self, *, ends_in: timedelta = timedelta(days=1), **terms: Any) -> OrderState:
        """Place an order that watches a payment of another system, which ends at its channel in so long."""
        wanted, now = order_terms(**terms), self.simulation.now()
        number = f"elsewhere-{uuid4().hex[:12]}"
        at_channel = Terms(
            out_trade_no=number,
            amount=wanted.amount,
            currency=wanted.currency,
            subject=wanted.subject,
            expires_at=now + ends_in,
            callback_url="http://127.0.0.1:9/callbacks/main",
            return_url="http://127.0.0.1:9",
        )
        self.simulation.create(self.simulation.accounts["m-main"], at_channel, now)
        request = PaymentRequest(account="main", watch=Watch(out_trade_no=number))
        return (await place_order(self.resources, wanted, request, expires_in_s=600)).state

    # -- the channel --------------------------------------------------------------------------------------------------

    def pay(self, payment: Payment) -> None:
        """Pay as the buyer, without a callback."""
        self.simulation.pay(self.key_of(payment), AtFault(callback="event_never_generated"))

    @contextmanager
    def short_timeouts(self, *, channel_s: float = 0.5, confirm_s: float = 1.0) -> Iterator[None]:
        """Let calls and confirmations end soon in this block, where they are meant to. All others have time."""
        patient, transport = self.resources, self.resources.accounts._transport
        settings = replace(patient.settings, callback_confirm_s=confirm_s)
        self.resources = dataclasses.replace(patient, settings=settings)
        timeout_s, transport.timeout_s = transport.timeout_s, channel_s
        try:
            yield
        finally:
            self.resources, transport.timeout_s = patient, timeout_s

    def call_fault(self, payment: Payment, fault: str) -> None:
        """Let calls about this payment fail with this fault from now on; `none` ends it."""
        self.simulation.faults.force(payment.out_trade_no, AtFault(call=fault))

    def status_at_channel(self, payment: Payment) -> str | None:
        payment_at_channel = self.simulation.ledger.find(self.key_of(payment), self.simulation.now())
        return None if payment_at_channel is None else str(payment_at_channel.status)

    def key_of(self, payment: Payment) -> LedgerKey:
        return LedgerKey(f"m-{payment.channel_account}", payment.out_trade_no)

    def transaction_of(self, payment: Payment) -> str:
        payment_at_channel = self.simulation.ledger.find(self.key_of(payment), self.simulation.now())
        assert payment_at_channel is not None
        return payment_at_channel.transaction_id or ""

    def call_count(self, kind: str = "query") -> int:
        """Number of calls of this kind that reached the channel."""
        return self.simulation.traffic.counters[f"calls_{kind}"]

    def callback(self, payment: Payment, *, age_s: float = 0.0, key: Key = Key.NEW, **report: Any) -> CallbackRequest:
        """A callback with this report. It is genuine unless `key` is Key.STRANGER."""
        merchant = f"m-{payment.channel_account}"
        content = PaymentReport(
            **{"number": payment.out_trade_no, "merchant": merchant, "transaction": "t" * 24, **report}
        )
        notification_id = f"cb_{uuid4().hex[:24]}"
        body = self.driver.render_callback(content, notification_id)
        self.driver.merchant_id = merchant
        return self.driver.sign_callback(body, notification_id, at=time.time() - age_s, key=key)

    async def receive(self, account: str, callback: CallbackRequest) -> Acknowledgement:
        """Receive a callback as the API does."""
        return await receive_callback(self.resources, account, callback.headers, callback.body)

    async def order_with_late_money(self, policy: LatePolicy = LatePolicy.REFUND, **config: Any) -> OrderState:
        """State of an order that was closed at its channel and whose money arrived later."""
        account = await self.add_account(f"late-{policy}", late_policy=policy, **config)
        state = await self.placed_order(account, notify_url=HOOK)
        assert (await request_close(self.resources, state.order.order_no)).order.status is OrderStatus.CLOSED
        paid = self.simulation.ledger.settle_late(self.key_of(state.payments[0]), self.simulation.now())
        assert isinstance(paid, LedgerPayment)
        await self.receive(account, self.callback(state.payments[0], transaction=paid.transaction_id))
        return await self.state(state)

    # -- armed jobs ----------------------------------------------------------------------------------------------------

    async def run_query_job(self, state: OrderState, index: int = 0) -> Outcome:
        payment = state.payments[index]
        row = await self.pending_row(payment.channel_account, payment.out_trade_no)
        assert row is not None
        await self.make_due()
        return await query_scheduled(self.resources, payment.key, row.arm_no)

    async def run_close_job(self, state: OrderState) -> Outcome:
        row = await self.pending_row("", state.order.order_no)
        assert row is not None
        await self.make_due()
        return await close_scheduled(self.resources, state.order.order_no, row.arm_no)

    async def sweep(self, name: str) -> int:
        """One turn of the sweep of this kind; returns the number of rows."""
        async with Notifier(self.resources.settings) as notifier:
            [kind] = [kind for kind in swept_kinds(self.resources, notifier) if kind.name == name]
            return await sweep_once(self.resources.settings, kind, asyncio.Event())

    async def make_due(self) -> None:
        """Let the time pass until all work is due."""
        for table in ("pending", "callbacks", "notifications", "refunds"):
            sql = f"UPDATE {table} SET due_at = clock_timestamp() WHERE due_at > clock_timestamp()"  # noqa: S608 - ours
            await self.resources.db.execute(sql)

    # -- results ------------------------------------------------------------------------------------------------------

    async def state(self, order: OrderState | str) -> OrderState:
        state = await find_state(self.resources.db, order if isinstance(order, str) else order.order.order_no)
        assert state is not None
        return state

    async def cases(self, order_no: str | None = None) -> list[str]:
        rows, _ = await list_cases(self.resources.db, order_no=order_no, limit=200)
        return sorted(row.reason for row in rows)

    async def pending_row(self, account: str, number: str) -> PendingRow | None:
        """The pending row of a payment, or of an order's deadline when the account is empty."""
        sql = """SELECT attempt, arm_no, extract(epoch FROM due_at - now())::float8 AS due_in_s,
                        coalesce(leased_until > now(), false) AS is_leased
                   FROM pending WHERE channel_account = $1 AND out_trade_no = $2"""
        row = await self.resources.db.fetchrow(sql, account, number)
        return None if row is None else PendingRow(**dict(row))

    async def pass_deadline(self, state: OrderState) -> OrderState:
        """Move the deadline of the order to now. The history lacks the version that this uses."""
        sql = "UPDATE orders SET expires_at = now(), version = version + 1 WHERE order_no = $1"
        assert await self.resources.db.execute(sql, state.order.order_no) == 1
        return await self.state(state)

    async def fetch_value(self, sql: str, *args: object) -> object:
        return await self.resources.db.fetchval(sql, *args)


def order_terms(**more: Any) -> OrderTerms:
    terms: dict[str, Any] = {
        "order_no": f"F-{uuid4().hex[:12]}",
        "amount": AMOUNT,
        "currency": "CNY",
        "subject": "Tea, 250 g",
    }
    return OrderTerms(**terms | more)


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings that give every call time, also on a busy machine."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        public_url="http://127.0.0.1:9",
        nodrop_master_keys=MASTER_KEYS,
        notify_secrets=NOTIFY_SECRETS[0],
        notify_allow_nets="127.0.0.1/32",
        notify_timeout_s=20.0,
        channel_timeout_s=20.0,
        callback_confirm_s=25.0,
        refresh_cooldown_s=2.0,
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[tuple[str, Simulation]]:
    async with serve_channels(seed=7) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        opened.admission.count_with_older(are_there=False)
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def harness(resources: Resources, running: tuple[str, Simulation]) -> FlowHarness:
    """A harness with one account, `main`, and a channel without faults."""
    url, simulation = running
    await simulation.reset(7)
    harness = FlowHarness(resources, simulation, url)
    await harness.add_account("main")
    return harness
