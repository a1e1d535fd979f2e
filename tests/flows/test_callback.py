"""A callback: proved, stored, confirmed with the channel, acknowledged; and whatever is not, carried on with."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.admission import UNANSWERED_MAX
from core.decision import Outcome
from core.errors import (
    CallbackForged,
    CallbackStale,
    ChannelUnreadable,
    DatabaseUnavailable,
    UnknownAccount,
)
from core.jobs import Lane
from core.order import OrderStatus, PaymentStatus
from core.settings import Settings
from flows.callback import compensate_callback, drain_parked, receive_callback
from flows.query import query_scheduled
from runtime.resources import Resources, open_resources
from simulator.kernel.faults import FaultProfile
from storage.postgres import pending
from storage.redis.parked_callbacks import ParkedCallback
from tests.channels.reports import CallbackRequest, Key
from tests.flows.conftest import AMOUNT, FlowHarness


class Inbox:
    """The one callback of a test, as it stands in the inbox."""

    def __init__(self, harness: FlowHarness) -> None:
        self._harness = harness

    async def row(self) -> dict[str, object]:
        sql = """SELECT id::text, attempt, arm_no, handled_at IS NOT NULL AS is_handled, dead_at IS NOT NULL AS is_dead,
                        outcome, copies, extract(epoch FROM due_at - now())::float8 AS due_in_s, received_at
                   FROM callbacks"""
        (row,) = await self._harness.resources.db.fetch(sql)
        return dict(row)

    async def compensate(self) -> Outcome:
        """The job that is armed now."""
        row = await self.row()
        return await compensate_callback(self._harness.resources, str(row["id"]), int(str(row["arm_no"])))

    async def count(self) -> object:
        return await self._harness.one("SELECT count(*) FROM callbacks")


@pytest.fixture
def inbox(harness: FlowHarness) -> Inbox:
    return Inbox(harness)


async def test_a_callback_is_confirmed_with_the_channel_inside_its_request(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    acknowledged = await harness.receive("main", sent)
    assert (acknowledged.status, acknowledged.body) == (200, b"ok")
    paid = await harness.state(state)
    assert (paid.order.status, harness.calls()) == (OrderStatus.PAID, 1)
    row = await inbox.row()
    assert (row["is_handled"], row["outcome"]) == (True, "paid")
    assert (await harness.resources.queue.depth(Lane.FRESH)).queued == 0
    assert await harness.one("SELECT by FROM order_events WHERE kind = 'paid'") == "callback"


async def test_raw_bytes_and_headers_are_stored_before_anything_else(harness: FlowHarness) -> None:
    """Acknowledged means stored: even the callback of an order that is not there."""
    state = await harness.placed()
    sent = harness.callback(state.payments[0], number="0123456789abcdef")
    await harness.receive("main", sent)
    row = await harness.resources.db.fetchrow("SELECT body, headers->>'sandbox-signature' AS signature FROM callbacks")
    assert row is not None
    assert (row["body"], row["signature"]) == (sent.body, sent.headers["sandbox-signature"])


@pytest.mark.parametrize("error", [CallbackForged, CallbackStale])
async def test_a_forged_or_stale_callback_changes_nothing(
    harness: FlowHarness, inbox: Inbox, error: type[Exception]
) -> None:
    state = await harness.placed()
    forged = harness.callback(state.payments[0], key=Key.STRANGER)
    stale = harness.callback(state.payments[0], age_s=3600)
    with pytest.raises(error):
        await harness.receive("main", forged if error is CallbackForged else stale)
    assert (await inbox.count(), harness.calls()) == (0, 0)
    assert (await harness.state(state)).order == state.order


async def test_a_genuine_callback_that_is_not_the_protocol_is_not_stored(harness: FlowHarness, inbox: Inbox) -> None:
    harness.driver.merchant_id = "m-main"
    sent = harness.driver.sign_callback(b"{}", "cb_1")
    with pytest.raises(ChannelUnreadable):
        await harness.receive("main", sent)
    assert await inbox.count() == 0


async def test_a_callback_for_an_account_that_is_none_is_refused(harness: FlowHarness) -> None:
    state = await harness.placed()
    with pytest.raises(UnknownAccount):
        await harness.receive("nobody", harness.callback(state.payments[0]))


async def test_a_callback_of_one_account_means_nothing_at_the_address_of_another(
    harness: FlowHarness, inbox: Inbox
) -> None:
    """Each account has its own address and merchant: a number of another account is nobody's."""
    await harness.add_account("other")
    state = await harness.placed()
    with pytest.raises(CallbackForged):
        await harness.receive("other", harness.callback(state.payments[0]))
    assert await inbox.count() == 0


