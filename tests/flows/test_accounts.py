"""Accounts of a process: a change by an operator is used within seconds, and an outage changes nothing."""

import asyncio
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
from runtime.accounts import RELOAD_S, UNKNOWN_RELOAD_S, Accounts, answering_despite_lag
from storage.postgres.accounts import enable_account, put_account
from storage.postgres.database import Database
from storage.sealing import Sealer
from tests.flows.conftest import FlowHarness, order_terms
from tests.storage.redis.test_patience import block


class InterruptibleDatabase(Database):
    """A database that counts its reads, fails while `is_down` is set, and does not answer while `is_frozen` is."""

    is_down = False
    is_frozen = False
    reads = 0

    async def fetch(self, sql: str, *args: object) -> list[object]:
        self.reads += 1
        if self.is_frozen:
            await asyncio.Event().wait()
        if self.is_down:
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
async def db(settings: Settings, harness: FlowHarness) -> AsyncIterator[InterruptibleDatabase]:
    opened = InterruptibleDatabase.from_settings(settings)
    assert isinstance(opened, InterruptibleDatabase)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def accounts(db: InterruptibleDatabase, harness: FlowHarness, clock: Clock) -> AsyncIterator[Accounts]:
    async with Transport(timeout_s=1) as transport:
        yield Accounts(
            db, harness.sealer, transport, harness.resources.settings, harness.resources.admission, clock=clock
        )


async def test_a_changed_account_is_used_after_the_reload_interval(
    harness: FlowHarness, accounts: Accounts, db: InterruptibleDatabase, clock: Clock
) -> None:
    assert (await accounts.get("main")).config.rate_per_s == 50
    await harness.add_account("main", rate_per_s=7)
    clock.now += RELOAD_S - 0.1
    assert (await accounts.get("main")).config.rate_per_s == 50
    assert db.reads == 1
    clock.now += 0.2
    assert (await accounts.get("main")).config.rate_per_s == 7
    assert db.reads == 2


async def test_an_unchanged_account_stays_open(accounts: Accounts, clock: Clock) -> None:
    opened = await accounts.get("main")
    clock.now += RELOAD_S + 1
    assert await accounts.get("main") is opened


async def test_a_change_that_only_flows_use_keeps_the_open_channel(
    harness: FlowHarness, accounts: Accounts, clock: Clock
) -> None:
    """The channel holds certificates and tokens. Without them callbacks are refused until they are fetched again."""
    opened = await accounts.get("main")
    await harness.add_account("main", rate_per_s=7, late_policy=LatePolicy.FLAG, exclusive=True, early_queries_s=(5.0,))
    await enable_account(harness.resources.db, "main", enabled=False)
    clock.now += RELOAD_S + 1
    changed = await accounts.get("main")
    assert (changed.config.rate_per_s, changed.config.enabled) == (7, False)
    assert changed.channel is opened.channel
    await harness.add_account("main", trust_callback=True)
    clock.now += RELOAD_S + 1
    assert (await accounts.get("main")).channel is not opened.channel


async def test_a_new_account_is_found_and_lookups_of_unknown_names_share_one_read(
    harness: FlowHarness, accounts: Accounts, db: InterruptibleDatabase, clock: Clock
) -> None:
    """A thousand callbacks to an unknown address cause one read a second."""
    for _ in range(1000):
        with pytest.raises(UnknownAccount):
            await accounts.get("new")
    assert db.reads == 1
    await harness.add_account("new")
    clock.now += UNKNOWN_RELOAD_S
    assert (await accounts.get("new")).config.name == "new"


async def test_known_accounts_are_usable_while_the_database_is_down(
    accounts: Accounts, db: InterruptibleDatabase, clock: Clock
) -> None:
    opened = await accounts.get("main")
    db.is_down = True
    clock.now += 10 * RELOAD_S
    assert await accounts.get("main") is opened
    with pytest.raises(DatabaseUnavailable):
        await accounts.get("unknown")
    db.is_down = False
    clock.now += RELOAD_S
    with pytest.raises(UnknownAccount):
        await accounts.get("unknown")


