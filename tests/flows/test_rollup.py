"""Roll-ups made by the duty, and what a process counts on its way: calls and deliveries."""

import dataclasses
from collections import defaultdict
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from core.errors import DatabaseUnavailable
from core.rollups import CALL_BOUNDS_S, Scope, Step, Tally, bucket_of, first_of_minutes, merged
from flows import notify, rollup
from flows.notify import Delivery, Notifier, push_claimed
from flows.rollup import TallyWriter, roll_up
from flows.silence import find_silent_accounts
from storage.postgres import notifications, rollups
from storage.postgres.database import Database
from storage.postgres.orders import find_now
from tests.flows.conftest import HOOK, FlowHarness
from tests.storage.postgres.tools import placed


async def day_of(harness: FlowHarness, scope: Scope, name: str, *, days: int = 2) -> dict[str, int]:
    """The figures of today and yesterday, should midnight pass meanwhile, or of more days."""
    since = await find_now(harness.resources.db) - timedelta(days=days)
    rows = await rollups.read_one(harness.resources.db, Step.DAY, since, scope, name)
    return merged(row.figures for row in rows)


BUCKETS = "SELECT count(*) FROM rollups WHERE step = 300 AND scope = 'all'"


async def placed_before(db: Database, days: int) -> None:
    """An order of long ago: from then on, buckets are computed."""
    await placed(db, "long-ago")
    await db.execute(
        "UPDATE orders SET version = version + 1, created_at = created_at - make_interval(days => $1)"
        " WHERE order_no = 'long-ago'",
        days,
    )


async def test_a_new_database_has_one_hour_to_compute(harness: FlowHarness) -> None:
    assert await roll_up(harness.resources) is False
    assert await harness.resources.db.fetchval(BUCKETS) <= 12
    await harness.placed_order()
    assert await roll_up(harness.resources) is False
    assert await harness.resources.db.fetchval(BUCKETS) <= 24
    assert (await day_of(harness, Scope.ALL, ""))["placed"] == 1


async def test_the_duty_makes_all_buckets_from_what_happened(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "BATCH", 400)
    monkeypatch.setattr(rollup, "FILL_BATCH", 100)
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.run_query_job(state)
    db = harness.resources.db
    await placed_before(db, days=3)
    await TallyWriter(db, harness.resources.tallies).write_once()
    assert await roll_up(harness.resources) is True, "two days have more than 400 buckets"
    assert await roll_up(harness.resources) is False
    figures = await day_of(harness, Scope.ACCOUNT, "main")
    assert (figures["paid"], figures["by:query"], figures["unheard"]) == (1, 1, 1)
    assert figures["calls"] == 2
    now = await find_now(db)
    for step, since in ((Step.MINUTES, first_of_minutes(now)), (Step.HOUR, first_of_minutes(now))):
        computed = await rollups.find_computed(db, step, since, now)
        assert len(computed) == (bucket_of(now, step) - since) // timedelta(seconds=step) + 1