async def test_ten_copies_at_once_are_one_version_and_one_row(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed(notify_url="https://merchant.example/hook")
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await asyncio.gather(*(harness.receive("main", sent) for _ in range(10)))
    while (await harness.state(state)).order.status is not OrderStatus.PAID:
        await inbox.compensate()
    assert await harness.one("SELECT count(*) FROM order_events WHERE kind = 'paid'") == 1
    assert await harness.one("SELECT count(*) FROM notifications") == 1
    assert (await inbox.row())["copies"] == 10


async def test_a_repeat_after_it_was_handled_is_acknowledged_and_asks_nobody(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await harness.receive("main", sent)
    before = (await harness.state(state)).order, harness.calls()
    assert (await harness.receive("main", sent)).body == b"ok"
    assert ((await harness.state(state)).order, harness.calls()) == before


async def test_a_repeat_after_a_failed_handling_is_work(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    harness.call_fault(state.payments[0], "answered_5xx")
    assert (await harness.receive("main", sent)).body == b"ok"
    assert (await inbox.row())["is_handled"] is False
    harness.call_fault(state.payments[0], "none")
    await harness.receive("main", sent)
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert (await inbox.row())["is_handled"] is True


async def test_while_the_channel_cannot_confirm_it_is_acknowledged_and_compensated_later(
    harness: FlowHarness, inbox: Inbox
) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], "html_error")
    await harness.receive(
        "main", harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    )
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    first = await inbox.row()
    assert 55 < float(str(first["due_in_s"])) <= 60
    assert (await harness.resources.queue.depth(Lane.FRESH)).queued == 1
    assert await inbox.compensate() is Outcome.UNCLEAR
    second = await inbox.row()
    assert (second["attempt"], 235 < float(str(second["due_in_s"])) <= 240) == (2, True)
    harness.call_fault(state.payments[0], "none")
    assert await inbox.compensate() is Outcome.PAID
    assert await inbox.compensate() is Outcome.STALE
    assert (await harness.state(state)).order.status is OrderStatus.PAID


async def test_a_channel_that_hangs_is_waited_for_no_longer_than_the_budget(harness: FlowHarness) -> None:
    """The acknowledgement must be there within the channel's five seconds, whatever its queries do."""
    state = await harness.placed()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], "timed_out")
    began = time.monotonic()
    assert (await harness.receive("main", harness.callback(state.payments[0]))).status == 200
    assert time.monotonic() - began < 3.0


