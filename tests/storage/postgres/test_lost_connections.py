"""Connections lost around a commit: whatever was done is found by deciding again, and done once."""

import asyncio

import pytest

from core.decision import Outcome
from core.errors import DatabaseUnavailable
from core.order import OrderStatus
from demo.embedded import free_port
from storage.postgres.database import Database
from storage.postgres.orders import find_state
from tests.servers import eventually
from tests.storage.cutting_proxy import Cut, cutting_proxy
from tests.storage.postgres.tools import (
    commit_evidence,
    connected,
    count,
    get_state,
    opened,
    paid,
    placed,
    rows,
    unpaid,
    versions,
)

pytestmark = pytest.mark.usefixtures("new_sessions")  # which are cut

MARK = '{"orders":['
"""Beginning of the document that the door's statement is executed with."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses after a lost connection are for a restart of Postgres; here it is there all the time."""
    monkeypatch.setattr("storage.postgres.door.transition._RETRY_PAUSES_S", (0.01,) * 4)


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_connection_lost_around_the_commit_is_one_effect(
    db: Database, database_url: str, quick: None, cut: Cut, times: int
) -> None:
    """Whether the statement never arrived or its reply did not: it is read again what became of it."""
    await placed(db)

    async def is_paid() -> bool:
        return (await get_state(db)).order.status is OrderStatus.PAID

    async with cutting_proxy(database_url) as (proxy, url), opened(url) as far:
        for _ in range(times):
            proxy.cut_once(MARK, cut, is_paid)
        committed = await commit_evidence(far, "A-1", paid())
        assert proxy.done == times
    assert committed.decision.outcome is (Outcome.PAID if cut is Cut.BEFORE else Outcome.NOTHING_NEW)
    assert await versions(db, "A-1") == [1, 2]
    assert await count(db, "notifications") == 1
    assert await count(db, "pending") == 0


@pytest.mark.parametrize("cut", Cut)
async def test_an_order_whose_placing_lost_its_reply_is_placed_once(
    db: Database, database_url: str, quick: None, cut: Cut
) -> None:
    async def is_there() -> bool:
        return await find_state(db, "A-1") is not None

    async with cutting_proxy(database_url) as (proxy, url), opened(url) as far:
        proxy.cut_once(MARK, cut, is_there)
        committed = await placed(far)
        assert proxy.done == 1
    assert committed.decision.outcome is (Outcome.PLACED if cut is Cut.BEFORE else Outcome.SAME)
    assert (await count(db, "payments"), await count(db, "pending"), await versions(db, "A-1")) == (1, 2, [1])


async def test_a_scheduled_query_whose_reply_is_lost_uses_one_attempt(
    db: Database, database_url: str, quick: None
) -> None:
    await placed(db)

    async def is_rearmed() -> bool:
        return await count(db, "pending", "arm_no = 2") == 1

    async with cutting_proxy(database_url) as (proxy, url), opened(url) as far:
        proxy.cut_once(MARK, Cut.AFTER, is_rearmed)
        await commit_evidence(far, "A-1", unpaid(), arm_no=1)
    [row] = await rows(db, "pending", "attempt, arm_no", "kind = 'query'")
    assert row == {"attempt": 2, "arm_no": 2}


async def test_a_backend_killed_in_mid_statement_is_one_effect(db: Database, database_url: str, quick: None) -> None:
    """It waits for a lock when it is ended; what follows finds nothing done and does it."""
    await placed(db)
    async with connected(database_url) as blocker, blocker.transaction():
        await blocker.execute("SELECT FROM orders WHERE order_no = 'A-1' FOR UPDATE")
        paying = asyncio.create_task(commit_evidence(db, "A-1", paid()))
        async with connected(database_url) as operator:

            async def ended() -> int:
                found: int = await operator.fetchval(
                    """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                        WHERE wait_event_type = 'Lock' AND query LIKE '%jsonb_to_recordset%'
                          AND datname = current_database()"""
                )
                return found

            assert await eventually(ended) == 1
    committed = await paying
    assert committed.decision.outcome is Outcome.PAID
    assert await versions(db, "A-1") == [1, 2]
    assert await count(db, "notifications") == 1


async def test_a_database_that_stays_away_is_said_to_be_away(quick: None) -> None:
    """Tried once and after every pause; then it is left to the sweep."""
    port = free_port()
    async with opened(f"postgres://nodrop@127.0.0.1:{port}/nodrop") as far:
        with pytest.raises(DatabaseUnavailable, match=rf"^Postgres at 127\.0\.0\.1:{port}: nothing listens there$"):
            await commit_evidence(far, "A-1", paid())