async def test_days_without_a_worker_are_filled_from_what_is_kept_some_hours_at_a_time(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was off for four days: the hours between its last one and the five minutes that are computed."""
    monkeypatch.setattr(rollup, "BATCH", 1000)
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.run_query_job(state)
    db = harness.resources.db
    now = await find_now(db)
    paid_at = bucket_of(now, Step.HOUR) - timedelta(hours=75, minutes=30)
    for statement in ("UPDATE orders SET version = version + 1, created_at = $1", "UPDATE order_events SET at = $1"):
        await db.execute(statement, paid_at)
    assert await roll_up(harness.resources) is True
    assert await day_of(harness, Scope.ACCOUNT, "main", days=6) == {}, "the newest hours come first"
    while await roll_up(harness.resources):
        pass
    figures = await day_of(harness, Scope.ACCOUNT, "main", days=6)
    assert (figures["paid"], (await day_of(harness, Scope.ALL, "", days=6))["placed"]) == (1, 1)
    since = bucket_of(paid_at, Step.DAY)
    hours = await rollups.find_computed(db, Step.HOUR, since, now)
    assert len(hours) >= (bucket_of(now, Step.HOUR) - since) // timedelta(hours=1) + 1, "there is no hole"
    filled = []

    async def note(_db: object, start: object) -> None:
        filled.append(start)

    monkeypatch.setattr(rollups, "fill_hour", note)
    assert await roll_up(harness.resources) is False
    assert filled == [], "and what was filled is not filled again"


async def test_no_more_is_filled_than_callbacks_are_kept(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them every payment would seem to be one that nobody heard of."""
    monkeypatch.setattr(rollup, "BATCH", 1000)
    await harness.placed_order()
    await harness.resources.db.execute(
        "UPDATE orders SET version = version + 1, created_at = created_at - interval '90 days'"
    )
    filled: list[datetime] = []

    async def note(_db: object, start: datetime) -> None:
        filled.append(start)

    monkeypatch.setattr(rollups, "fill_hour", note)
    monkeypatch.setattr(rollup, "FILL_BATCH", 10_000)
    settings = replace(harness.resources.settings, callbacks_keep_days=5)
    await roll_up(dataclasses.replace(harness.resources, settings=settings))
    assert filled
    assert min(filled) == bucket_of(await find_now(harness.resources.db), Step.DAY) - timedelta(days=4)


async def test_a_worker_that_died_before_an_hour_was_summed_up_leaves_no_hole(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "BATCH", 1000)
    await harness.placed_order()

    async def die(*_: object) -> None:
        raise DatabaseUnavailable("the process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(rollups, "sum_up", die)
        with pytest.raises(DatabaseUnavailable):
            await roll_up(harness.resources)
    await roll_up(harness.resources)
    assert (await day_of(harness, Scope.ALL, ""))["placed"] == 1


async def test_a_run_without_anything_new_computes_the_current_bucket_alone(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "BATCH", 1000)
    await roll_up(harness.resources)
    computed = []

    async def note(_db: object, start: object) -> None:
        computed.append(start)

    monkeypatch.setattr(rollups, "compute", note)
    await harness.resources.db.execute("UPDATE rollups SET computed_at = computed_at + interval '1 day'")
    now = await find_now(harness.resources.db)
    await roll_up(harness.resources)
    assert computed in ([bucket_of(now, Step.MINUTES)], [bucket_of(now, Step.MINUTES) + timedelta(minutes=5)])


async def test_calls_of_a_channel_are_counted_with_their_latency_and_without_an_answer(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    tallies = harness.resources.tallies
    before = dict(tallies)
    await harness.run_query_job(state)
    assert tallies[Tally("account", "main", "calls")] == before[Tally("account", "main", "calls")] + 1
    harness.call_fault(state.payments[0], "answered_5xx")
    await harness.run_query_job(state)
    assert tallies[Tally("account", "main", "calls_unanswered")] == 1
    slots = [tallies.get(Tally("account", "main", f"call_s:{slot}"), 0) for slot in range(len(CALL_BOUNDS_S) + 1)]
    assert sum(slots) == tallies[Tally("account", "main", "calls")]


async def test_a_call_that_is_held_back_is_counted_by_its_reason(harness: FlowHarness) -> None:
    slow = await harness.add_account("slow", rate_per_s=1)
    states = [await harness.placed_order(slow) for _ in range(1)]
    for _ in range(5):
        await harness.run_query_job(states[0])
    held = harness.resources.tallies[Tally("account", "slow", "held:rate")]
    assert held >= 1
    assert harness.resources.tallies[Tally("account", "slow", "calls")] + held == 6


class Answering:
    """A notifier whose merchant answers with these statuses, one after the other."""

    def __init__(self, notifier: Notifier, *statuses: str) -> None:
        self.hosts = notifier.hosts
        self._statuses = list(statuses)

    async def deliver(self, _outgoing: object) -> Delivery:
        status = self._statuses.pop(0)
        return Delivery(ok=status == "200", status=status)


async def test_deliveries_are_counted_by_endpoint(harness: FlowHarness) -> None:
    state = await harness.placed_order(notify_url=f"{HOOK}?order=1")
    await harness.receive("main", harness.callback(state.payments[0], transaction=None))
    harness.pay(state.payments[0])
    await harness.run_query_job(state)
    async with Notifier(harness.resources.settings) as notifier:
        answering = Answering(notifier, "503", "200")
        for _ in range(2):
            await harness.make_due()
            [outgoing] = await notifications.claim_overdue(harness.resources.db, grace_s=0.0, limit=9, lease_s=20.0)
            await push_claimed(harness.resources, answering, outgoing)  # type: ignore[arg-type]  # it only delivers
    tallies = harness.resources.tallies
    assert (tallies[Tally("endpoint", HOOK, "tries")], tallies[Tally("endpoint", HOOK, "tries_failed")]) == (2, 1)


async def test_an_endpoint_that_is_counted_stays_so_when_a_merchant_names_each_order(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TALLIES_MAX", 3)
    async with Notifier(harness.resources.settings) as notifier:
        for path in ("", "/1", "/2", ""):
            state = await harness.placed_order(notify_url=f"{HOOK}{path}")
            harness.pay(state.payments[0])
            await harness.run_query_job(state)
            [outgoing] = await notifications.claim_overdue(harness.resources.db, grace_s=-1.0, limit=9, lease_s=20.0)
            await push_claimed(harness.resources, Answering(notifier, "200"), outgoing)  # type: ignore[arg-type]
    tallies = harness.resources.tallies
    counted = {tally.name: count for tally, count in tallies.items() if tally.key == "tries"}
    assert counted[HOOK] == 2
    assert counted[""] >= 1


# -- writing -----------------------------------------------------------------------------------------------------------


async def test_what_was_counted_is_written_once_though_its_answer_was_lost(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallies = defaultdict[Tally, int](int, {Tally("account", "main", "calls"): 2})
    writer = TallyWriter(harness.resources.db, tallies)
    add = rollups.add_tallies

    async def add_and_lose(*arguments: object) -> None:
        await add(*arguments)  # type: ignore[arg-type]  # those of `add_tallies`
        raise DatabaseUnavailable("the connection was cut")

    with monkeypatch.context() as patch:
        patch.setattr(rollups, "add_tallies", add_and_lose)
        with pytest.raises(DatabaseUnavailable):
            await writer.write_once()
    tallies[Tally("account", "main", "calls")] += 5
    assert await writer.write_once() == 1
    assert await writer.write_once() == 1
    assert await writer.write_once() == 0
    assert await harness.fetch_value("SELECT sum((figures->>'calls')::int) FROM tallies") == 7


# -- silence -----------------------------------------------------------------------------------------------------------


async def test_an_account_whose_callbacks_stop_is_called_out_and_is_not_when_they_come_again(
    harness: FlowHarness,
) -> None:
    for _ in range(3):
        await _paid_by_query(harness)
    assert await find_silent_accounts(harness.resources.db, grace_s=0.0) == []
    for _ in range(2):
        await _paid_by_query(harness)
    [silent] = await find_silent_accounts(harness.resources.db, grace_s=0.0)
    assert (silent.account, silent.payments, silent.heard) == ("main", 5, 0)
    assert await find_silent_accounts(harness.resources.db, grace_s=3600.0) == [], "their callbacks may still come"
    for _ in range(5):
        state = await harness.placed_order()
        harness.pay(state.payments[0])
        await harness.receive(
            "main", harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
        )
    assert await find_silent_accounts(harness.resources.db, grace_s=0.0) == []


async def _paid_by_query(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.run_query_job(state)
