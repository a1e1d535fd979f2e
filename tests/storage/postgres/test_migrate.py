"""Migrations: once, in order, by the first process."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from core.errors import ConfigurationError, DatabaseUnavailable
from demo.embedded import free_port
from storage.postgres import migrate as module
from storage.postgres.migrate import migrate, missing_migrations
from tests.servers import eventually
from tests.storage.postgres.tools import connected

ALL = [
    "0001_orders.sql",
    "0002_inbox_outbox.sql",
    "0003_accounts_keys.sql",
    "0004_refunds.sql",
    "0005_reconciliation.sql",
    "0006_refunded_amount.sql",
    "0007_channel_transaction.sql",
    "0008_checkout_ends.sql",
    "0010_disputes.sql",
    "0011_callbacks_kept.sql",
    "0012_statement_sums.sql",
    "0013_trust.sql",
    "0016_identity.sql",
    "0017_processes.sql",
    "0019_data_life.sql",
    "0020_keys.sql",
    "0021_audit.sql",
    "0022_callbacks_over.sql",
    "0023_notifications_over.sql",
    "0025_duties.sql",
    "0027_cases_by_time.sql",
    "0028_kept_plans.sql",
    "0029_pay_choice.sql",
    "0030_unpaid_returns.sql",
    "0031_left_payers.sql",
    "0032_audit_by_action.sql",
    "0032_audit_by_person.sql",
    "0032_audit_by_subject.sql",
    "0032_audit_by_time.sql",
    "0032_operators.sql",
    "0033_deliveries.sql",
    "0033_deliveries_held.sql",
    "0033_deliveries_resending.sql",
    "0034_orders_by_amount.sql",
    "0035_refunds_by_operators.sql",
    "0036_rollups.sql",
    "0036_rollups_events.sql",
    "0037_alerts.sql",
    "0038_days.sql",
    "0038_days_cases_open.sql",
    "0038_days_disputes_by_day.sql",
    "0038_days_disputes_due.sql",
    "0038_days_disputes_over.sql",
    "0039_refused_callbacks.sql",
    "0040_one_time_passwords.sql",
    "0041_callbacks_by_time.sql",
    "0042_callbacks_dead.sql",
    "0043_disputes_by_id.sql",
    "0044_payments_by_refund.sql",
    "0045_find_by_channel_refund.sql",
    "0051_cases_open_by_reason.sql",
    "0052_audit_by_person_and_action.sql",
    "0053_keys_of_operators.sql",
    "0054_audit_kept.sql",
    "0055_statement_attempts.sql",
    "0057_refused_claims.sql",
    "0058_refused_by_claim.sql",
    "0060_phrases.sql",
    "0061_refunds_channel_no.sql",
    "0062_refunds_by_channel_no.sql",
    "0063_codes_of_a_session.sql",
]


async def applied(url: str) -> list[str]:
    async with connected(url) as connection:
        return [row["name"] for row in await connection.fetch("SELECT name FROM migrations ORDER BY applied_at, name")]


@pytest.fixture
def of_the_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory of migrations in place of ours."""
    monkeypatch.setattr(module, "files", lambda _package: tmp_path)
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id int);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (id int); INSERT INTO first VALUES (1);")
    (tmp_path / "README.md").write_text("not SQL")
    return tmp_path


async def test_everything_is_applied_once_and_in_order(unmigrated_database_url: str) -> None:
    assert await missing_migrations(unmigrated_database_url) == ALL
    assert await migrate(unmigrated_database_url) == ALL
    assert await migrate(unmigrated_database_url) == []
    assert await missing_migrations(unmigrated_database_url) == []
    assert await applied(unmigrated_database_url) == ALL


async def test_four_that_start_at_once_apply_everything_once(unmigrated_database_url: str) -> None:
    done = await asyncio.gather(*(migrate(unmigrated_database_url) for _ in range(4)))
    assert sorted(done, key=len) == [[], [], [], ALL]
    assert await applied(unmigrated_database_url) == ALL


