"""Fixtures: each channel's adapter against its simulator over HTTP, with a proxy that alters responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import date
from tempfile import TemporaryFile
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.base import Channel, Create, Created, MalformedRow, StatedTotal, StatementItem, StatementRow
from channels.transport import Transport
from core.checkout import Payer
from core.evidence import Evidence, Paid
from core.order import Payment, PaymentStatus
from simulator.kernel.faults import CallKind
from simulator.kernel.ledger import Key as LedgerKey
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kernel.ledger import Refund as LedgerRefund
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from tests.channels.alipay.driver import AlipayDriver
from tests.channels.driver import Driver
from tests.channels.httpx_carrier import responding
from tests.channels.paypal.driver import PaypalDriver
from tests.channels.reports import NUMBER, OFFLINE_URL, REFUND_NO, Key, PaymentReport
from tests.channels.sandbox.driver import SandboxDriver
from tests.channels.stripe.driver import StripeDriver
from tests.channels.wechatpay.driver import WechatPayDriver
from tests.channels.wire import Proxy, WireRequest, WireResponse, serving
from tests.shared_loop import share_loop

DRIVERS: tuple[Driver, ...] = (SandboxDriver(), AlipayDriver(), PaypalDriver(), WechatPayDriver(), StripeDriver())
"""A further channel adds one entry."""

HERE = "tests/channels/"
CALLBACK_URL = "http://127.0.0.1:9/callbacks/main"
PRECEDING = (CallKind.TOKEN, CallKind.CERTIFICATES)

each_driver = pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.channel)
"""For hypothesis tests, where a fixture would give one driver to all examples."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The simulated channels serve the whole session, so these tests share their event loop."""
    share_loop(items, HERE)


class Running(NamedTuple):
    """The session's servers: the simulator of every channel, with a proxy and an adapter for each."""

    far_side: Simulation
    proxies: dict[str, tuple[Proxy, str]]
    transport: Transport
    adapters: dict[str, Channel]


class Env:
    """One account's environment: adapter and payment row on our side, the simulator's ledger, the proxy between."""

    def __init__(self, driver: Driver, running: Running) -> None:
        self.driver = driver
        self.far_side = running.far_side
        self.proxy, self.url = running.proxies[driver.channel]
        self.transport = running.transport
        self.account = driver.simulator_account(CALLBACK_URL)
        self.adapter = running.adapters.get(driver.channel) or self.open(Key.NEW, Key.OLD)
        running.adapters[driver.channel] = self.adapter
        self.row = known(driver)

    def open(self, *keys: Key, transport: Transport | None = None) -> Channel:
        """The adapter with these keys, the first of which signs."""
        return open_channel(self.driver.account(self.url, *keys), transport or self.transport)

    async def create(self, row: Payment | None = None, *, callback_url: str = CALLBACK_URL) -> Created:
        """Create the payment and store the returned reference in our row."""
        requested = row or self.driver.payment()
        created = await self.adapter.create_payment(create(requested, callback_url))
        self.row = replace(requested, channel_reference=created.channel_reference)
        return created

    def see(self) -> None:
        """Open the pay page as the buyer: from then on every channel knows the payment."""
        self.far_side.open(self._key)

    async def pay(self) -> LedgerPayment:
        """Pay as the buyer, and capture where the channel needs it."""
        self.agree()
        if self.driver.needs_capture:
            await self.adapter.capture_payment(self.row)
        (paid,) = [one for one in self.payments() if one.key == self._key]
        assert paid.status.was_paid
        return paid

    def agree(self) -> None:
        """Do the buyer's part; most channels take the money with it."""
        self.see()
        agreed = self.far_side.pay(self._key)
        assert isinstance(agreed, LedgerPayment)

    async def query(self) -> Evidence:
        return await self.adapter.query_payment(self.row)

    async def buy(self) -> LedgerPayment:
        """Create and pay the payment, and mark our row as paid by the query's evidence."""
        await self.create()
        paid = await self.pay()
        evidence = await self.query()
        assert isinstance(evidence, Paid)
        self.row = replace(
            self.row,
            status=PaymentStatus.PAID,
            channel_transaction_id=evidence.channel_transaction_id,
            paid_at=evidence.at,
        )
        return paid

    def refund(self, amount: int, refund_no: str = REFUND_NO) -> None:
        """Refund in the channel's console, not by us."""
        self.far_side.refund(self.account, self._key.number, refund_no, amount, self.far_side.now())

    def refund_in_console(self, amount: int | None = None) -> str:
        """Refund in the channel's console; return the number that the channel has it by."""
        refund = self.far_side.refund_in_console(self._key, amount)
        assert isinstance(refund, LedgerRefund), refund
        return refund.refund_no

    def payments(self) -> list[LedgerPayment]:
        return list(self.far_side.ledger.payments(self.far_side.now()))

    def set_report(self, report: PaymentReport, *, key: Key = Key.NEW) -> None:
        """Answer every query from now on with this report, correctly signed."""
        self.set_response(
            lambda request: self.driver.signed_response(request, 200, self.driver.render(report), key=key)
        )

    def set_response(
        self, answer: Callable[[WireRequest], WireResponse | bytes | None], *, to: CallKind = CallKind.QUERY
    ) -> None:
        """Answer every call of this kind, and no other, from now on with this response."""
        made_as = self.driver.sent_as.get(to, to)

        def alter(request: WireRequest, response: WireResponse) -> WireResponse | bytes | None:
            return answer(request) if self.driver.kind(request) is made_as else response

        self.proxy.alter = alter

    def calls(self, kind: CallKind) -> list[WireRequest]:
        """Requests of this kind so far."""
        made_as = self.driver.sent_as.get(kind, kind)
        return [request for request, _ in self.proxy.exchanges if self.driver.kind(request) is made_as]

    @property
    def _key(self) -> LedgerKey:
        return LedgerKey(self.driver.merchant_id, self.row.out_trade_no)