async def test_without_a_free_slot_it_is_left_to_its_compensation(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    slots = harness.resources.settings.callback_confirm_slots
    for _ in range(slots):
        await harness.resources.confirm_slots.acquire()
    assert (await harness.receive("main", sent)).body == b"ok"
    assert harness.calls() == 0
    for _ in range(slots):
        harness.resources.confirm_slots.release()
    assert await inbox.compensate() is Outcome.PAID


async def test_waiting_for_the_breaker_uses_no_attempt(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    for _ in range(UNANSWERED_MAX):
        await harness.resources.admission.report("main", answered=False)
    await harness.receive("main", harness.callback(state.payments[0]))
    before = await inbox.row()
    assert await inbox.compensate() is Outcome.NOT_YET
    after = await inbox.row()
    assert (after["attempt"], harness.calls()) == (before["attempt"], 0)
    assert int(str(after["arm_no"])) > int(str(before["arm_no"]))


async def test_while_somebody_else_asks_it_waits_and_uses_no_attempt(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    assert await pending.claim(harness.resources.db, state.payments[0].key, 20) is not None
    await harness.receive("main", harness.callback(state.payments[0]))
    assert await inbox.compensate() is Outcome.NOT_YET
    assert ((await inbox.row())["attempt"], harness.calls()) == (1, 0)


# -- callbacks that do not fit -----------------------------------------------------------------------------------------


async def test_a_callback_before_its_order_is_retried_and_pays_when_the_order_is_there(
    harness: FlowHarness, inbox: Inbox
) -> None:
    """The channel is quicker than our commit: answered 200 and forgotten, it would be lost."""
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await harness.resources.db.execute("UPDATE payments SET channel_account = 'elsewhere'")
    assert (await harness.receive("main", sent)).body == b"ok"
    assert await inbox.compensate() is Outcome.UNKNOWN_PAYMENT
    row = await inbox.row()
    assert (row["is_handled"], row["attempt"]) == (False, 2)
    await harness.resources.db.execute("UPDATE payments SET channel_account = 'main'")
    assert await inbox.compensate() is Outcome.PAID


async def test_a_callback_for_no_order_becomes_a_case_after_its_last_attempt(
    harness: FlowHarness, inbox: Inbox
) -> None:
    state = await harness.placed()
    await harness.receive("main", harness.callback(state.payments[0], number="0123456789abcdef"))
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await inbox.compensate()
    assert await harness.cases() == ["unknown_order"]
    assert (await inbox.row())["is_dead"] is True
    assert await inbox.compensate() is Outcome.STALE


async def test_a_paid_callback_that_the_channel_contradicts_pays_nothing_and_becomes_a_case(
    harness: FlowHarness, inbox: Inbox
) -> None:
    state = await harness.placed()
    assert (await harness.receive("main", harness.callback(state.payments[0]))).body == b"ok"
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    assert (await inbox.row())["is_handled"] is False
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await inbox.compensate()
    assert await harness.cases(state.order.order_no) == ["callback_contradicted"]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


async def test_a_paid_callback_for_what_the_channel_calls_closed_becomes_a_case_too(
    harness: FlowHarness, inbox: Inbox
) -> None:
    """The query may have come from a copy that lags behind; nobody else would ask about a closed payment again."""
    state = await harness.placed()
    harness.far_side.ledger.close(harness.key_of(state.payments[0]), harness.far_side.now())
    await harness.receive("main", harness.callback(state.payments[0]))
    assert (await harness.state(state)).payments[0].status is PaymentStatus.CLOSED
    assert (await inbox.row())["is_handled"] is False
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await inbox.compensate()
    assert await harness.cases(state.order.order_no) == ["callback_contradicted"]


async def test_a_callback_about_something_unpaid_is_done_when_the_channel_says_so(
    harness: FlowHarness, inbox: Inbox
) -> None:
    state = await harness.placed()
    await harness.receive("main", harness.callback(state.payments[0], status="unpaid"))
    assert (await inbox.row())["is_handled"] is True
    assert await harness.cases() == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [({"amount": AMOUNT - 1}, "amount_mismatch"), ({"currency": "JPY"}, "currency_mismatch")],
    ids=["amount", "currency"],
)
async def test_a_callback_with_another_amount_opens_a_case_and_the_query_still_pays(
    harness: FlowHarness, inbox: Inbox, said: dict[str, Any], reason: str
) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], **said))
    assert await harness.cases(state.order.order_no) == [reason]
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert (await inbox.row())["outcome"] == "mismatch"


@pytest.mark.parametrize("trust", [False, True], ids=["asks", "trusts"])
async def test_a_callback_with_another_amount_alone_pays_nothing(harness: FlowHarness, *, trust: bool) -> None:
    """Also at an account whose callbacks are trusted."""
    account = await harness.add_account("trusting", trust_callback=trust)
    state = await harness.placed(account)
    await harness.receive(account, harness.callback(state.payments[0], amount=1))
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    assert await harness.cases(state.order.order_no) == ["amount_mismatch"]


async def test_a_callback_that_the_account_trusts_pays_without_asking(harness: FlowHarness, inbox: Inbox) -> None:
    account = await harness.add_account("trusting", trust_callback=True)
    state = await harness.placed(account)
    await harness.receive(account, harness.callback(state.payments[0]))
    assert ((await harness.state(state)).order.status, harness.calls()) == (OrderStatus.PAID, 0)
    assert (await inbox.row())["is_handled"] is True


async def test_one_channel_transaction_never_pays_two_orders(harness: FlowHarness) -> None:
    account = await harness.add_account("trusting", trust_callback=True)
    first, second = await harness.placed(account), await harness.placed(account)
    for state in (first, second):
        await harness.receive(account, harness.callback(state.payments[0], transaction="4200000000000001"))
    assert (await harness.state(first)).order.status is OrderStatus.PAID
    assert (await harness.state(second)).order.status is OrderStatus.PAYING
    assert await harness.cases(second.order.order_no) == ["transaction_claimed_twice"]


async def test_other_money_under_a_number_that_is_paid_is_a_case(harness: FlowHarness) -> None:
    account = await harness.add_account("trusting", trust_callback=True)
    state = await harness.placed(account)
    for transaction in ("4200000000000001", "4200000000000002"):
        await harness.receive(account, harness.callback(state.payments[0], transaction=transaction))
    assert await harness.cases(state.order.order_no) == ["number_reused"]
    assert (await harness.state(state)).payments[0].channel_transaction_id == "4200000000000001"


