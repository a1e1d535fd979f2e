"""Accounts of a process: what an operator changes is in force within seconds, and an outage changes nothing."""

import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.transport import Transport
from core.decision import Outcome
from core.errors import ConfigurationError, DatabaseUnavailable, UnknownAccount
from core.lifecycle import LatePolicy
from core.order import OrderStatus
from core.settings import Settings
from flows.close import request_close
from flows.place import PaymentRequest, place_order, start_payment
from flows.query import query_scheduled
from runtime.accounts import RELOAD_S, UNKNOWN_RELOAD_S, Accounts
from storage.postgres.accounts import enable_account, put_account
from storage.postgres.database import Database
from storage.postgres.sealing import Sealer
from tests.flows.conftest import FlowHarness, order_terms


class Flaky(Database):
    """Postgres, which goes away when it is told to."""

    gone = False
    reads = 0

    async def fetch(self, sql: str, *args: object) -> list[object]:
        self.reads += 1
        if self.gone:
            raise DatabaseUnavailable("gone")
        return await super().fetch(sql, *args)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(loop_scope="session")
async def db(settings: Settings, harness: FlowHarness) -> AsyncIterator[Flaky]:
    opened = Flaky.from_settings(settings)
    assert isinstance(opened, Flaky)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def accounts(db: Flaky, harness: FlowHarness, clock: Clock) -> AsyncIterator[Accounts]:
    async with Transport(timeout_s=1) as transport:
        yield Accounts(db, harness.sealer, transport, harness.resources.settings, clock=clock)


async def test_a_change_is_in_force_after_the_interval_and_not_read_before(
    harness: FlowHarness, accounts: Accounts, db: Flaky, clock: Clock
) -> None:
    assert (await accounts.get("main")).config.rate_per_s == 50
    await harness.add_account("main", rate_per_s=7)
    clock.now += RELOAD_S - 0.1
    assert (await accounts.get("main")).config.rate_per_s == 50
    assert db.reads == 1
    clock.now += 0.2
    assert (await accounts.get("main")).config.rate_per_s == 7
    assert db.reads == 2


async def test_an_account_that_did_not_change_stays_opened(accounts: Accounts, clock: Clock) -> None:
    opened = await accounts.get("main")
    clock.now += RELOAD_S + 1
    assert await accounts.get("main") is opened


async def test_a_change_that_is_the_flows_alone_keeps_what_the_adapter_has_fetched(
    harness: FlowHarness, accounts: Accounts, clock: Clock
) -> None:
    """Certificates and tokens: without them callbacks are turned away until they are fetched again."""
    opened = await accounts.get("main")
    await harness.add_account("main", rate_per_s=7, late_policy=LatePolicy.FLAG, early_queries_s=(5.0,))
    await enable_account(harness.resources.db, "main", enabled=False)
    clock.now += RELOAD_S + 1
    changed = await accounts.get("main")
    assert (changed.config.rate_per_s, changed.config.enabled) == (7, False)
    assert changed.channel is opened.channel
    await harness.add_account("main", trust_callback=True)
    clock.now += RELOAD_S + 1
    assert (await accounts.get("main")).channel is not opened.channel


async def test_a_new_account_is_found_at_once_and_a_name_that_is_none_is_not_asked_for_by_everybody(
    harness: FlowHarness, accounts: Accounts, db: Flaky, clock: Clock
) -> None:
    """A thousand callbacks to an address that does not exist are one reading a second."""
    for _ in range(1000):
        with pytest.raises(UnknownAccount):
            await accounts.get("new")
    assert db.reads == 1
    await harness.add_account("new")
    clock.now += UNKNOWN_RELOAD_S
    assert (await accounts.get("new")).config.name == "new"


async def test_accounts_are_kept_through_an_outage_of_the_database(accounts: Accounts, db: Flaky, clock: Clock) -> None:
    opened = await accounts.get("main")
    db.gone = True
    clock.now += 10 * RELOAD_S
    assert await accounts.get("main") is opened
    with pytest.raises(DatabaseUnavailable):
        await accounts.get("unknown")
    db.gone = False
    clock.now += RELOAD_S
    with pytest.raises(UnknownAccount):
        await accounts.get("unknown")


@pytest.mark.parametrize("change", [{"credentials": {}}, {"channel": "barter"}], ids=["credentials", "channel"])
async def test_an_account_that_does_not_open_does_not_take_the_others_with_it(
    harness: FlowHarness, accounts: Accounts, change: dict[str, object]
) -> None:
    wrong = replace(harness.driver.account(harness.url), name="broken", **change)
    await put_account(harness.resources.db, harness.sealer, wrong)
    assert (await accounts.get("main")).config.name == "main"
    with pytest.raises(UnknownAccount):
        await accounts.get("broken")


async def test_an_account_that_opens_no_more_does_not_take_the_known_ones_with_it(
    harness: FlowHarness, accounts: Accounts, clock: Clock
) -> None:
    """Sealed under a master key that this process was not given."""
    opened = await accounts.get("main")
    stranger = Sealer.from_setting(f"other:{base64.urlsafe_b64encode(bytes(32)).decode()}")
    await put_account(harness.resources.db, stranger, replace(harness.driver.account(harness.url), name="sealed"))
    clock.now += RELOAD_S
    assert await accounts.get("main") is opened
    clock.now += RELOAD_S
    with pytest.raises((ConfigurationError, UnknownAccount)):
        await accounts.get("sealed")


async def test_an_account_that_is_switched_off_starts_no_payment(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed()
    await enable_account(harness.resources.db, "other", enabled=False)
    harness.resources.accounts._read_at = -RELOAD_S
    with pytest.raises(UnknownAccount):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    with pytest.raises(UnknownAccount):
        await place_order(harness.resources, order_terms(), PaymentRequest(account="other"), expires_in_s=600)


async def test_an_account_that_is_switched_off_still_asks_receives_and_closes(harness: FlowHarness) -> None:
    """Otherwise switching an account off would lose whatever is under way."""
    states = [await harness.placed() for _ in range(3)]
    await enable_account(harness.resources.db, "main", enabled=False)
    harness.resources.accounts._read_at = -RELOAD_S
    asked, called_back, ended = states
    harness.pay(asked.payments[0])
    assert await query_scheduled(harness.resources, asked.payments[0].key, 1) is Outcome.PAID
    harness.pay(called_back.payments[0])
    transaction = harness.transaction_of(called_back.payments[0])
    await harness.receive("main", harness.callback(called_back.payments[0], transaction=transaction))
    assert (await harness.state(called_back)).order.status is OrderStatus.PAID
    assert (await request_close(harness.resources, ended.order.order_no)).order.status is OrderStatus.CLOSED


async def test_an_account_added_just_after_a_reading_is_found_at_once(harness: FlowHarness, accounts: Accounts) -> None:
    """Something reads them every few seconds, and a merchant who has just added one must not be told that there is
    none.
    """
    assert [account.config.name for account in await accounts.all_enabled()] == ["main"]
    await harness.add_account("new")
    assert (await accounts.get("new")).config.name == "new"
