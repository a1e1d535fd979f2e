"""Each channel's adapter against its simulated far side over HTTP, with a middleman who alters what passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.base import Channel, Create, Created, MalformedRow, Payer, StatementRow
from channels.transport import Transport
from core.evidence import Evidence, Paid
from core.order import Payment, PaymentStatus
from simulator.kernel.faults import CallKind
from simulator.kernel.ledger import Key as LedgerKey
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from tests.channels.alipay.driver import AlipayDriver
from tests.channels.driver import NUMBER, OFFLINE_URL, REFUND_NO, Driver, Key, Said
from tests.channels.paypal.driver import PaypalDriver
from tests.channels.sandbox.driver import SandboxDriver
from tests.channels.stripe.driver import StripeDriver
from tests.channels.wechatpay.driver import WechatPayDriver
from tests.channels.wire import Answered, Asked, Middleman, listening

DRIVERS: tuple[Driver, ...] = (SandboxDriver(), AlipayDriver(), PaypalDriver(), WechatPayDriver(), StripeDriver())
"""A further channel is one more entry."""

HERE = Path(__file__).parent
CALLBACK_URL = "http://127.0.0.1:9/callbacks/main"
PRECEDING = (CallKind.TOKEN, CallKind.CERTIFICATES)

each_driver = pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.channel)
"""For tests to which hypothesis gives examples, and which a fixture would give only one driver for all of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The far side serves the whole session, so these tests share its event loop."""
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class Running(NamedTuple):
    """What serves the whole session: the far side of every channel, and a middleman and an adapter before each."""

    far_side: Simulation
    middlemen: dict[str, tuple[Middleman, str]]
    transport: Transport
    adapters: dict[str, Channel]


class Far:
    """One account, from both sides: its adapter and its row here, its ledger there, and the middleman between them."""

    def __init__(self, driver: Driver, running: Running) -> None:
        self.driver = driver
        self.far_side = running.far_side
        self.middleman, self.url = running.middlemen[driver.channel]
        self.transport = running.transport
        self.account = driver.far_account(CALLBACK_URL)
        self.adapter = running.adapters.get(driver.channel) or self.open(Key.NEW, Key.OLD)
        running.adapters[driver.channel] = self.adapter
        self.row = known(driver)

    def open(self, *keys: Key, transport: Transport | None = None) -> Channel:
        """The account with these keys, the first of which signs."""
        return open_channel(self.driver.account(self.url, *keys), transport or self.transport)

    async def create(self, row: Payment | None = None, *, callback_url: str = CALLBACK_URL) -> Created:
        """Create it, and keep the reference that came back in our row."""
        asked = row or self.driver.payment()
        created = await self.adapter.create_payment(create(asked, callback_url))
        self.row = replace(asked, channel_reference=created.channel_reference)
        return created

    def see(self) -> None:
        """The buyer looks at the pay page: from then on every channel knows the payment."""
        self.far_side.open(self._key)

    async def pay(self) -> LedgerPayment:
        """The buyer pays, and where the channel waits to be asked for the money, it is asked."""
        self.agree()
        if self.driver.needs_capture:
            await self.adapter.capture_payment(self.row)
        (paid,) = [one for one in self.payments() if one.key == self._key]
        assert paid.status.was_paid
        return paid

    def agree(self) -> None:
        """The buyer does the own part, with which most channels take the money."""
        self.see()
        agreed = self.far_side.pay(self._key)
        assert isinstance(agreed, LedgerPayment)

    async def query(self) -> Evidence:
        return await self.adapter.query_payment(self.row)

    async def buy(self) -> LedgerPayment:
        """Created, paid, and our row paid by what a query told."""
        await self.create()
        paid = await self.pay()
        told = await self.query()
        assert isinstance(told, Paid)
        self.row = replace(
            self.row,
            status=PaymentStatus.PAID,
            channel_transaction_id=told.channel_transaction_id,
            paid_at=told.at,
        )
        return paid

    def refund(self, amount: int, refund_no: str = REFUND_NO) -> None:
        """Given back in the channel's console, not by us."""
        self.far_side.refund(self.account, self._key.number, refund_no, amount, self.far_side.now())

    def payments(self) -> list[LedgerPayment]:
        return list(self.far_side.ledger.payments(self.far_side.now()))

    def says(self, said: Said, *, key: Key = Key.NEW) -> None:
        """From now on queries are answered with this, well signed."""
        self.answers(lambda asked: self.driver.answer(asked, 200, self.driver.render(said), key=key))

    def answers(self, answer: Callable[[Asked], Answered | bytes | None], *, to: CallKind = CallKind.QUERY) -> None:
        """From now on calls of this kind, and no others, are answered with this."""
        made_as = self.driver.asked_as.get(to, to)

        def spoil(asked: Asked, answered: Answered) -> Answered | bytes | None:
            return answer(asked) if self.driver.kind(asked) is made_as else answered

        self.middleman.spoil = spoil

    def asked(self, kind: CallKind) -> list[Asked]:
        """The calls of this kind that have been made."""
        made_as = self.driver.asked_as.get(kind, kind)
        return [asked for asked, _ in self.middleman.passed if self.driver.kind(asked) is made_as]

    @property
    def _key(self) -> LedgerKey:
        return LedgerKey(self.driver.merchant_id, self.row.out_trade_no)


