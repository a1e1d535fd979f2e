"""The overview: figures of a span beside what is open now."""

from datetime import timedelta

import pytest

from core.rollups import SPANS, Scope, Step, bucket_of
from flows.overview import CurrencySum, read_account, read_overview
from flows.rollup import TallyWriter, roll_up
from storage.postgres import rollups
from storage.postgres.accounts import enable_account
from storage.postgres.orders import find_now
from tests.flows.conftest import AMOUNT, HOOK, FlowHarness


async def test_it_shows_what_happened_and_what_is_open(harness: FlowHarness) -> None:
    await harness.add_account("idle")
    repaired, waiting = [await harness.placed_order(notify_url=HOOK) for _ in range(2)]
    harness.pay(repaired.payments[0])
    await harness.run_query_job(repaired)
    await TallyWriter(harness.resources.db, harness.resources.tallies).write_once()
    await roll_up(harness.resources)
    for span in SPANS.values():
        seen = await read_overview(harness.resources, span)
        assert (seen.placed, seen.paid.paid, seen.paid.by, seen.paid.unheard) == (2, 1, {"query": 1}, 1), span
        assert seen.paid.unheard_money == [CurrencySum(currency="CNY", amount=AMOUNT)]
        assert seen.paid.time_to_repair.count == sum(seen.repaired_slots) == 1
        assert (len(seen.buckets), sum(each.paid for each in seen.buckets)) == (span.size, 1)
    seen = await read_overview(harness.resources, SPANS["1h"])
    [idle, main] = seen.accounts
    assert (idle.account, idle.paid.paid, idle.calls, idle.channel) == ("idle", 0, 0, "sandbox")
    assert (main.account, main.paid.paid, main.rate_per_s) == ("main", 1, 50)
    assert main.calls >= 3
    assert main.call_latency.count == main.calls
    [endpoint] = seen.endpoints
    assert (endpoint.endpoint, endpoint.undelivered, endpoint.delivered) == (HOOK, 1, 0)
    assert seen.live.backlog.pending == len(waiting.payments) + 1
    assert sum(seen.live.queries.by_attempt) == sum(seen.live.queries.by_age) == 1
    assert [lane.lane for lane in seen.live.lanes] == ["fresh", "queries", "notifications"]
    assert seen.silent == []


async def test_an_account_that_is_switched_off_is_still_there(harness: FlowHarness) -> None:
    """Without any figures: else nobody would find it to switch it on again."""
    await harness.add_account("idle")
    await enable_account(harness.resources.db, "idle", enabled=False)
    seen = await read_overview(harness.resources, SPANS["1h"])
    assert [(each.account, each.channel, each.rate_per_s) for each in seen.accounts] == [
        ("idle", "sandbox", None),
        ("main", "sandbox", 50),
    ]
    alone = await read_account(harness.resources, "idle", SPANS["1h"])
    assert (alone.figures.channel, alone.figures.rate_per_s) == ("sandbox", None)


async def test_one_account_is_shown_alone(harness: FlowHarness) -> None:
    await harness.add_account("other")
    for account in ("main", "other", "other"):
        state = await harness.placed_order(account)
        harness.pay(state.payments[0])
        await harness.run_query_job(state)
    await roll_up(harness.resources)
    seen = await read_account(harness.resources, "other", SPANS["1h"])
    assert (seen.figures.account, seen.figures.paid.paid, sum(seen.paid_slots)) == ("other", 2, 2)
    assert sum(each.paid for each in seen.buckets) == 2
    gone = await read_account(harness.resources, "gone", SPANS["90d"])
    assert (gone.figures.channel, gone.figures.paid.paid, len(gone.buckets)) == (None, 0, 90)


async def test_a_silent_account_comes_first(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await harness.add_account("zz")
    for _ in range(5):
        state = await harness.placed_order("zz")
        harness.pay(state.payments[0])
        await harness.run_query_job(state)
    await harness.resources.db.execute("UPDATE payments SET paid_at = paid_at - interval '3 min'")
    seen = await read_overview(harness.resources, SPANS["1h"])
    assert [(each.account, each.is_silent) for each in seen.accounts] == [("zz", True), ("main", False)]
    assert [each.account for each in seen.silent] == ["zz"]


async def test_ninety_days_are_read_from_days(harness: FlowHarness) -> None:
    today = bucket_of(await find_now(harness.resources.db), Step.DAY)
    for days in (0, 89, 90):
        await harness.resources.db.execute(
            "INSERT INTO rollups (step, at, scope, name, figures)"
            " VALUES (86400, $1, 'account', 'main', $2::text::jsonb)",
            today - timedelta(days=days),
            '{"paid": 1}',
        )
    seen = await read_overview(harness.resources, SPANS["90d"])
    assert (seen.paid.paid, seen.buckets[0].paid, seen.buckets[-1].paid) == (2, 1, 1)
    assert len(await rollups.read_one(harness.resources.db, Step.DAY, seen.since, Scope.ACCOUNT, "main")) == 2
