"""A callback is verified, stored, confirmed with the channel and acknowledged; its compensation finishes the rest."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.admission import UNANSWERED_MAX, CallKind
from core.decision import Outcome
from core.errors import (
    CallbackForged,
    CallbackStale,
    DatabaseUnavailable,
    UnknownAccount,
)
from core.jobs import Lane
from core.order import OrderStatus, PaymentStatus
from core.settings import Settings
from flows.callback import receive_callback
from flows.compensation import compensate_callback
from flows.parked import drain_parked
from flows.query import query_scheduled
from runtime.accounts import Account
from runtime.resources import Resources, open_resources
from simulator.kernel.faults import FaultProfile
from storage.postgres import pending
from storage.redis.admission.names import state_key
from storage.redis.delay_queue import queue_name
from storage.redis.parked_callbacks import ParkedCallback
from tests.channels.reports import CallbackRequest, Key
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.sealed import raw_callbacks
from tests.storage.redis.test_patience import block
from tests.storage.redis.tools import server_ms


class StoredCallback:
    """The callback of a test in the table `callbacks`."""

    def __init__(self, harness: FlowHarness) -> None:
        self._harness = harness

    async def row(self) -> dict[str, object]:
        sql = """SELECT id::text, attempt, arm_no, handled_at IS NOT NULL AS is_handled, dead_at IS NOT NULL AS is_dead,
                        outcome, copies, extract(epoch FROM due_at - now())::float8 AS due_in_s, received_at
                   FROM callbacks"""
        (row,) = await self._harness.resources.db.fetch(sql)
        return dict(row)

    async def compensate(self) -> Outcome:
        """Run the armed compensation job."""
        row = await self.row()
        await self._harness.make_due()
        return await compensate_callback(self._harness.resources, str(row["id"]), int(str(row["arm_no"])))

    async def count(self) -> object:
        return await self._harness.fetch_value("SELECT count(*) FROM callbacks")


@pytest.fixture
def stored_callback(harness: FlowHarness) -> StoredCallback:
    return StoredCallback(harness)


async def test_a_callback_is_confirmed_by_a_query_inside_its_request(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    acknowledgement = await harness.receive("main", callback)
    assert (acknowledgement.status, acknowledgement.body) == (200, b"ok")
    paid = await harness.state(state)
    assert (paid.order.status, harness.call_count()) == (OrderStatus.PAID, 1)
    row = await stored_callback.row()
    assert (row["is_handled"], row["outcome"]) == (True, "paid")
    assert (await harness.resources.queue.depth(Lane.FRESH)).queued == 0
    assert await harness.fetch_value("SELECT by FROM order_events WHERE kind = 'paid'") == "callback"


async def test_raw_body_and_headers_are_stored(harness: FlowHarness) -> None:
    """An acknowledged callback is stored, also when its order is unknown."""
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0], number="0123456789abcdef")
    await harness.receive("main", callback)
    [stored] = await raw_callbacks(harness.resources.db, harness.sealer)
    assert stored.body == callback.body
    assert stored.headers["sandbox-signature"] == callback.headers["sandbox-signature"]


PRIVATE = {"authorization": "Bearer canary-key", "cookie": "canary=1", "from": "canary@example.com"}
"""Headers that a proxy or a forwarding system may add."""


async def test_only_the_headers_of_the_signature_and_a_sealed_body_are_stored(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0])
    await receive_callback(harness.resources, "main", callback.headers | PRIVATE, callback.body)
    row = await harness.fetch_value("SELECT to_jsonb(c)::text || encode(c.body, 'escape') FROM callbacks c")
    assert isinstance(row, str)
    assert "canary" not in row
    assert callback.body.decode() not in row
    [stored] = await raw_callbacks(harness.resources.db, harness.sealer)
    assert set(stored.headers) == {"sandbox-callback-id", "sandbox-signature"}


async def test_a_parked_callback_has_no_other_headers_and_a_sealed_body(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0])

    async def unavailable(*_: object, **__: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr("flows.callback.insert_callback", unavailable)
    with pytest.raises(DatabaseUnavailable):
        await receive_callback(harness.resources, "main", callback.headers | PRIVATE, callback.body)
    [text] = await harness.resources.redis.hvals("nodrop:{parked}:callbacks")  # type: ignore[misc]
    assert b"canary" not in text
    assert base64.b64encode(callback.body)[:40] not in text
    [(_, parked)] = await harness.resources.parked.parked(10)
    assert parked.body == callback.body


@pytest.mark.parametrize("error", [CallbackForged, CallbackStale])
async def test_a_forged_or_stale_callback_changes_nothing(
    harness: FlowHarness, stored_callback: StoredCallback, error: type[Exception]
) -> None:
    state = await harness.placed_order()
    forged = harness.callback(state.payments[0], key=Key.STRANGER)
    stale = harness.callback(state.payments[0], age_s=3600)
    with pytest.raises(error):
        await harness.receive("main", forged if error is CallbackForged else stale)
    assert (await stored_callback.count(), harness.call_count()) == (0, 0)
    assert (await harness.state(state)).order == state.order


async def test_a_callback_for_an_unknown_account_is_refused(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    with pytest.raises(UnknownAccount):
        await harness.receive("nobody", harness.callback(state.payments[0]))


async def test_a_callback_sent_to_the_address_of_another_account_is_forged(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    """Each account has its own address and merchant."""
    await harness.add_account("other")
    state = await harness.placed_order()
    with pytest.raises(CallbackForged):
        await harness.receive("other", harness.callback(state.payments[0]))
    assert await stored_callback.count() == 0


async def test_ten_simultaneous_copies_make_one_paid_event_and_one_notification(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order(notify_url="https://merchant.example/hook")
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await asyncio.gather(*(harness.receive("main", callback) for _ in range(10)))
    while (await harness.state(state)).order.status is not OrderStatus.PAID:
        await stored_callback.compensate()
    assert await harness.fetch_value("SELECT count(*) FROM order_events WHERE kind = 'paid'") == 1
    assert await harness.fetch_value("SELECT count(*) FROM notifications") == 1
    assert (await stored_callback.row())["copies"] == 10


async def test_a_copy_of_a_handled_callback_is_acknowledged_without_a_query(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await harness.receive("main", callback)
    before = (await harness.state(state)).order, harness.call_count()
    assert (await harness.receive("main", callback)).body == b"ok"
    assert ((await harness.state(state)).order, harness.call_count()) == before


async def test_a_copy_of_an_unfinished_callback_is_handled(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    harness.call_fault(state.payments[0], "answered_5xx")
    assert (await harness.receive("main", callback)).body == b"ok"
    assert (await stored_callback.row())["is_handled"] is False
    harness.call_fault(state.payments[0], "none")
    await harness.receive("main", callback)
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert (await stored_callback.row())["is_handled"] is True


async def test_an_unconfirmed_callback_is_acknowledged_and_compensated_later(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], "html_error")
    await harness.receive(
        "main", harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    )
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    first = await stored_callback.row()
    assert 55 < float(str(first["due_in_s"])) <= 60
    assert (await harness.resources.queue.depth(Lane.FRESH)).queued == 1
    assert await stored_callback.compensate() is Outcome.UNCLEAR
    second = await stored_callback.row()
    assert (second["attempt"], 235 < float(str(second["due_in_s"])) <= 240) == (2, True)
    harness.call_fault(state.payments[0], "none")
    assert await stored_callback.compensate() is Outcome.PAID
    assert await stored_callback.compensate() is Outcome.STALE
    assert (await harness.state(state)).order.status is OrderStatus.PAID


async def test_a_hanging_channel_does_not_delay_the_acknowledgement_beyond_its_budget(harness: FlowHarness) -> None:
    """The channel expects the acknowledgement within five seconds, also when its queries hang."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], "timed_out")
    with harness.short_timeouts(channel_s=60.0):
        async with asyncio.timeout(60):
            assert (await harness.receive("main", harness.callback(state.payments[0]))).status == 200


