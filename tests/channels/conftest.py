"""Each channel's adapter against its simulated far side over HTTP, with a middleman who alters what passes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from channels.adapters import open_channel
from channels.base import Channel, Create, Created
from channels.transport import Transport
from core.order import Payment
from simulator.far_side import FarSide
from simulator.ledger import Key as LedgerKey
from simulator.ledger import Payment as LedgerPayment
from simulator.running import running_channel
from tests.channels.driver import Driver, Key, Said, payment
from tests.channels.sandbox_driver import SandboxDriver
from tests.channels.wire import Answered, Asked, Middleman, listening

DRIVERS: tuple[Driver, ...] = (SandboxDriver(),)
"""A further channel is one more entry."""

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The far side serves the whole session, so these tests share its event loop."""
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class Far:
    """One account, from both sides: its adapter here, its ledger there, and the middleman between them."""

    def __init__(self, driver: Driver, far_side: FarSide, middleman: Middleman, url: str, transport: Transport) -> None:
        self.driver = driver
        self.far_side = far_side
        self.middleman = middleman
        self.url = url
        self.transport = transport
        self.adapter = self.open(Key.NEW, Key.OLD)

    def open(self, *keys: Key) -> Channel:
        """The account with these keys, the first of which signs."""
        return open_channel(self.driver.account(self.url, *keys), self.transport)

    async def create(self, row: Payment | None = None) -> Created:
        return await self.adapter.create_payment(create(row or payment()))

    def pay(self) -> LedgerPayment:
        paid = self.far_side.pay(self._key)
        assert isinstance(paid, LedgerPayment)
        return paid

    def refund(self, amount: int, refund_no: str = "R-000001") -> None:
        account = self.driver.far_account()
        self.far_side.refund(account, self._key.number, refund_no, amount, self.far_side.now())

    def payments(self) -> list[LedgerPayment]:
        return list(self.far_side.ledger.payments(self.far_side.now()))

    def says(self, said: Said, *, key: Key = Key.NEW) -> None:
        """From now on queries are answered with this, well signed."""
        self.answers(lambda asked: self.driver.sign_answer(asked, 200, self.driver.render(said), key=key))

    def answers(self, answer: Callable[[Asked], Answered | bytes]) -> None:
        """From now on every call is answered with this."""
        self.middleman.spoil = lambda asked, _: answer(asked)

    @property
    def _key(self) -> LedgerKey:
        return LedgerKey(self.driver.merchant_id, payment().out_trade_no)


def create(row: Payment) -> Create:
    return Create(
        payment=row,
        subject="Tea, 250 g",
        callback_url="http://127.0.0.1:9/callbacks/main",
        return_url="http://127.0.0.1:9/o/token/return",
    )


def opened_offline(driver: Driver, *keys: Key) -> Channel:
    nobody = Transport(timeout_s=1, transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    return open_channel(driver.account("http://127.0.0.1:9", *keys), nobody)


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.channel)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
def offline(driver: Driver) -> Channel:
    """The adapter for what needs no wire: callbacks, acknowledgements, statements."""
    return opened_offline(driver, Key.NEW, Key.OLD)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[tuple[FarSide, Middleman, str, Transport]]:
    async with AsyncExitStack() as stack:
        behind, far_side = await stack.enter_async_context(running_channel(seed=7))
        middleman = Middleman(behind)
        peer = await stack.enter_async_context(listening(middleman.talk))
        transport = await stack.enter_async_context(Transport(timeout_s=2.0))
        yield far_side, middleman, peer.url, transport


@pytest_asyncio.fixture(loop_scope="session")
async def far(driver: Driver, running: tuple[FarSide, Middleman, str, Transport]) -> Far:
    """Empty books, nobody altering anything."""
    far_side, middleman, url, transport = running
    await far_side.reset(7)
    account = driver.far_account()
    far_side.accounts[account.merchant_id] = account
    middleman.spoil, middleman.passed = lambda _, answered: answered, []
    return Far(driver, far_side, middleman, url, transport)
