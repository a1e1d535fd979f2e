"""Leases of a worker that is gone: taken over within some beats, under a new token; money waits for the lease's end."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from core.decision import Outcome
from core.evidence import Source
from core.jobs import Lane
from core.order import OrderState, OrderStatus
from flows.query import query_leased, query_scheduled
from flows.take_over import STILL_BEATS, Beats, beat_once
from storage.postgres import callbacks, notifications, pending, processes, refunds
from storage.postgres.pending import Leased
from storage.redis.delay_queue import queue_name
from storage.redis.job_claims import JobClaims
from tests.flows.conftest import HOOK, FlowHarness

LEASE_S = 600.0
"""Nothing here waits for the end of a lease."""


async def leased_by_killed_worker(harness: FlowHarness, state: OrderState, *, is_for_money: bool = False) -> Leased:
    """Lease the payment's row as a worker that beat once and is not heard of again."""
    db = harness.resources.db
    await processes.beat(db, "killed")
    db.process = "killed"
    leased = await pending.claim(db, state.payments[0].key, LEASE_S, is_for_money=is_for_money)
    assert leased is not None
    return leased


async def beat_until_gone(harness: FlowHarness) -> int:
    """Beats of a living worker until one that stands still counts as gone; returns the rows taken over by the last."""
    beats = Beats("alive")
    counts = [await beat_once(harness.resources, beats) for _ in range(STILL_BEATS + 1)]
    assert counts[:-1] == [0] * STILL_BEATS
    return counts[-1]


# -- who is gone -------------------------------------------------------------------------------------------------------


def test_a_process_is_gone_when_its_beat_stands_still_for_some_of_ours() -> None:
    peers = Beats("b")
    assert [peers.gone({"a": 7}) for _ in range(STILL_BEATS)] == [[]] * STILL_BEATS
    assert peers.gone({"a": 7}) == ["a"]


def test_a_slow_process_is_not_gone_while_it_beats() -> None:
    peers = Beats("b")
    for beat in range(3):
        assert [peers.gone({"slow": beat}) for _ in range(STILL_BEATS)] == [[]] * STILL_BEATS


def test_a_process_that_comes_back_is_watched_anew() -> None:
    peers = Beats("b")
    for _ in range(STILL_BEATS + 1):
        peers.gone({"a": 7})
    peers.gone({})
    assert peers.gone({"a": 1}) == []


# -- what is taken over ------------------------------------------------------------------------------------------------