async def test_looking_writes_nothing(unmigrated_database_url: str) -> None:
    await missing_migrations(unmigrated_database_url)
    async with connected(unmigrated_database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_a_new_migration_is_applied_alone(unmigrated_database_url: str, of_the_test: Path) -> None:
    await migrate(unmigrated_database_url)
    (of_the_test / "0003_third.sql").write_text("ALTER TABLE first ADD COLUMN text text;")
    assert await missing_migrations(unmigrated_database_url) == ["0003_third.sql"]
    assert await migrate(unmigrated_database_url) == ["0003_third.sql"]


async def test_an_edited_migration_is_refused(unmigrated_database_url: str, of_the_test: Path) -> None:
    """The database differs from the file now: no later migration may build on it."""
    await migrate(unmigrated_database_url)
    (of_the_test / "0001_first.sql").write_text("CREATE TABLE first (id int, text text);")
    (of_the_test / "0003_third.sql").write_text("CREATE TABLE third ();")
    with pytest.raises(ConfigurationError, match=r"^migration 0001_first.sql was edited after it had been applied$"):
        await migrate(unmigrated_database_url)
    assert await applied(unmigrated_database_url) == ["0001_first.sql", "0002_second.sql"]


async def test_a_migration_that_fails_leaves_nothing_of_itself(unmigrated_database_url: str, of_the_test: Path) -> None:
    (of_the_test / "0002_second.sql").write_text("CREATE TABLE second (id int); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(asyncpg.UndefinedTableError):
        await migrate(unmigrated_database_url)
    assert await applied(unmigrated_database_url) == ["0001_first.sql"]
    async with connected(unmigrated_database_url) as connection:
        assert await connection.fetchval("SELECT to_regclass('second')") is None
    (of_the_test / "0002_second.sql").write_text("CREATE TABLE second (id int);")
    assert await migrate(unmigrated_database_url) == ["0002_second.sql"]


async def test_a_migration_may_take_longer_than_a_statement_of_ours(
    unmigrated_database_url: str, of_the_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of a large table takes minutes."""
    monkeypatch.setattr("storage.postgres.database.STATEMENT_TIMEOUT_S", 0.2)
    (of_the_test / "0002_second.sql").write_text("SELECT pg_sleep(0.6);")
    assert await migrate(unmigrated_database_url) == ["0001_first.sql", "0002_second.sql"]


async def test_a_migration_does_not_queue_everybody_behind_a_lock(
    unmigrated_database_url: str, of_the_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails within seconds, and the release step is tried again."""
    monkeypatch.setattr(module, "_QUEUE_S", 1)
    (of_the_test / "0001_first.sql").write_text("ALTER TABLE held ADD COLUMN a int;")
    (of_the_test / "0002_second.sql").unlink()
    async with connected(unmigrated_database_url) as reader:
        await reader.execute("CREATE TABLE held (id int)")
        async with reader.transaction():
            await reader.execute("LOCK TABLE held IN ACCESS SHARE MODE")
            with pytest.raises(DatabaseUnavailable, match=r"LockNotAvailableError$"):
                await migrate(unmigrated_database_url)
    assert await migrate(unmigrated_database_url) == ["0001_first.sql"]


async def test_another_migration_that_does_not_end_is_waited_for_and_then_an_error(
    unmigrated_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_WAIT_S", 0.3)
    async with connected(unmigrated_database_url) as other:
        await other.fetchval("SELECT pg_advisory_lock($1)", module._LOCK)
        with pytest.raises(DatabaseUnavailable, match=r"^another migration has been running for 0 s$"):
            await migrate(unmigrated_database_url)
    assert await migrate(unmigrated_database_url) == ALL


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate(f"postgres://a@127.0.0.1:{free_port()}/shop")


async def test_these_are_the_tables(database_url: str) -> None:
    async with connected(database_url) as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in tables} == {
        "accounts",
        "alerts",
        "alert_walk",
        "alert_messages",
        "api_keys",
        "audit",
        "callback_counts",
        "callbacks",
        "cases",
        "closings",
        "disputes",
        "duties",
        "identity",
        "migrations",
        "notifications",
        "notify_secrets",
        "observations",
        "observations_default",
        "operator_sessions",
        "operators",
        "order_events",
        "orders",
        "paused_endpoints",
        "payments",
        "pending",
        "processes",
        "reconciliation_differences",
        "reconciliation_refunded",
        "reconciliation_rows",
        "reconciliations",
        "refund_approvals",
        "refunds",
        "refused_callbacks",
        "refused_counts",
        "rollups",
        "sign_in_limits",
        "sign_offs",
        "statement_files",
        "statement_requests",
        "tallies",
    }


# -- indexes that are built outside of a transaction -------------------------------------------------------------------

BUILD = """-- Readers of `second` by id.
CREATE INDEX CONCURRENTLY IF NOT EXISTS second_by_id
    ON second (id);
"""
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'second_by_id'::regclass"


async def test_an_index_is_built_while_another_transaction_writes(
    unmigrated_database_url: str, of_the_test: Path
) -> None:
    """In a transaction it would wait for the writer, and every later writer behind it."""
    await migrate(unmigrated_database_url)
    (of_the_test / "0003_index.sql").write_text(BUILD)
    async with connected(unmigrated_database_url) as writer, connected(unmigrated_database_url) as other:
        open_transaction = writer.transaction()
        await open_transaction.start()
        await writer.execute("INSERT INTO second VALUES (1)")
        building = asyncio.create_task(migrate(unmigrated_database_url))
        assert await eventually(lambda: other.fetchval("SELECT to_regclass('second_by_id') IS NOT NULL"))
        await other.execute("INSERT INTO second VALUES (2)", timeout=30.0)
        assert not building.done()
        await open_transaction.commit()
        assert await building == ["0003_index.sql"]
        assert await other.fetchval(IS_VALID)
    assert await migrate(unmigrated_database_url) == []


async def test_an_index_whose_build_was_interrupted_is_built_again(
    unmigrated_database_url: str, of_the_test: Path
) -> None:
    """An interrupted build leaves an index that no query uses and every writer maintains."""
    await migrate(unmigrated_database_url)
    async with connected(unmigrated_database_url) as operator:
        await operator.execute("INSERT INTO second VALUES (1), (1)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await operator.execute("CREATE UNIQUE INDEX CONCURRENTLY second_by_id ON second (id)")
        assert not await operator.fetchval(IS_VALID)
        (of_the_test / "0003_index.sql").write_text(BUILD)
        assert await migrate(unmigrated_database_url) == ["0003_index.sql"]
        assert await operator.fetchval(IS_VALID)


async def test_a_build_that_was_not_recorded_is_recorded(unmigrated_database_url: str, of_the_test: Path) -> None:
    """The process ended between the two."""
    await migrate(unmigrated_database_url)
    (of_the_test / "0003_index.sql").write_text(BUILD)
    async with connected(unmigrated_database_url) as operator:
        await operator.execute(BUILD)
    assert await migrate(unmigrated_database_url) == ["0003_index.sql"]


def test_indexes_of_older_tables_are_built_concurrently() -> None:
    """From 0014 on. A migration that makes a table may make its indexes with it."""
    for file in sorted(Path(module.__file__).with_name("migrations").glob("*.sql")):
        text = file.read_text()
        if file.name < "0014":
            continue
        own = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", text))
        indexed = set(re.findall(r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*?\bON (\w+)", text, re.DOTALL))
        assert indexed <= own, f"{file.name}: one file for each index, CREATE INDEX CONCURRENTLY IF NOT EXISTS alone"
        assert "CONCURRENTLY" not in text or module.concurrent_index(text), file.name