async def test_without_a_free_slot_the_callback_waits_for_its_compensation(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    slots = harness.resources.settings.callback_confirm_slots
    for _ in range(slots):
        await harness.resources.confirm_slots.acquire()
    assert (await harness.receive("main", callback)).body == b"ok"
    assert harness.call_count() == 0
    for _ in range(slots):
        harness.resources.confirm_slots.release()
    row = await stored_callback.row()
    assert (row["attempt"], row["arm_no"]) == (1, 2)
    assert await armed_jobs(harness) == [f"c:{row['id']}:2"]
    assert (await harness.resources.queue.depth(Lane.FRESH)).due == 1
    assert await compensate_callback(harness.resources, str(row["id"]), 2) is Outcome.PAID


async def armed_jobs(harness: FlowHarness) -> list[str]:
    """Jobs of the lane of callbacks."""
    names = await harness.resources.redis.zrange(queue_name(Lane.FRESH), 0, -1)
    return [name.decode().partition("}")[2] for name in names]


async def test_a_callback_that_may_not_ask_now_is_due_again_when_it_may(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    """It waited a whole minute: for two seconds after a flush of Redis no call of a channel is admitted."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    redis: Any = harness.resources.redis
    await redis.hset(state_key("main"), "quiet", await server_ms(redis) + 2000)
    await harness.receive("main", harness.callback(state.payments[0]))
    row = await stored_callback.row()
    assert (row["attempt"], row["arm_no"]) == (1, 2)
    assert float(str(row["due_in_s"])) < 10.0
    assert await armed_jobs(harness) == [f"c:{row['id']}:2"]


async def test_a_compensation_that_fails_arms_the_next(
    harness: FlowHarness, stored_callback: StoredCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to the sweep it would come late by the grace."""
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0])

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("flows.callback.plan_callback", fail)
    await harness.receive("main", callback)
    await harness.resources.redis.flushall()
    await stored_callback.compensate()
    row = await stored_callback.row()
    assert (row["attempt"], row["arm_no"]) == (2, 2)
    assert await armed_jobs(harness) == [f"c:{row['id']}:2"]


