"""Orders through pgbouncer in transaction mode, and the errors that name what to set for it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DatabaseRefused, TransactionClaimed
from core.order import OrderStatus
from storage.postgres.database import Database
from tests.storage.postgres.pgbouncer import SESSIONS, find_pgbouncer, pgbouncer_version, pooled
from tests.storage.postgres.tools import commit_evidence, get_state, opened, paid, placed, unpaid

ORDERS = 20

pytestmark = [
    pytest.mark.skipif(find_pgbouncer() is None, reason="no pgbouncer here; on Debian: apt-get install it"),
    pytest.mark.usefixtures("new_sessions"),  # which are counted
]
KEEPS_STATEMENTS = pgbouncer_version() >= (1, 21)


@pytest.fixture
def pooled_url(database_url: str, server_directory: Path) -> Iterator[str]:
    with pooled(database_url, server_directory) as url:
        yield url


async def pay(db: Database, order_no: str) -> None:
    await placed(db, order_no)
    await commit_evidence(db, order_no, unpaid(order_no), arm_no=1)
    await commit_evidence(db, order_no, paid(order_no))
    assert (await get_state(db, order_no)).order.status is OrderStatus.PAID


async def test_clients_that_share_sessions_pay_orders(pooled_url: str, database_url: str) -> None:
    """With `STATEMENT_CACHE_SIZE=0`. Each session plans the door once, and keeps the plan for all clients."""
    async with opened(pooled_url, statement_cache_size=0) as one, opened(pooled_url, statement_cache_size=0) as two:
        await asyncio.gather(*(pay(db, f"{name}-{n}") for n in range(ORDERS) for name, db in (("a", one), ("b", two))))
        kept = await one.fetch(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE starts_with(name, 'nodrop_')"
        )
    assert kept
    assert all(row["custom_plans"] == 0 for row in kept)
    async with opened(database_url) as direct:
        sessions = """SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'tests'"""
        assert await direct.fetchval(sessions) <= SESSIONS


async def test_the_door_refuses_through_a_pooler_as_without(pooled_url: str) -> None:
    async with opened(pooled_url, statement_cache_size=0) as db:
        await pay(db, "A-1")
        await placed(db, "A-2")
        with pytest.raises(TransactionClaimed):
            await commit_evidence(db, "A-2", paid("A-2", transaction="t-alipay-A-1"))


async def test_refused_start_up_parameters_name_the_variable(pooled_url: str) -> None:
    async with opened(pooled_url) as db:
        with pytest.raises(DatabaseRefused, match=r"^STARTUP_PARAMETERS: .* set it to false"):
            await db.fetchval("SELECT 1")


@pytest.mark.skipif(KEEPS_STATEMENTS, reason="this pgbouncer can keep prepared statements")
async def test_statements_that_it_does_not_keep_name_the_variable(database_url: str, server_directory: Path) -> None:
    with pooled(database_url, server_directory, "default_pool_size = 1") as url:
        async with opened(url, startup_parameters=False) as one, opened(url, startup_parameters=False) as two:
            await one.fetchval("SELECT 1")
            await two.execute("DEALLOCATE ALL")
            with pytest.raises(DatabaseRefused, match=r"^STATEMENT_CACHE_SIZE: .* set it to 0$"):
                await one.fetchval("SELECT 1")


@pytest.mark.skipif(not KEEPS_STATEMENTS, reason="max_prepared_statements is of pgbouncer 1.21")
async def test_a_pgbouncer_that_keeps_statements_needs_no_parameters(database_url: str, server_directory: Path) -> None:
    with pooled(database_url, server_directory, "max_prepared_statements = 100") as url:
        async with opened(url, startup_parameters=False) as one, opened(url, startup_parameters=False) as two:
            await asyncio.gather(*(pay(db, f"{name}-{n}") for n in range(5) for name, db in (("a", one), ("b", two))))