async def test_the_query_of_a_killed_worker_is_made_by_another_long_before_its_lease_ends(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await leased_by_killed_worker(harness, state)
    harness.pay(state.payments[0])
    assert await harness.run_query_job(state) is Outcome.STALE, "its lease is still held"

    assert await beat_until_gone(harness) == 1

    assert await harness.run_query_job(state) is Outcome.PAID
    assert (await harness.state(state)).order.status is OrderStatus.PAID


async def test_what_is_taken_over_is_armed_at_once_under_its_new_number(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await leased_by_killed_worker(harness, state)
    assert await harness.resources.db.execute("UPDATE pending SET due_at = now() - interval '1 s'") == 2
    await beat_until_gone(harness)
    claims = JobClaims(harness.resources.redis, queue_name(Lane.QUERIES), process="test", lease_ms=1000)
    claimed = (await claims.claim(10)).jobs
    assert [job.id.endswith(f"{state.payments[0].out_trade_no}:2") for job in claimed] == [True]


async def test_a_worker_that_was_only_slow_has_lost_its_token(harness: FlowHarness) -> None:
    """It schedules nothing and gives nothing back, but what its answer proves is committed."""
    state = await harness.placed_order()
    leased = await leased_by_killed_worker(harness, state)
    await beat_until_gone(harness)
    db, key = harness.resources.db, state.payments[0].key
    await harness.make_due()
    taken = await pending.claim(db, key, LEASE_S, arm_no=2)
    assert taken is not None

    assert await pending.reschedule(db, leased, delay_s=60.0) is None
    await pending.release(db, leased)
    row = await harness.pending_row(*key)
    assert row is not None
    assert (row.arm_no, row.attempt, row.is_leased) == (2, 1, True)

    assert await query_leased(harness.resources, leased, by=Source.QUERY) is Outcome.STILL_OPEN
    assert await harness.pending_row(*key) is not None
    row = await harness.pending_row(*key)
    assert row is not None
    assert (row.arm_no, row.attempt, row.is_leased) == (2, 1, True), "its attempt does not count"

    harness.pay(state.payments[0])
    assert await query_leased(harness.resources, leased, by=Source.QUERY) is Outcome.PAID


async def test_callbacks_and_notifications_are_taken_over(harness: FlowHarness) -> None:
    state = await harness.placed_order(notify_url=HOOK)
    harness.pay(state.payments[0])
    assert await harness.run_query_job(state) is Outcome.PAID
    await harness.receive("main", harness.callback(state.payments[0], number="unknown"))
    db = harness.resources.db
    await processes.beat(db, "killed")
    db.process = "killed"
    [callback] = await callbacks.claim_overdue(db, grace_s=-3600.0, limit=9, lease_s=LEASE_S)
    [outgoing] = await notifications.claim_overdue(db, grace_s=0.0, limit=9, lease_s=LEASE_S)

    assert await beat_until_gone(harness) == 2

    await harness.make_due()
    assert await callbacks.reschedule(db, callback, attempt=2, delay_s=60.0, outcome="late") is None
    assert await notifications.reschedule(db, outgoing, attempt=2, delay_s=60.0, status="late") is None
    assert await callbacks.claim(db, callback.id, LEASE_S, arm_no=callback.arm_no + 1) is not None
    assert await notifications.claim(db, outgoing.id, LEASE_S, arm_no=outgoing.arm_no + 1) is not None


async def test_money_waits_for_the_end_of_the_lease(harness: FlowHarness) -> None:
    """Neither a capture nor a refund is made by two processes at once, also when one of them is only slow."""
    late = await harness.order_with_late_money()
    [refund] = late.refunds
    state = await harness.placed_order()
    await leased_by_killed_worker(harness, state, is_for_money=True)
    assert await refunds.claim(harness.resources.db, refund.refund_no, LEASE_S, arm_no=1) is not None

    assert await beat_until_gone(harness) == 0

    assert await pending.claim(harness.resources.db, state.payments[0].key, LEASE_S) is None
    assert await refunds.claim(harness.resources.db, refund.refund_no, LEASE_S, arm_no=1) is None


async def test_only_leases_of_the_gone_that_still_last_are_ended(harness: FlowHarness) -> None:
    db = harness.resources.db
    state, other = await harness.placed_order(), await harness.placed_order()
    leased = await leased_by_killed_worker(harness, state)
    await pending.release(db, leased)
    await processes.beat(db, "alive")
    db.process = "alive"
    assert await pending.claim(db, other.payments[0].key, LEASE_S) is not None

    assert await beat_until_gone(harness) == 0

    assert await pending.claim(db, other.payments[0].key, LEASE_S) is None
    await harness.make_due()
    assert await query_scheduled(harness.resources, state.payments[0].key, 1) is Outcome.STILL_OPEN


async def test_after_a_restart_of_postgres_a_process_ends_its_own_leases(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that it could not give back, or never heard of, would keep everybody from their rows."""
    beats, db, key = Beats("alive"), harness.resources.db, (await harness.placed_order()).payments[0].key
    assert await beat_once(harness.resources, beats) == 0
    assert await pending.claim(db, key, LEASE_S) is not None
    assert await beat_once(harness.resources, beats) == 0
    beat = processes.beat

    async def beat_after_restart(*args: Any, **more: Any) -> processes.Seen:
        seen = await beat(*args, **more)
        return replace(seen, server_began_at=seen.server_began_at + timedelta(minutes=1))

    monkeypatch.setattr(processes, "beat", beat_after_restart)
    assert await beat_once(harness.resources, beats) == 1
    assert db.process != "alive", "what is leased from now on is another process's"
    assert await pending.claim(db, key, LEASE_S) is not None
    assert await beat_once(harness.resources, beats) == 0
    assert await pending.claim(db, key, LEASE_S) is None


async def test_a_process_that_is_gone_is_forgotten(harness: FlowHarness) -> None:
    await leased_by_killed_worker(harness, await harness.placed_order())
    await beat_until_gone(harness)
    assert (await processes.beat(harness.resources.db, "third")).others == {"alive": STILL_BEATS + 1}


async def test_calls_count_under_older_names_while_a_process_of_the_release_before_beats(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(harness.resources.admission, "count_with_older", lambda *, are_there: seen.append(are_there))
    db, beats = harness.resources.db, Beats("new")
    await beat_once(harness.resources, beats)
    await db.execute("INSERT INTO processes AS p (name) VALUES ('older')")
    for _ in range(STILL_BEATS + 1):
        await beat_once(harness.resources, beats)
    await beat_once(harness.resources, beats)
    assert seen == [False, *[True] * (STILL_BEATS + 1), False]