async def test_a_callback_that_waits_for_the_breaker_uses_no_attempt(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    for _ in range(UNANSWERED_MAX):
        await harness.resources.admission.report("main", CallKind.QUERY, answered=False)
    await harness.receive("main", harness.callback(state.payments[0]))
    before = await stored_callback.row()
    assert await stored_callback.compensate() is Outcome.NOT_YET
    after = await stored_callback.row()
    assert (after["attempt"], harness.call_count()) == (before["attempt"], 0)
    assert int(str(after["arm_no"])) > int(str(before["arm_no"]))


async def test_a_callback_that_waits_for_the_lease_uses_no_attempt(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    assert await pending.claim(harness.resources.db, state.payments[0].key, 20) is not None
    with harness.short_timeouts():
        await harness.receive("main", harness.callback(state.payments[0]))
        assert await stored_callback.compensate() is Outcome.NOT_YET
    assert ((await stored_callback.row())["attempt"], harness.call_count()) == (1, 0)


# -- callbacks that do not match the order ---------------------------------------------------------------------------


async def test_a_callback_that_arrives_before_its_order_is_retried_and_pays_it(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    """The callback arrives before our commit. Answered 200 and dropped, it would be lost."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await harness.resources.db.execute("UPDATE payments SET channel_account = 'elsewhere'")
    assert (await harness.receive("main", callback)).body == b"ok"
    assert await stored_callback.compensate() is Outcome.UNKNOWN_PAYMENT
    row = await stored_callback.row()
    assert (row["is_handled"], row["attempt"]) == (False, 2)
    await harness.resources.db.execute("UPDATE payments SET channel_account = 'main'")
    assert await stored_callback.compensate() is Outcome.PAID


async def test_a_paid_callback_that_the_query_contradicts_opens_a_case_and_pays_nothing(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    assert (await harness.receive("main", harness.callback(state.payments[0]))).body == b"ok"
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    assert (await stored_callback.row())["is_handled"] is False
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await stored_callback.compensate()
    assert await harness.cases(state.order.order_no) == ["callback_contradicted"]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


async def test_a_paid_callback_for_a_payment_closed_at_the_channel_opens_a_case(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    """The query may have read a stale replica, and nothing else queries a closed payment again."""
    state = await harness.placed_order()
    harness.simulation.ledger.close(harness.key_of(state.payments[0]), harness.simulation.now())
    await harness.receive("main", harness.callback(state.payments[0]))
    assert (await harness.state(state)).payments[0].status is PaymentStatus.CLOSED
    assert (await stored_callback.row())["is_handled"] is False
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await stored_callback.compensate()
    assert await harness.cases(state.order.order_no) == ["callback_contradicted"]


async def test_an_unpaid_callback_is_handled_when_the_query_agrees(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    await harness.receive("main", harness.callback(state.payments[0], status="unpaid"))
    assert (await stored_callback.row())["is_handled"] is True
    assert await harness.cases() == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"amount": AMOUNT - 1}, "amount_mismatch"), ({"currency": "JPY"}, "currency_mismatch")],
    ids=["amount", "currency"],
)
async def test_a_callback_with_a_wrong_amount_opens_a_case_and_the_query_still_pays(
    harness: FlowHarness, stored_callback: StoredCallback, fields: dict[str, Any], reason: str
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], **fields))
    assert await harness.cases(state.order.order_no) == [reason]
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert (await stored_callback.row())["outcome"] == "mismatch"


@pytest.mark.parametrize("trust", [False, True], ids=["query", "trust"])
async def test_a_callback_with_a_wrong_amount_pays_nothing(harness: FlowHarness, *, trust: bool) -> None:
    """Also at an account whose callbacks are trusted."""
    account = await harness.add_account("trusting", trust_callback=trust)
    state = await harness.placed_order(account)
    await harness.receive(account, harness.callback(state.payments[0], amount=1))
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    assert await harness.cases(state.order.order_no) == ["amount_mismatch"]


async def test_a_trusted_callback_pays_without_a_query(harness: FlowHarness, stored_callback: StoredCallback) -> None:
    account = await harness.add_account("trusting", trust_callback=True)
    state = await harness.placed_order(account)
    await harness.receive(account, harness.callback(state.payments[0]))
    assert ((await harness.state(state)).order.status, harness.call_count()) == (OrderStatus.PAID, 0)
    assert (await stored_callback.row())["is_handled"] is True


async def test_one_channel_transaction_never_pays_two_orders(harness: FlowHarness) -> None:
    account = await harness.add_account("trusting", trust_callback=True)
    first, second = await harness.placed_order(account), await harness.placed_order(account)
    for state in (first, second):
        await harness.receive(account, harness.callback(state.payments[0], transaction="4200000000000001"))
    assert (await harness.state(first)).order.status is OrderStatus.PAID
    assert (await harness.state(second)).order.status is OrderStatus.PAYING
    assert await harness.cases(second.order.order_no) == ["transaction_claimed_twice"]


async def test_a_second_transaction_under_a_paid_number_opens_a_case(harness: FlowHarness) -> None:
    account = await harness.add_account("trusting", trust_callback=True)
    state = await harness.placed_order(account)
    for transaction in ("4200000000000001", "4200000000000002"):
        await harness.receive(account, harness.callback(state.payments[0], transaction=transaction))
    assert await harness.cases(state.order.order_no) == ["number_reused"]
    assert (await harness.state(state)).payments[0].channel_transaction_id == "4200000000000001"


async def test_a_callback_for_a_payment_that_a_query_paid_is_handled(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.make_due()
    await query_scheduled(harness.resources, state.payments[0].key, 1)
    version = (await harness.state(state)).order.version
    transaction = harness.transaction_of(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], transaction=transaction))
    assert ((await stored_callback.row())["is_handled"], (await harness.state(state)).order.version) == (True, version)


# -- parked ----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def resources_without_database(settings: Settings, harness: FlowHarness) -> AsyncIterator[Resources]:
    """Resources of a process that has read its accounts and then lost Postgres."""
    async with open_resources(replace(settings, database_url="postgres://nobody@127.0.0.1:1/gone")) as resources:
        await harness.resources.accounts.get("main")
        resources.accounts._opened = harness.resources.accounts._opened
        yield resources


def parked_callback(
    harness: FlowHarness, callback: CallbackRequest, *, account: str = "main", received_ago_s: float = 0.0
) -> ParkedCallback:
    received_at = datetime.now(UTC) - timedelta(seconds=received_ago_s)
    return ParkedCallback(account=account, headers=callback.headers, body=callback.body, received_at=received_at)


async def test_without_postgres_a_callback_is_parked_and_not_acknowledged(
    harness: FlowHarness, stored_callback: StoredCallback, resources_without_database: Resources
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    with pytest.raises(DatabaseUnavailable):
        await receive_callback(resources_without_database, "main", callback.headers, callback.body)
    assert await harness.resources.parked.count() == 1
    assert await drain_parked(harness.resources) == 1
    assert await harness.resources.parked.count() == 0
    assert await stored_callback.compensate() is Outcome.PAID


async def test_the_lag_of_this_process_is_no_slowness_of_postgres(
    harness: FlowHarness, stored_callback: StoredCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy process takes longer than the budget to get here. The callback is stored all the same, not refused."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    monkeypatch.setattr("flows.callback.STORE_S", 0.5)
    get = harness.resources.accounts.get

    async def get_late(name: str) -> Account:
        block(0.6)
        return await get(name)

    monkeypatch.setattr(harness.resources.accounts, "get", get_late)
    await receive_callback(harness.resources, "main", callback.headers, callback.body)
    assert (await stored_callback.row())["copies"] == 1
    assert await harness.resources.parked.count() == 0


async def test_a_forged_callback_is_not_parked(harness: FlowHarness, resources_without_database: Resources) -> None:
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0], key=Key.STRANGER)
    with pytest.raises(CallbackForged):
        await receive_callback(resources_without_database, "main", callback.headers, callback.body)
    assert await harness.resources.parked.count() == 0


async def test_the_age_of_a_parked_callback_ends_when_it_is_received(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    """After six hours without Postgres it is not stale: the channel signed it just before it was received."""
    state = await harness.placed_order()
    six_hours = 6 * 3600.0
    await harness.resources.parked.park(
        parked_callback(harness, harness.callback(state.payments[0], age_s=six_hours), received_ago_s=six_hours)
    )
    assert await drain_parked(harness.resources) == 1
    received_at = (await stored_callback.row())["received_at"]
    assert isinstance(received_at, datetime)
    assert datetime.now(UTC) - received_at > timedelta(hours=5)


async def test_a_callback_that_was_stale_when_received_is_dropped(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    await harness.resources.parked.park(parked_callback(harness, harness.callback(state.payments[0], age_s=3600)))
    assert await drain_parked(harness.resources) == 1
    assert (await harness.resources.parked.count(), await stored_callback.count()) == (0, 0)


async def test_a_parked_callback_that_arrives_again_has_one_row(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    await harness.resources.parked.park(parked_callback(harness, callback))
    await harness.receive("main", callback)
    await drain_parked(harness.resources)
    row = await stored_callback.row()
    assert (row["copies"], row["is_handled"]) == (2, True)


async def test_a_parked_callback_stays_in_redis_when_postgres_fails_again(
    harness: FlowHarness, resources_without_database: Resources
) -> None:
    state = await harness.placed_order()
    await harness.resources.parked.park(parked_callback(harness, harness.callback(state.payments[0])))
    with pytest.raises(DatabaseUnavailable):
        await drain_parked(resources_without_database)
    assert await harness.resources.parked.count() == 1


async def test_a_callback_that_hits_a_bug_is_acknowledged_and_retried(
    harness: FlowHarness, stored_callback: StoredCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback is stored, so more copies from the channel would not help."""
    state = await harness.placed_order()
    harness.simulation.faults.profile = FaultProfile()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("flows.callback.plan_callback", fail)
        assert (await harness.receive("main", harness.callback(state.payments[0]))).body == b"ok"
        await stored_callback.compensate()
    row = await stored_callback.row()
    assert (row["is_handled"], row["attempt"]) == (False, 2)


async def test_a_redis_that_hangs_holds_no_slot(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot is free again once the handling has ended, while the job of the compensation still waits for Redis."""
    state = await harness.placed_order()
    harness.call_fault(state.payments[0], "answered_5xx")
    is_hanging, is_released = asyncio.Event(), asyncio.Event()

    async def hang(*_: object) -> None:
        is_hanging.set()
        await is_released.wait()

    slots = harness.resources.confirm_slots
    monkeypatch.setattr("flows.callback.arm_jobs", hang)
    receiving = asyncio.create_task(harness.receive("main", harness.callback(state.payments[0])))
    await is_hanging.wait()
    assert slots._value == harness.resources.settings.callback_confirm_slots
    assert not receiving.done()
    is_released.set()
    assert (await receiving).body == b"ok"


@pytest.mark.parametrize("function", ["arm_jobs", "query_now"])
async def test_a_bug_beside_the_handling_is_acknowledged(
    harness: FlowHarness, stored_callback: StoredCallback, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    state = await harness.placed_order()
    harness.call_fault(state.payments[0], "answered_5xx")

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(f"flows.callback.{function}", broken)
    assert (await harness.receive("main", harness.callback(state.payments[0]))).body == b"ok"
    assert await stored_callback.count() == 1
    assert harness.resources.confirm_slots._value == harness.resources.settings.callback_confirm_slots


async def test_what_the_request_leaves_undone_is_armed_before_the_acknowledgement(
    harness: FlowHarness, stored_callback: StoredCallback
) -> None:
    state = await harness.placed_order()
    harness.call_fault(state.payments[0], "answered_5xx")
    assert (await harness.receive("main", harness.callback(state.payments[0]))).body == b"ok"
    row = await stored_callback.row()
    assert await armed_jobs(harness) == [f"c:{row['id']}:1"]


async def test_a_callback_that_is_handled_in_its_request_arms_nothing(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
    assert (await harness.receive("main", callback)).body == b"ok"
    assert await armed_jobs(harness) == []


async def test_a_cancelled_request_leaves_its_slot(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.simulation.faults.profile = FaultProfile(slow=1.0, slow_s=30.0)
    slots = harness.resources.confirm_slots
    for step in range(12):
        callback = harness.callback(state.payments[0], number=f"{step:016x}")
        receiving = asyncio.create_task(harness.receive("main", callback))
        for _ in range(step * 3):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    assert slots._value == harness.resources.settings.callback_confirm_slots
