"""The console's pages that are not about orders: the overview, callbacks, audit and runs; and what the worker reads for
them each minute, for alerts and roll-ups.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from core.order import CaseReason
from core.rollups import SPANS, Scope, Step, bucket_of
from flows.silence import find_silent_accounts
from storage.postgres import rollups
from storage.postgres.alert_facts import find_broken, read_stored_facts
from storage.postgres.audit import Filters, find_acts
from storage.postgres.backlog import read_backlog
from storage.postgres.callback_history import CallbackState, list_callbacks
from storage.postgres.cases import list_cases
from storage.postgres.closings import find_closing
from storage.postgres.database import Database
from storage.postgres.live import read_open_endpoints, read_open_queries
from storage.postgres.order_lists import OrderFilter, walk_by_filter
from storage.postgres.reconciliation.differences import list_differences
from storage.postgres.reconciliation.runs import list_reconciliations
from storage.postgres.refund_approvals import list_approvals

Work = Callable[[int], Awaitable[None]]

ENDPOINTS_MAX = 50
BUCKETS: Mapping[Step, int] = {Step.MINUTES: 600, Step.HOUR: 2_400, Step.DAY: 800}
"""As many as are kept."""

COPIES = (
    """
INSERT INTO audit (at, by, via, action, subject)
SELECT {at}, 'p-' || i % 20, 'console', CASE WHEN i % 100000 = 3 THEN 'rare' ELSE 'order.query' END, 'copy-' || i
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 10 = 3""",
    """
INSERT INTO refused_callbacks (channel_account, verdict, received_at, body_hash, body_bytes)
SELECT {account}, 'forged', {at}, sha256(i::text::bytea), 9
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 1000 = 5""",
)
"""Rows beside so many orders, in the words of `bench.console`."""

_ROLLUPS = """
INSERT INTO rollups (step, at, scope, name, figures)
SELECT $1::integer, to_timestamp((floor(extract(epoch FROM now()) / $1::integer) - n) * $1::integer), scope, name,
       figures
  FROM generate_series(0, $2::integer - 1) AS n,
       (SELECT 'all' AS scope, '' AS name, '{"placed": 9, "closed": 1}'::jsonb AS figures
        UNION ALL
        SELECT 'account', accounts.name, '{"paid": 8, "paid_amount:CNY": 800, "by:callback": 7, "by:query": 1,
               "paid_s:2": 8, "repaired_s:6": 1, "expected": 8, "unheard": 1, "callbacks": 9, "calls": 20,
               "call_s:2": 20}' FROM accounts
        UNION ALL
        SELECT 'endpoint', 'https://shop.test/' || e, '{"delivered": 8, "first_try": 7, "tries": 9, "try_s:1": 9}'
          FROM generate_series(1, $3::integer) AS e) AS each"""


async def fill_rollups(db: Database, orders: int) -> None:
    """Roll-ups as they are kept, of more endpoints the more orders there are."""
    endpoints = max(1, min(ENDPOINTS_MAX, orders // 20_000))
    for step, count in BUCKETS.items():
        await db.execute(_ROLLUPS, int(step), count, endpoints, timeout_s=600.0)
    await db.execute("VACUUM (ANALYZE) rollups", timeout_s=600.0)


def works_of(db: Database, orders: int) -> dict[str, Work]:
    """The work of each figure, in its turn n."""
    return {**_overviews(db), **_callbacks(db), **_audits(db, orders), **_runs(db), **_of_the_worker(db)}


def _overviews(db: Database) -> dict[str, Work]:
    def overview(span: str) -> Work:
        async def work(_turn: int) -> None:
            chosen = SPANS[span]
            await rollups.read(db, chosen.step, chosen.since(datetime.now(UTC)))
            await find_silent_accounts(db)
            await read_backlog(db)
            await read_open_queries(db)
            await read_open_endpoints(db)

        return work

    async def account(_turn: int) -> None:
        span = SPANS["90d"]
        await rollups.read_one(db, span.step, span.since(datetime.now(UTC)), Scope.ACCOUNT, "sandbox")

    return {**{f"overview_{span}": overview(span) for span in SPANS}, "overview_account": account}


def _callbacks(db: Database) -> dict[str, Work]:
    def listed(account: str | None, state: CallbackState | None) -> Work:
        async def work(_turn: int) -> None:
            await list_callbacks(db, account=account, state=state)

        return work

    of_state: dict[str, Work] = {f"callbacks_{state}": listed(None, state) for state in CallbackState}
    of_account: dict[str, Work] = {
        f"callbacks_{account}": listed(account, None) for account in ("sandbox", "rare", "nobody")
    }
    return {"callbacks_all": listed(None, None), **of_state, **of_account}


def _audits(db: Database, orders: int) -> dict[str, Work]:
    def acts(filters: Filters) -> Work:
        async def work(_turn: int) -> None:
            await find_acts(db, filters, limit=101)

        return work

    week_ago = datetime.now(UTC) - timedelta(days=7)
    return {
        "audit_all": acts(Filters()),
        "audit_person": acts(Filters(by="p-3")),
        "audit_rare_act": acts(Filters(by="p-3", action="rare")),
        "audit_person_without_act": acts(Filters(by="p-13", action="none", until=week_ago)),
        "audit_subject": acts(Filters(subject=f"copy-{orders // 2}")),
    }


def _runs(db: Database) -> dict[str, Work]:
    day = datetime.now(UTC).date() - timedelta(days=1)

    async def runs(_turn: int) -> None:
        await list_reconciliations(db, limit=51)
        await list_differences(db, 1, 51)

    async def one_day(turn: int) -> None:
        await find_closing(db, "sandbox", day - timedelta(days=turn))

    async def approvals(_turn: int) -> None:
        await list_approvals(db)

    async def cases(turn: int) -> None:
        await list_cases(db, open_only=False, reason=CaseReason.PAID_LATE if turn % 2 else CaseReason.DISPUTED)

    async def file(_turn: int) -> None:
        wanted = OrderFilter(currency="USD")
        async for _page in walk_by_filter(db, wanted, limit=500, rows_max=10_000, pages_max=40):
            pass

    return {"runs": runs, "day": one_day, "approvals": approvals, "cases": cases, "orders_file": file}


def _of_the_worker(db: Database) -> dict[str, Work]:
    """No page waits for these, and each runs once or twice a minute."""

    async def facts(_turn: int) -> None:
        await read_stored_facts(db)

    async def walk(_turn: int) -> None:
        await find_broken(db, ())

    async def roll_up(turn: int) -> None:
        start = bucket_of(datetime.now(UTC), Step.MINUTES) - timedelta(seconds=Step.MINUTES * (3 + turn))
        await rollups.compute(db, start)

    return {"alert_facts": facts, "alert_walk": walk, "roll_up": roll_up}