def known(driver: Driver, number: str = NUMBER) -> Payment:
    """Our row of a payment that the channel knows, without having been asked to create it."""
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


def needs_signatures(far: Far) -> None:
    if not far.driver.answers_are_signed:
        pytest.skip("this channel does not sign its answers: TLS says who answers")


async def rows_of(far: Far, day: date) -> list[StatementRow | MalformedRow]:
    """The statement of the day, fetched and read."""
    with TemporaryFile() as file:
        await far.adapter.fetch_statement(day, file)
        file.seek(0)
        return list(far.adapter.parse_statement(file))


_offline: dict[tuple[str, tuple[Key, ...]], Channel] = {}


def opened_offline(driver: Driver, *keys: Key) -> Channel:
    """One adapter for the session: what it fetches in order to verify the driver answers, and nothing else."""
    opened = _offline.get((driver.channel, keys))
    if opened is None:
        opened = _offline[driver.channel, keys] = _open_offline(driver, *keys)
    return opened


def _open_offline(driver: Driver, *keys: Key) -> Channel:
    def told(request: httpx.Request) -> httpx.Response:
        asked = as_asked(request)
        if driver.kind(asked) not in PRECEDING:
            return httpx.Response(500)
        return as_response(driver.aside(asked))

    nobody = Transport(timeout_s=1, transport=httpx.MockTransport(told))
    return open_channel(driver.account(OFFLINE_URL, *keys), nobody)


def as_asked(request: httpx.Request) -> Asked:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Asked(request.method, request.url.raw_path.decode(), headers, request.content, b"")


def as_response(answered: Answered) -> httpx.Response:
    status, headers, body = answered
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def assert_tells_no_secret(told: object, credentials: object) -> None:
    """No text of the credentials that is long enough to be a secret is in it, nor a line of one."""
    if isinstance(credentials, dict):
        for value in credentials.values():
            assert_tells_no_secret(told, value)
    elif isinstance(credentials, list | tuple):
        for value in credentials:
            assert_tells_no_secret(told, value)
    else:
        lines = [line for line in str(credentials).splitlines() if len(line) >= 32]
        assert not [line for line in lines if line in str(told)]


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.channel)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
def offline(driver: Driver) -> Channel:
    """The adapter for what needs no wire: callbacks, acknowledgements, statements."""
    return opened_offline(driver, Key.NEW, Key.OLD)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        _, far_side = await stack.enter_async_context(serve_channels(seed=7))
        middlemen = {}
        for channel, url in far_side.urls.items():
            middleman = Middleman(url)
            peer = await stack.enter_async_context(listening(middleman.talk))
            middlemen[channel] = middleman, peer.url
        yield Running(far_side, middlemen, await stack.enter_async_context(Transport(timeout_s=2.0)), {})


@pytest_asyncio.fixture(loop_scope="session")
async def far(driver: Driver, running: Running) -> Far:
    """Empty books, nobody altering anything."""
    await running.far_side.reset(7)
    found = Far(driver, running)
    running.far_side.accounts[found.account.merchant_id] = found.account
    found.middleman.spoil, found.middleman.passed = lambda _, answered: answered, []
    return found