def known(driver: Driver, number: str = NUMBER) -> Payment:
    """Our row of a payment that the channel knows without a creation call."""
    reference = driver.reference if number == NUMBER else driver.other_reference
    return replace(driver.payment(number), channel_reference=reference)


def create(row: Payment, callback_url: str = CALLBACK_URL) -> Create:
    return Create(
        payment=row,
        subject="Tea, 250 g",
        callback_url=callback_url,
        return_url="http://127.0.0.1:9/o/token/return",
        payer=Payer(openid="openid-of-a-buyer", client_ip="203.0.113.7"),
    )


def needs_signatures(env: Env) -> None:
    if not env.driver.responses_are_signed:
        pytest.skip("this channel does not sign its responses: TLS authenticates it")


async def rows_of(env: Env, day: date) -> list[StatementRow | MalformedRow]:
    """Rows of the day's statement, fetched and parsed."""
    with TemporaryFile() as file:
        await env.adapter.fetch_statement(day, file)
        file.seek(0)
        return rows_in(env.adapter.parse_statement(file))


def rows_in(items: Iterable[StatementItem]) -> list[StatementRow | MalformedRow]:
    """The rows among what is read from a statement."""
    return [item for item in items if not isinstance(item, StatedTotal)]


_offline: dict[tuple[str, tuple[Key, ...]], Channel] = {}


def opened_offline(driver: Driver, *keys: Key) -> Channel:
    """One adapter for the session; the driver serves what it fetches in order to verify, and nothing else."""
    opened = _offline.get((driver.channel, keys))
    if opened is None:
        opened = _offline[driver.channel, keys] = _open_offline(driver, *keys)
    return opened


def _open_offline(driver: Driver, *keys: Key) -> Channel:
    def respond(http_request: httpx.Request) -> httpx.Response:
        request = wire_request(http_request)
        if driver.kind(request) not in PRECEDING:
            return httpx.Response(500)
        return httpx_response(driver.preceding_response(request))

    nobody = Transport(timeout_s=20, carrier=responding(respond))
    return open_channel(driver.account(OFFLINE_URL, *keys), nobody)


def wire_request(http_request: httpx.Request) -> WireRequest:
    """The request as it goes out: the client below adds the host of the address."""
    own = {name.lower(): value for name, value in http_request.headers.items()}
    headers = {"host": http_request.url.netloc.decode()} | own
    return WireRequest(http_request.method, http_request.url.raw_path.decode(), headers, http_request.content, b"")


def httpx_response(response: WireResponse) -> httpx.Response:
    status, headers, body = response
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def assert_without_secrets(text: object, credentials: object) -> None:
    """Assert that the text contains no line of the credentials that is long enough to be a secret."""
    if isinstance(credentials, dict):
        for value in credentials.values():
            assert_without_secrets(text, value)
    elif isinstance(credentials, list | tuple):
        for value in credentials:
            assert_without_secrets(text, value)
    else:
        lines = [line for line in str(credentials).splitlines() if len(line) >= 32]
        assert not [line for line in lines if line in str(text)]


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.channel)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
def offline(driver: Driver) -> Channel:
    """The adapter for everything without a connection: callbacks, acknowledgements, statements."""
    return opened_offline(driver, Key.NEW, Key.OLD)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        _, far_side = await stack.enter_async_context(serve_channels(seed=7))
        proxies = {}
        for channel, url in far_side.urls.items():
            proxy = Proxy(url)
            peer = await stack.enter_async_context(serving(proxy.talk))
            proxies[channel] = proxy, peer.url
        yield Running(far_side, proxies, await stack.enter_async_context(Transport(timeout_s=60)), {})


@pytest_asyncio.fixture(loop_scope="session")
async def env(driver: Driver, running: Running) -> Env:
    """An environment with an empty ledger and unaltered responses."""
    await running.far_side.reset(7)
    found = Env(driver, running)
    running.far_side.accounts[found.account.merchant_id] = found.account
    found.proxy.alter, found.proxy.exchanges = lambda _, response: response, []
    return found
