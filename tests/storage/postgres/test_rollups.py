"""Roll-ups: what is counted, that counting again changes nothing, and that no table is read whole."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.decision import Decision
from core.evidence import Evidence, Source
from core.lifecycle import on_deadline, on_query
from core.order import OrderState, PaymentKey
from core.rollups import HEARD_S, KEEP_S, SPAN_BOUNDS_S, Scope, Step, bucket_of, histogram, merged
from storage.postgres import callbacks, inbox, last_payments, live, notifications, rollups
from storage.postgres.database import Database
from storage.postgres.orders import find_now
from tests.sealed import SEALER
from tests.storage.postgres.plans import wide_plans
from tests.storage.postgres.tools import RULES, closed, moved, number, paid, placed, started, unpaid

HOOK = "https://shop.test/hook"


async def pay(db: Database, order_no: str, by: Source = Source.QUERY, *, key: PaymentKey | None = None) -> None:
    of = key or number(order_no)
    evidence = paid(key=of, transaction=f"t-{of.out_trade_no}")

    def decide(state: OrderState) -> Decision:
        return on_query(state, of, evidence, RULES, by)

    await moved(db, order_no, decide)


async def receive(db: Database, evidence: Evidence, *, name: str = "evt") -> None:
    stored = await inbox.insert_callback(
        db,
        SEALER,
        account="alipay",
        notification_id=f"{name}-{evidence.out_trade_no}",
        headers={},
        body=b"{}",
        evidence=evidence,
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
    )
    assert await callbacks.finish(db, stored.id, "paid")


async def deliver(db: Database) -> None:
    for outgoing in await notifications.claim_overdue(db, grace_s=0.0, limit=100, lease_s=20.0):
        assert await notifications.finish(db, outgoing.id, "200")


async def computed(db: Database) -> dict[tuple[Scope, str], dict[str, int]]:
    """The figures of now, by scope and name: of this bucket and of those beside it, should the time go on meanwhile."""
    now = await find_now(db)
    for offset in (-1, 0, 1):
        await rollups.compute(db, bucket_of(now + timedelta(seconds=offset * Step.MINUTES), Step.MINUTES))
    rows = await rollups.read(db, Step.MINUTES, now - timedelta(seconds=3 * Step.MINUTES))
    named: dict[tuple[Scope, str], list[Mapping[str, int]]] = {}
    for row in rows:
        named.setdefault((row.scope, row.name), []).append(row.figures)
    return {key: merged(several) for key, several in named.items()}


async def test_payments_are_counted_by_what_brought_the_news(db: Database) -> None:
    ways = [Source.CALLBACK, Source.COMPENSATION, Source.QUERY, Source.QUERY, Source.REFRESH, Source.RECONCILIATION]
    for index, by in enumerate(ways):
        await placed(db, f"A-{index}")
        await pay(db, f"A-{index}", by)
    figures = await computed(db)
    assert figures[Scope.ALL, ""] == {"placed": 6}
    account = figures[Scope.ACCOUNT, "alipay"]
    assert {key: value for key, value in account.items() if key.startswith("by:")} == {
        "by:callback": 1,
        "by:compensation": 1,
        "by:query": 2,
        "by:refresh": 1,
        "by:reconciliation": 1,
    }
    assert (account["paid"], account["paid_amount:CNY"], account["expected"]) == (6, 6 * 8888, 6)
    assert (account["unheard"], account["unheard_amount:CNY"]) == (4, 4 * 8888)


async def test_a_payment_whose_callback_came_too_is_heard(db: Database) -> None:
    for order_no in ("A-1", "A-2", "A-3"):
        await placed(db, order_no)
        await pay(db, order_no)
    await receive(db, paid("A-1"))
    await receive(db, unpaid("A-2"))
    # filed under the channel's id
    await receive(db, paid("A-3", key=PaymentKey("alipay", "t-alipay-A-3")))
    account = (await computed(db))[Scope.ACCOUNT, "alipay"]
    assert (account["expected"], account["unheard"]) == (3, 1)
    assert (account["callbacks"], account["callbacks_paid"]) == (3, 2)


async def test_a_callback_that_came_after_ten_minutes_is_too_late(db: Database) -> None:
    await placed(db)
    await pay(db, "A-1")
    await receive(db, paid())
    await db.execute("UPDATE callbacks SET received_at = received_at + make_interval(secs => $1)", float(HEARD_S - 60))
    assert "unheard" not in (await computed(db))[Scope.ACCOUNT, "alipay"]
    await db.execute("UPDATE callbacks SET received_at = received_at + interval '2 min'")
    assert (await computed(db))[Scope.ACCOUNT, "alipay"]["unheard"] == 1


async def test_the_callbacks_of_a_watched_payment_go_elsewhere(db: Database) -> None:
    await placed(db)
    await pay(db, "A-1")
    await db.execute("UPDATE payments SET origin = 'watched'")
    account = (await computed(db))[Scope.ACCOUNT, "alipay"]
    assert (account["paid"], account.get("expected"), account.get("unheard")) == (1, None, None)


async def test_the_time_to_repair_is_that_since_the_channel_had_the_money(db: Database) -> None:
    for index, (by, seconds) in enumerate([(Source.CALLBACK, 3), (Source.QUERY, 61), (Source.SWEEP, 4000)]):
        await placed(db, f"A-{index}")
        await pay(db, f"A-{index}", by)
        await db.execute(
            "UPDATE payments SET paid_at = (SELECT at FROM order_events e WHERE e.order_no = payments.order_no"
            " AND kind = 'paid') - make_interval(secs => $2) WHERE order_no = $1",
            f"A-{index}",
            float(seconds),
        )
    account = (await computed(db))[Scope.ACCOUNT, "alipay"]
    assert [slot for slot, count in enumerate(histogram(account, "paid_s", SPAN_BOUNDS_S)) if count] == [2, 6, 11]
    assert [slot for slot, count in enumerate(histogram(account, "repaired_s", SPAN_BOUNDS_S)) if count] == [6, 11]


async def test_late_and_double_money_and_closed_orders_are_counted(db: Database) -> None:
    await placed(db, "late", expires_in_s=-1)
    await moved(db, "late", lambda state: on_query(state, number("late"), closed("late"), RULES, Source.CLOSE))
    await moved(db, "late", lambda state: on_deadline(state, RULES))
    await pay(db, "late")
    twin = number("double", "wechat")
    await placed(db, "double")
    await started(db, "double", twin)
    await pay(db, "double")
    await pay(db, "double", key=twin)
    figures = await computed(db)
    assert figures[Scope.ALL, ""] == {"placed": 2, "closed": 1}
    alipay, wechat = figures[Scope.ACCOUNT, "alipay"], figures[Scope.ACCOUNT, "wechat"]
    assert (alipay["paid"], alipay["late"], wechat["paid"], wechat["double"]) == (2, 1, 1, 1)


async def test_notifications_are_counted_by_endpoint_without_its_query(db: Database) -> None:
    for order_no, url in (("A-1", HOOK), ("A-2", f"{HOOK}?order=A-2#x"), ("A-3", "https://other.test/")):
        await placed(db, order_no, notify_url=url)
        await pay(db, order_no)
    await db.execute("UPDATE notifications SET attempt = 3 WHERE order_no = 'A-2'")
    [dead] = await db.fetch("UPDATE notifications SET dead_at = now() WHERE order_no = 'A-3' RETURNING id")
    await deliver(db)
    figures = await computed(db)
    hook = figures[Scope.ENDPOINT, HOOK]
    assert {key: hook[key] for key in ("delivered", "first_try", "attempts")} == {
        "delivered": 2,
        "first_try": 1,
        "attempts": 4,
    }
    assert sum(histogram(hook, "delivered_s", SPAN_BOUNDS_S)) == 2
    assert figures[Scope.ENDPOINT, "https://other.test/"] == {"dead": 1, "attempts": 1}, dead


async def test_the_endpoints_of_a_merchant_that_names_each_order_become_few(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "ENDPOINTS_MAX", 50)
    for index in range(52):
        await placed(db, f"A-{index}", notify_url=f"{HOOK}/{index}")
        await pay(db, f"A-{index}")
    await deliver(db)
    figures = await computed(db)
    endpoints = {name: each["delivered"] for (scope, name), each in figures.items() if scope is Scope.ENDPOINT}
    assert (len(endpoints), sum(endpoints.values()), endpoints[""]) == (51, 52, 2)


async def test_what_processes_counted_is_in_the_bucket_in_which_they_wrote_it_and_once(db: Database) -> None:
    counted = [("account", "main", {"calls": 3, "call_s:2": 3}), ("endpoint", HOOK, {"tries": 2})]
    for source, sequence in (("a", 0), ("a", 0), ("a", 1), ("b", 0)):
        await rollups.add_tallies(db, source, sequence, counted)
    figures = await computed(db)
    assert figures[Scope.ACCOUNT, "main"] == {"calls": 9, "call_s:2": 9}
    assert figures[Scope.ENDPOINT, HOOK] == {"tries": 6}


# -- computed whole ----------------------------------------------------------------------------------------------------


async def rows_of(db: Database, step: Step) -> list[dict[str, Any]]:
    columns = "step, at, scope, name, figures::text AS figures"
    return [
        dict(row)
        for row in await db.fetch(f"SELECT {columns} FROM rollups WHERE step = $1 ORDER BY at, scope, name", int(step))  # noqa: S608 - ours
    ]


async def test_a_bucket_that_is_computed_again_is_the_same(db: Database) -> None:
    await placed(db, notify_url=HOOK)
    await pay(db, "A-1")
    await deliver(db)
    first = await computed(db)
    rows = await rows_of(db, Step.MINUTES)
    assert await computed(db) == first
    assert await rows_of(db, Step.MINUTES) == rows


async def test_a_late_row_is_in_the_bucket_when_that_is_computed_again_and_a_moved_one_is_no_more(db: Database) -> None:
    await placed(db)
    await pay(db, "A-1")
    await placed(db, "B-1", payment=None)
    assert (await computed(db))[Scope.ACCOUNT, "alipay"]["paid"] == 1
    await pay(db, "B-1")
    assert (await computed(db))[Scope.ACCOUNT, "alipay"]["paid"] == 2
    await db.execute("UPDATE order_events SET at = at - interval '1 h'")
    assert (Scope.ACCOUNT, "alipay") not in await computed(db)


async def test_an_event_belongs_to_the_bucket_that_begins_with_it_and_not_to_the_one_before(db: Database) -> None:
    begin = datetime(2026, 11, 27, 12, tzinfo=UTC)
    await placed(db)
    await pay(db, "A-1")
    await db.execute("UPDATE order_events SET at = $1 WHERE kind = 'paid'", begin)
    for start in (begin - timedelta(seconds=Step.MINUTES), begin):
        await rollups.compute(db, start)
    rows = await rollups.read_one(db, Step.MINUTES, begin - timedelta(hours=1), Scope.ACCOUNT, "alipay")
    assert [row.at for row in rows] == [begin]


async def test_a_bucket_in_which_nothing_happened_is_known_to_be_computed(db: Database) -> None:
    now = await find_now(db)
    start = bucket_of(now, Step.MINUTES)
    since = start - timedelta(hours=1)
    before = await rollups.find_computed(db, Step.MINUTES, since, now)
    await rollups.compute(db, start)
    after = await rollups.find_computed(db, Step.MINUTES, since, now)
    assert (before, list(after)) == ({}, [start])
    assert after[start] >= now
    assert await rollups.find_computed(db, Step.MINUTES, since, start - timedelta(seconds=1)) == {}
    assert await rollups.find_computed(db, Step.HOUR, bucket_of(now, Step.HOUR), now) == {}


async def test_hours_are_the_sums_of_their_minutes_and_days_of_their_hours(db: Database) -> None:
    day = datetime(2026, 11, 27, tzinfo=UTC)
    minutes = {day: 1, day + timedelta(minutes=55): 2, day + timedelta(hours=1): 4, day + timedelta(hours=23): 8}
    for at, count in minutes.items():
        await db.execute(
            "INSERT INTO rollups (step, at, scope, name, figures) VALUES"
            " (300, $1, 'account', 'main', jsonb_build_object('paid', $2::int, 'by:query', 1))",
            at,
            count,
        )
    for hour in (0, 1, 23):
        await rollups.sum_up(db, Step.HOUR, day + timedelta(hours=hour))
    await rollups.sum_up(db, Step.DAY, day)
    hours = await rollups.read_one(db, Step.HOUR, day, Scope.ACCOUNT, "main")
    assert [(row.at.hour, row.figures["paid"]) for row in hours] == [(0, 3), (1, 4), (23, 8)]
    [whole] = await rollups.read_one(db, Step.DAY, day, Scope.ACCOUNT, "main")
    assert (whole.at, whole.figures) == (day, {"paid": 15, "by:query": 4})
    await db.execute("DELETE FROM rollups WHERE step = 300 AND at >= $1", day + timedelta(hours=1))
    await rollups.sum_up(db, Step.HOUR, day + timedelta(hours=1))
    assert [row.at.hour for row in await rollups.read_one(db, Step.HOUR, day, Scope.ACCOUNT, "main")] == [0, 23]


async def happened(db: Database, at: datetime) -> None:
    """An order that was paid, notified and heard of at one instant."""
    await placed(db, notify_url=HOOK)
    await pay(db, "A-1")
    await receive(db, paid())
    await deliver(db)
    for change in (
        "UPDATE orders SET version = version + 1, created_at = $1",
        "UPDATE order_events SET at = $1",
        "UPDATE payments SET paid_at = $1",
        "UPDATE callbacks SET received_at = $1, handled_at = $1",
        "UPDATE notifications SET created_at = $1, delivered_at = $1",
    ):
        await db.execute(change, at)


async def test_an_hour_from_the_tables_is_the_sum_of_its_five_minutes(db: Database) -> None:
    hour = datetime(2026, 11, 20, 12, tzinfo=UTC)
    await happened(db, hour + timedelta(minutes=33))
    for nth in range(12):
        await rollups.compute(db, hour + timedelta(minutes=5 * nth))
    await rollups.sum_up(db, Step.HOUR, hour)
    summed = await rollups.read(db, Step.HOUR, hour)
    assert {(row.scope, row.name) for row in summed} == {
        (Scope.ALL, ""),
        (Scope.ACCOUNT, "alipay"),
        (Scope.ENDPOINT, HOOK),
    }
    await db.execute("DELETE FROM rollups")
    for _ in range(2):
        await rollups.fill_hour(db, hour)
        assert await rollups.read(db, Step.HOUR, hour) == summed


async def test_an_hour_that_is_filled_keeps_what_processes_counted_in_a_part_of_it(db: Database) -> None:
    """Each count once, whether the tallies are still there, or are gone, or some of them are."""
    hour = datetime(2026, 11, 20, 12, tzinfo=UTC)
    await happened(db, hour + timedelta(minutes=33))
    for nth, (minute, calls) in enumerate([(2, 3), (40, 4)]):
        counts = [("account", "alipay", {"calls": calls, "call_s:1": calls}), ("account", "idle", {"held:rate": 1})]
        await rollups.add_tallies(db, "a", nth, counts)
        await db.execute("UPDATE tallies SET at = $1 WHERE number = $2", hour + timedelta(minutes=minute), nth)
    await rollups.compute(db, hour)
    await rollups.sum_up(db, Step.HOUR, hour)

    async def figures(name: str) -> Mapping[str, int]:
        [row] = await rollups.read_one(db, Step.HOUR, hour, Scope.ACCOUNT, name)
        return row.figures

    assert (await figures("alipay")).get("paid") is None, "the worker ended after five minutes"
    for _ in range(2):
        await rollups.fill_hour(db, hour)
        assert [(await figures("alipay"))[key] for key in ("paid", "calls", "call_s:1")] == [1, 7, 7]
    await db.execute("DELETE FROM tallies WHERE number = 1")
    await rollups.fill_hour(db, hour)
    await db.execute("DELETE FROM tallies")
    await rollups.fill_hour(db, hour)
    assert [(await figures("alipay"))[key] for key in ("paid", "calls", "call_s:1")] == [1, 7, 7]
    assert await figures("idle") == {"held:rate": 2}


async def test_the_first_row_is_the_oldest_order_or_what_was_counted_before_it(db: Database) -> None:
    assert await rollups.find_first(db) == (None, None)
    await rollups.add_tallies(db, "a", 0, [("account", "main", {"calls": 1})])
    tally_at = await db.fetchval("SELECT at FROM tallies")
    assert await rollups.find_first(db) == (None, tally_at)
    await placed(db)
    await placed(db, "B-1")
    order_at = await db.fetchval("SELECT min(created_at) FROM orders")
    assert await rollups.find_first(db) == (order_at, tally_at)


async def test_hours_and_days_have_no_more_endpoints_than_five_minutes(db: Database) -> None:
    """A merchant that names each order in its URLs has others in each five minutes."""
    day = datetime(2026, 11, 27, tzinfo=UTC)
    await db.execute(
        "INSERT INTO rollups (step, at, scope, name, figures)"
        " SELECT 300, $1::timestamptz + make_interval(secs => 300 * bucket), 'endpoint',"
        "        CASE WHEN n = 0 THEN 'https://busy.test/' ELSE 'https://m.test/' || bucket || '/' || n END,"
        "        jsonb_build_object('delivered', CASE WHEN n = 0 THEN 9 ELSE 1 END, 'tries', 1)"
        "   FROM generate_series(0, 23) AS bucket, generate_series(0, 39) AS n",
        day,
    )
    for hour in (0, 1):
        await rollups.sum_up(db, Step.HOUR, day + timedelta(hours=hour))
    await rollups.sum_up(db, Step.DAY, day)
    for step, buckets in ((Step.HOUR, 2), (Step.DAY, 1)):
        rows = await rollups.read(db, step, day)
        assert len(rows) == buckets * (rollups.ENDPOINTS_MAX + 1) + buckets, "the endpoints, the others and all"
        assert sum(row.figures.get("delivered", 0) for row in rows) == 24 * (9 + 39)
        busy = [row.figures["delivered"] for row in rows if row.name == "https://busy.test/"]
        assert sum(busy) == 24 * 9


async def test_old_buckets_are_deleted_and_those_that_are_shown_stay(db: Database) -> None:
    now = await find_now(db)
    for step, keep_s in KEEP_S.items():
        for age_s in (keep_s - 2 * step, keep_s + step):
            start = bucket_of(now - timedelta(seconds=age_s), step)
            await db.execute(
                "INSERT INTO rollups (step, at, scope, name, figures) VALUES ($1, $2, 'all', '', '{}')",
                int(step),
                start,
            )
    await rollups.add_tallies(db, "a", 0, [("account", "main", {"calls": 1})])
    await rollups.add_tallies(db, "a", 1, [("account", "main", {"calls": 1})])
    await db.execute("UPDATE tallies SET at = at - interval '1 day' WHERE number = 0")
    assert await rollups.delete_old(db) == 4
    assert [await db.fetchval("SELECT count(*) FROM rollups WHERE step = $1", int(step)) for step in KEEP_S] == [
        1,
        1,
        1,
    ]


# -- the last payments -------------------------------------------------------------------------------------------------


async def add_accounts(db: Database, *names: str) -> None:
    await db.execute(
        "INSERT INTO accounts (name, channel, sealed) SELECT unnest($1::text[]), 'alipay', ''", list(names)
    )


async def test_the_last_payments_are_the_newest_that_can_be_judged(db: Database) -> None:
    await add_accounts(db, "alipay", "idle")
    for index in range(13):
        await placed(db, f"A-{index}")
        await pay(db, f"A-{index}")
        await db.execute(
            "UPDATE payments SET paid_at = now() - make_interval(mins => $2) WHERE order_no = $1", f"A-{index}", index
        )
    await db.execute("UPDATE payments SET origin = 'watched' WHERE order_no = 'A-5'")
    await receive(db, paid("A-3"))
    await receive(db, closed("A-4"))
    [last] = await last_payments.find_last_payments(db, grace_s=90.0)
    assert (last.account, last.is_heard) == ("alipay", (False, True) + (False,) * 8)
    assert sorted(last.paid_at, reverse=True) == list(last.paid_at)


async def test_payments_of_the_day_before_and_of_accounts_that_are_switched_off_are_not_judged(db: Database) -> None:
    await add_accounts(db, "alipay")
    await placed(db)
    await pay(db, "A-1")
    assert len(await last_payments.find_last_payments(db, grace_s=0.0)) == 1
    await db.execute("UPDATE accounts SET enabled = false")
    assert await last_payments.find_last_payments(db, grace_s=0.0) == []
    await db.execute("UPDATE accounts SET enabled = true")
    await db.execute("UPDATE payments SET paid_at = paid_at - interval '25 h'")
    assert await last_payments.find_last_payments(db, grace_s=0.0) == []


async def test_the_past_of_an_account_is_its_days(db: Database) -> None:
    for days, figures in ((0, '{"expected": 5, "unheard": 5}'), (1, '{"expected": 50}'), (40, '{"expected": 9}')):
        await db.execute(
            "INSERT INTO rollups (step, at, scope, name, figures) VALUES"
            " (86400, date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - make_interval(days => $1),"
            " 'account', 'main', $2::text::jsonb)",
            days,
            figures,
        )
    past = await last_payments.find_past(db)
    assert sorted((day.payments, day.heard) for day in past["main"]) == [(5, 0), (50, 50)]


# -- this moment -------------------------------------------------------------------------------------------------------


async def test_pending_queries_are_counted_by_attempt_and_by_age(db: Database) -> None:
    for index, (attempt, age_s) in enumerate([(1, 5), (0, 61), (2, 61), (16, 4000), (17, 90_000)]):
        await placed(db, f"A-{index}")
        await db.execute(
            "UPDATE pending SET attempt = $2 WHERE order_no = $1 AND kind = 'query'", f"A-{index}", attempt
        )
        await db.execute(
            "UPDATE payments SET created_at = now() - make_interval(secs => $2) WHERE order_no = $1",
            f"A-{index}",
            float(age_s),
        )
    queries = await live.read_open_queries(db)
    assert (queries.by_attempt, queries.by_age, queries.deadlines) == ([2, 1, 0, 1, 1], [1, 2, 0, 1, 1], 5)
    assert not queries.is_more


# -- plans -------------------------------------------------------------------------------------------------------------

BOUNDED = (" LIMIT 20000", "LIMIT 100000")
"""Of statements that count rows up to a limit, in the order of an index."""


async def test_no_roll_up_reads_a_table_whole(new_database_url: str) -> None:
    """The plans are made while the tables are empty, and stay."""
    from tests.storage.postgres.tools import opened

    async with opened(new_database_url) as db:
        await add_accounts(db, "alipay")
        await db.execute("VACUUM ANALYZE")
        await placed(db, notify_url=HOOK)
        await pay(db, "A-1")
        await receive(db, paid())
        await computed(db)
        now = await find_now(db)
        await rollups.sum_up(db, Step.HOUR, bucket_of(now, Step.HOUR))
        await rollups.fill_hour(db, bucket_of(now, Step.HOUR))
        await rollups.find_first(db)
        await rollups.find_computed(db, Step.DAY, bucket_of(now, Step.DAY), now)
        await last_payments.find_last_payments(db, grace_s=0.0)
        found = {
            sql: parts for sql, parts in (await wide_plans(db)).items() if not any(mark in sql for mark in BOUNDED)
        }
        assert not found


async def test_a_roll_up_reads_the_rows_of_its_time_alone(db: Database) -> None:
    """Of a thousand events, callbacks and notifications of another day it reads none."""
    await placed(db, notify_url=HOOK)
    await pay(db, "A-1")
    await receive(db, paid())
    await deliver(db)
    await db.execute(
        """WITH old AS (SELECT generate_series(2, 1000) AS i)
           INSERT INTO order_events (order_no, version, kind, by, at, evidence)
           SELECT 'A-1', 100 + i, 'paid', 'query', now() - interval '2 days', '{}' FROM old"""
    )
    plan = await db.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {rollups._figures(Step.MINUTES, rollups._COUNTED)}",
        bucket_of(await find_now(db), Step.MINUTES),
        list(map(float, SPAN_BOUNDS_S)),
    )
    assert max(_rows_removed(plan)) < 100
    assert (await computed(db))[Scope.ACCOUNT, "alipay"]["paid"] == 1


def _rows_removed(plan: str) -> list[int]:
    import re

    return [0, *map(int, re.findall(r'"Rows Removed by (?:Filter|Index Recheck)": (\d+)', plan))]