async def test_a_callback_after_the_query_has_paid_is_done(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    await query_scheduled(harness.resources, state.payments[0].key, 1)
    version = (await harness.state(state)).order.version
    transaction = harness.transaction_of(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], transaction=transaction))
    assert ((await inbox.row())["is_handled"], (await harness.state(state)).order.version) == (True, version)


# -- parked ------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def no_database(settings: Settings, harness: FlowHarness) -> AsyncIterator[Resources]:
    """The same process after Postgres has gone: it knows its accounts."""
    async with open_resources(replace(settings, database_url="postgres://nobody@127.0.0.1:1/gone")) as resources:
        await harness.resources.accounts.get("main")
        resources.accounts._opened = harness.resources.accounts._opened
        yield resources


def park(harness: FlowHarness, sent: CallbackRequest, *, account: str = "main", ago_s: float = 0.0) -> ParkedCallback:
    received_at = datetime.now(UTC) - timedelta(seconds=ago_s)
    return ParkedCallback(account=account, headers=sent.headers, body=sent.body, received_at=received_at)


async def test_without_postgres_a_callback_is_parked_and_not_acknowledged(
    harness: FlowHarness, inbox: Inbox, no_database: Resources
) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    with pytest.raises(DatabaseUnavailable):
        await receive_callback(no_database, "main", sent.headers, sent.body)
    assert await harness.resources.parked.count() == 1
    assert await drain_parked(harness.resources) == 1
    assert await harness.resources.parked.count() == 0
    assert await inbox.compensate() is Outcome.PAID


async def test_a_forged_callback_is_not_parked(harness: FlowHarness, no_database: Resources) -> None:
    state = await harness.placed()
    sent = harness.callback(state.payments[0], key=Key.STRANGER)
    with pytest.raises(CallbackForged):
        await receive_callback(no_database, "main", sent.headers, sent.body)
    assert await harness.resources.parked.count() == 0


async def test_a_parked_callback_is_as_fresh_as_when_it_was_received(harness: FlowHarness, inbox: Inbox) -> None:
    """After six hours without Postgres it is not stale: the channel had signed it a moment before we took it."""
    state = await harness.placed()
    six_hours = 6 * 3600.0
    await harness.resources.parked.park(
        park(harness, harness.callback(state.payments[0], age_s=six_hours), ago_s=six_hours)
    )
    assert await drain_parked(harness.resources) == 1
    received_at = (await inbox.row())["received_at"]
    assert isinstance(received_at, datetime)
    assert datetime.now(UTC) - received_at > timedelta(hours=5)


async def test_what_was_stale_when_it_was_received_is_dropped(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    await harness.resources.parked.park(park(harness, harness.callback(state.payments[0], age_s=3600)))
    assert await drain_parked(harness.resources) == 1
    assert (await harness.resources.parked.count(), await inbox.count()) == (0, 0)


async def test_a_parked_callback_that_came_again_meanwhile_is_one_row(harness: FlowHarness, inbox: Inbox) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    sent = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await harness.resources.parked.park(park(harness, sent))
    await harness.receive("main", sent)
    await drain_parked(harness.resources)
    row = await inbox.row()
    assert (row["copies"], row["is_handled"]) == (2, True)


async def test_a_parked_callback_of_an_unknown_account_is_kept_and_in_nobodys_way(
    harness: FlowHarness, inbox: Inbox
) -> None:
    state = await harness.placed()
    await harness.resources.parked.park(park(harness, harness.callback(state.payments[0]), account="nobody"))
    await harness.resources.parked.park(park(harness, harness.callback(state.payments[0])))
    assert await drain_parked(harness.resources) == 1
    assert (await harness.resources.parked.count(), await inbox.count()) == (1, 1)
    assert await drain_parked(harness.resources) == 0


async def test_when_postgres_goes_again_in_the_middle_nothing_leaves_redis(
    harness: FlowHarness, no_database: Resources
) -> None:
    state = await harness.placed()
    await harness.resources.parked.park(park(harness, harness.callback(state.payments[0])))
    with pytest.raises(DatabaseUnavailable):
        await drain_parked(no_database)
    assert await harness.resources.parked.count() == 1


async def test_a_bug_of_ours_is_tried_again_and_acknowledged(
    harness: FlowHarness, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored; sending it for a day would help nobody."""
    state = await harness.placed()
    harness.far_side.faults.profile = FaultProfile()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("flows.callback.plan_callback", broken)
        assert (await harness.receive("main", harness.callback(state.payments[0]))).body == b"ok"
        await inbox.compensate()
    row = await inbox.row()
    assert (row["is_handled"], row["attempt"]) == (False, 2)