async def test_known_accounts_are_usable_while_the_database_does_not_answer(
    accounts: Accounts, db: InterruptibleDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await accounts.get("main")
    monkeypatch.setattr("runtime.accounts.READ_S", 0.05)
    monkeypatch.setattr("runtime.accounts.FIRST_READ_S", 0.05)
    db.is_frozen = True
    clock.now += RELOAD_S
    assert await accounts.get("main") is opened
    assert await accounts.get("main") is opened
    assert db.reads == 2, "it is not waited for again at once"
    with pytest.raises(DatabaseUnavailable):
        await accounts.get("unknown")


async def test_a_busy_process_too_gives_up_a_database_that_does_not_answer() -> None:
    """Its channel would give the callback up, and nobody would have parked it."""
    turns = 0

    async def be_busy() -> None:
        nonlocal turns
        while True:
            turns += 1
            block(0.05)
            await asyncio.sleep(0)

    busy = asyncio.ensure_future(be_busy())
    with pytest.raises(DatabaseUnavailable):
        async with answering_despite_lag(0.1):
            await asyncio.Event().wait()
    busy.cancel()
    assert turns <= 6, "twice the limit, and a turn at both ends"


async def test_made_up_names_hold_no_callback_of_a_known_account_while_the_database_does_not_answer(
    accounts: Accounts, db: InterruptibleDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading after another for each of them would keep it past the five seconds that its channel waits."""
    opened = await accounts.get("main")
    monkeypatch.setattr("runtime.accounts.READ_S", 0.05)
    monkeypatch.setattr("runtime.accounts.FIRST_READ_S", 0.05)
    db.is_frozen = True
    clock.now += RELOAD_S
    guesses = [asyncio.ensure_future(accounts.get(f"made-up-{number}")) for number in range(30)]
    await asyncio.sleep(0)
    known = asyncio.ensure_future(accounts.get("main"))
    await asyncio.sleep(0)
    assert known.done(), "what is open is used while somebody else reads"
    assert await known is opened
    results = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert db.reads == 2, "they share one reading"


@pytest.mark.parametrize("change", [{"credentials": {}}, {"channel": "barter"}], ids=["credentials", "channel"])
async def test_a_broken_account_does_not_disable_the_others(
    harness: FlowHarness, accounts: Accounts, change: dict[str, object]
) -> None:
    wrong = replace(harness.driver.account(harness.url), name="broken", **change)
    await put_account(harness.resources.db, harness.sealer, wrong)
    assert (await accounts.get("main")).config.name == "main"
    with pytest.raises(UnknownAccount):
        await accounts.get("broken")


async def test_an_account_sealed_with_an_unknown_key_does_not_disable_the_others(
    harness: FlowHarness, accounts: Accounts, clock: Clock
) -> None:
    """The account is sealed with a master key that this process does not have."""
    opened = await accounts.get("main")
    other_sealer = Sealer.from_setting(f"other:{base64.urlsafe_b64encode(bytes(32)).decode()}")
    await put_account(harness.resources.db, other_sealer, replace(harness.driver.account(harness.url), name="sealed"))
    clock.now += RELOAD_S
    assert await accounts.get("main") is opened
    clock.now += RELOAD_S
    with pytest.raises((ConfigurationError, UnknownAccount)):
        await accounts.get("sealed")


async def test_a_disabled_account_starts_no_payment(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed_order()
    await enable_account(harness.resources.db, "other", enabled=False)
    harness.resources.accounts._read_at = -RELOAD_S
    with pytest.raises(UnknownAccount):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    with pytest.raises(UnknownAccount):
        await place_order(harness.resources, order_terms(), PaymentRequest(account="other"), expires_in_s=600)


async def test_a_disabled_account_still_queries_receives_callbacks_and_closes(harness: FlowHarness) -> None:
    """Otherwise disabling an account would lose its unfinished payments."""
    states = [await harness.placed_order() for _ in range(3)]
    await enable_account(harness.resources.db, "main", enabled=False)
    harness.resources.accounts._read_at = -RELOAD_S
    queried, called_back, closed = states
    harness.pay(queried.payments[0])
    await harness.make_due()
    assert await query_scheduled(harness.resources, queried.payments[0].key, 1) is Outcome.PAID
    harness.pay(called_back.payments[0])
    transaction = harness.transaction_of(called_back.payments[0])
    await harness.receive("main", harness.callback(called_back.payments[0], transaction=transaction))
    assert (await harness.state(called_back)).order.status is OrderStatus.PAID
    assert (await request_close(harness.resources, closed.order.order_no)).order.status is OrderStatus.CLOSED


async def test_an_account_added_just_after_a_read_is_found_at_once(harness: FlowHarness, accounts: Accounts) -> None:
    """Accounts are read every few seconds. A merchant who has just added one must not get "unknown account"."""
    assert [account.config.name for account in await accounts.all_enabled()] == ["main"]
    await harness.add_account("new")
    assert (await accounts.get("new")).config.name == "new"
