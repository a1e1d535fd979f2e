"""Address of Postgres, its faults as we name them, and TLS against a server that has it."""

import asyncio
import os
import socket
from os import urandom
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from time import monotonic

import pytest
from msgspec.structs import asdict

from core.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, InvalidRequest
from core.settings import Settings
from demo.embedded import EmbeddedPostgres, free_port
from storage.postgres.address import read_address
from storage.postgres.database import (
    ACQUIRE_TIMEOUT_S,
    CONNECTIONS_MAX,
    STATEMENT_TIMEOUT_S,
    Database,
    connect,
)
from storage.postgres.faults import mapped_faults
from storage.tls import TlsName
from tests.servers import eventually
from tests.storage.postgres.tools import connected, opened

pytestmark = pytest.mark.usefixtures("new_sessions")  # which are lost, replaced and closed

PASSWORD = "p@ss/w:rd#%"
ENCODED = "p%40ss%2Fw%3Ard%23%25"


# -- DATABASE_URL ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "where"),
    [
        (f"postgres://anna:{ENCODED}@127.0.0.1:6432/shop", ("127.0.0.1", 6432, "anna", PASSWORD, "shop")),
        (f"postgresql://anna:{ENCODED}@localhost/shop", ("localhost", 5432, "anna", PASSWORD, "shop")),
        ("postgres://an%40na@localhost/my%20shop", ("localhost", 5432, "an@na", None, "my shop")),
        ("postgres://[::1]:5433/shop", ("::1", 5433, "postgres", None, "shop")),
        ("postgres:///shop", ("127.0.0.1", 5432, "postgres", None, "shop")),
        ("postgres:///shop?host=/cloudsql/a:b:c&user=anna", ("/cloudsql/a:b:c", 5432, "anna", None, "shop")),
    ],
)
def test_an_address_as_platforms_hand_it_out(url: str, where: tuple[str, int, str, str | None, str]) -> None:
    fields = asdict(read_address(url, ""))
    fields.pop("tls")
    assert tuple(fields.values()) == where


@pytest.mark.parametrize("wish", ["disable", "prefer", "require", "verify-full"])
def test_what_other_drivers_want_of_an_address_changes_nothing(wish: str) -> None:
    """Least of all does an `sslmode` in it weaken what `DATABASE_TLS` says."""
    address = read_address(f"postgres://a@db.test/shop?sslmode={wish}&channel_binding=require&pgbouncer=true", "")
    assert (address.tls.name, address.database) == (TlsName.VERIFY_FULL, "shop")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        "mysql://a:s3cret@db.test/shop",
        "postgres://a:s3cret@db.test",
        "postgres://a:s3cret@db.test/",
        "postgres://a:s3cret/x@db.test/shop",  # a slash that should have been encoded
        "postgres://a:s3cret#x@db.test/shop",
        "postgres://a:s3cret@db.test:many/shop",
        "postgres://a:s3cret@db.test:99999/shop",
        "postgres://a:s3cret@[db.test/shop",
    ],
)
def test_an_address_that_cannot_be_used_names_the_variable_and_no_password(url: str) -> None:
    for variable in ("DATABASE_URL", "DIRECT_DATABASE_URL"):
        with pytest.raises(ConfigurationError) as refused:
            read_address(url, "", variable=variable)
        assert refused.value.detail.startswith(f"{variable}: set it to postgres://user:password@host:5432/database")
        assert "s3cret" not in refused.value.detail
        assert refused.value.__cause__ is None


def test_an_address_is_safe_to_print() -> None:
    address = read_address(f"postgres://anna:{ENCODED}@db.test/shop", "")
    assert PASSWORD not in repr(address)
    assert ENCODED not in repr(address)


def test_a_wrong_tls_mode_names_its_own_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_TLS: set it to verify-full, "):
        Database.from_settings(Settings(database_url="postgres://a@db.test/shop", database_tls="on"))


# -- the pool ----------------------------------------------------------------------------------------------------------


async def test_opening_connects_to_nothing_and_closing_what_was_not_opened_does_nothing() -> None:
    """A process starts without its database."""
    database = Database(read_address("postgres://a@127.0.0.1:9/shop", ""))
    await database.close()
    await database.open()
    await database.close()


async def test_it_says_whether_it_answers(database_url: str) -> None:
    async with opened(database_url) as db:
        assert await db.find_fault() is None
    async with opened(f"postgres://a@127.0.0.1:{free_port()}/shop") as db:
        assert await db.find_fault() == "unreachable"
    assert await Database(read_address(database_url, "")).find_fault() == "unreachable"


async def test_connections_to_a_former_primary_are_replaced_by_new_ones(database_url: str) -> None:
    """After a failover by name the open connections still lead to the old server, which has become read-only."""
    async with connected(database_url) as operator:
        name = await operator.fetchval("SELECT current_database()")
        # Only of connections that are opened from now on.
        await operator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with opened(database_url) as db:
            await asyncio.gather(*(db.fetchval("SELECT pg_sleep(0.1)") for _ in range(CONNECTIONS_MAX)))
            await operator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            with pytest.raises(DatabaseUnavailable, match="ReadOnlySQLTransactionError"):
                await db.execute("CREATE TABLE kept ()")
            await asyncio.gather(*(db.execute(f"CREATE TABLE kept_{n} ()") for n in range(CONNECTIONS_MAX)))


@pytest.mark.parametrize(
    ("sqlstate", "is_replaced"),
    [
        ("25006", True),  # read-only
        ("57P01", True),  # shuts down
        ("57P02", True),  # has crashed
        ("57P03", True),  # starts
        ("57P04", True),  # its database was dropped
        ("3D000", True),  # has no such database
        ("57014", False),  # a statement was cancelled
        ("53300", False),  # too many connections
        ("55P03", False),  # a lock was not free
        ("40P01", False),  # a deadlock
        ("53100", False),  # a full disk
    ],
)
async def test_connections_are_replaced_by_what_the_server_says(
    database_url: str, sqlstate: str, *, is_replaced: bool
) -> None:
    async with opened(database_url) as db:
        before = await db.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(DatabaseUnavailable):
            await db.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$")
        assert (await db.fetchval("SELECT pg_backend_pid()") != before) is is_replaced


async def test_connections_are_replaced_at_most_once_a_second(database_url: str) -> None:
    """While a name still leads to the old server, each new connection says the same."""
    async with opened(database_url) as db:
        pids = set()
        for _ in range(20):
            pids.add(await db.fetchval("SELECT pg_backend_pid()"))
            with pytest.raises(DatabaseUnavailable):
                await db.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '25006'; END $$")
        assert len(pids) < 20


async def test_a_readiness_check_replaces_connections_to_a_former_primary(database_url: str) -> None:
    """A process that only reads would show what the old server knows for ever."""
    async with connected(database_url) as operator:
        name = await operator.fetchval("SELECT current_database()")
        await operator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with opened(database_url) as db:
            assert await db.fetchval("SELECT 1") == 1
            await operator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            assert await db.find_fault() == "read_only"
            assert await db.find_fault() is None


async def test_a_statement_that_a_frozen_server_does_not_answer_can_be_given_up(database_url: str) -> None:
    """Its cancelling is not answered either: the connection is dropped, and the next statement opens another one."""
    async with opened(database_url) as db:
        frozen = await db.fetchval("SELECT pg_backend_pid()")
        os.kill(frozen, SIGSTOP)
        try:
            began = monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await db.fetchval("SELECT 1")
            assert monotonic() - began < ACQUIRE_TIMEOUT_S / 2
            assert await db.fetchval("SELECT pg_backend_pid()") != frozen
        finally:
            os.kill(frozen, SIGCONT)


def test_a_connection_that_was_used_after_its_loss_is_a_lost_one() -> None:
    address = read_address("postgres://a@127.0.0.1:9/shop", "")
    with pytest.raises(DatabaseUnavailable), mapped_faults(address):
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    with pytest.raises(RuntimeError, match="our own"), mapped_faults(address):
        raise RuntimeError("a mistake of our own")


async def test_a_process_holds_four_connections_at_most(database_url: str) -> None:
    async with opened(database_url) as db, connected(database_url) as operator:
        sleeping = [asyncio.create_task(db.fetchval("SELECT pg_sleep(0.3)")) for _ in range(12)]
        seen = 0
        while not all(task.done() for task in sleeping):
            seen = max(
                seen,
                await operator.fetchval(
                    """SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = 'nodrop'"""
                ),
            )
        await asyncio.gather(*sleeping)
        assert seen == CONNECTIONS_MAX


async def test_rows_values_and_counts(db: Database) -> None:
    assert await db.execute("CREATE TABLE kept (id int, text text)") == 0
    await db.executemany("INSERT INTO kept VALUES ($1, $2)", [(n, f"t{n}") for n in range(5)])
    assert await db.execute("UPDATE kept SET text = 'x' WHERE id < $1", 3) == 3
    assert [row["id"] for row in await db.fetch("SELECT id FROM kept WHERE text <> 'x' ORDER BY id")] == [3, 4]
    row = await db.fetchrow("SELECT * FROM kept WHERE id = $1", 4)
    assert row is not None
    assert dict(row) == {"id": 4, "text": "t4"}
    assert await db.fetchrow("SELECT * FROM kept WHERE id = 9") is None
    assert await db.fetchval("SELECT count(*) FROM kept") == 5


async def test_many_rows_are_written_all_or_none(db: Database) -> None:
    await db.execute("CREATE TABLE kept (id int CHECK (id < 3))")
    with pytest.raises(Exception, match=r"kept_id_check"):
        await db.executemany("INSERT INTO kept VALUES ($1)", [(n,) for n in range(5)])
    assert await db.fetchval("SELECT count(*) FROM kept") == 0


async def test_the_session_is_in_utc_and_says_who_it_is(db: Database) -> None:
    assert await db.fetchval("SHOW timezone") == "UTC"
    assert await db.fetchval("SHOW application_name") == "nodrop"


async def test_behind_a_pooler_nothing_is_asked_of_the_session(database_url: str) -> None:
    """It refuses start-up parameters that it does not know, and statements prepared on another connection."""
    async with opened(database_url, statement_cache_size=0) as db:
        assert await db.fetchval("SHOW application_name") == ""
        for n in range(20):
            assert await db.fetchval("SELECT $1::int", n) == n
        assert await db.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0


async def test_behind_a_pooler_that_keeps_statements_they_are_prepared_all_the_same(database_url: str) -> None:
    async with opened(database_url, startup_parameters=False) as db:
        assert await db.fetchval("SHOW application_name") == ""
        assert await db.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") > 0


async def test_a_statement_that_the_pooler_lost_names_the_variable(database_url: str) -> None:
    """The pooler has given the session to another client meanwhile, or gives one that has that name already."""
    async with opened(database_url) as db:
        await db.fetchval("SELECT 1")
        await db.execute("DEALLOCATE ALL")
        with pytest.raises(DatabaseRefused, match=r"^STATEMENT_CACHE_SIZE: .* set it to 0$"):
            await db.fetchval("SELECT 1")


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_a_database_that_is_not_there_is_unavailable_and_says_where() -> None:
    port = free_port()
    async with opened(f"postgres://anna:{ENCODED}@127.0.0.1:{port}/shop") as db:
        with pytest.raises(DatabaseUnavailable) as gone:
            await db.fetchval("SELECT 1")
    assert gone.value.detail == f"Postgres at 127.0.0.1:{port}: nothing listens there"


async def test_a_database_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    monkeypatch.setattr("storage.postgres.database.CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with opened(f"postgres://a@127.0.0.1:{port}/shop") as db:
            with pytest.raises(DatabaseUnavailable, match=f":{port}: TimeoutError$"):
                await db.fetchval("SELECT 1")


@pytest.mark.parametrize("change", ["password", "database", "user"])
async def test_a_refused_login_is_database_unavailable(postgres: EmbeddedPostgres, change: str) -> None:
    """Credentials are changed under a running process: a callback must then be parked, not lost to a crash."""
    url = postgres.url("postgres")
    wrong = {
        "password": url.replace("@", "x@"),
        "database": f"{url}x",
        "user": url.replace("//nodrop:", "//somebody:"),
    }[change]
    async with opened(wrong) as db:
        with pytest.raises(DatabaseUnavailable):
            await db.fetchval("SELECT 1")
    with pytest.raises(DatabaseUnavailable):
        await connect(read_address(wrong, ""))


async def test_a_connection_that_is_ended_is_unavailable_once_and_then_replaced(
    db: Database, database_url: str
) -> None:
    async with connected(database_url) as operator:
        waiting = asyncio.create_task(db.fetchval("SELECT pg_sleep(60)"))
        end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
        assert await eventually(lambda: operator.fetchval(end)) == 1
        with pytest.raises(DatabaseUnavailable):
            await waiting
    assert await db.fetchval("SELECT 1") == 1


@pytest.mark.parametrize(
    ("fault", "sql"),
    [
        ("a statement that takes too long", "SELECT pg_sleep(60)"),
        ("a cancelled statement", "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)"),
        ("a database that is read-only", "CREATE TABLE kept (id int)"),
        ("a lock that does not come", "DO $$ BEGIN RAISE lock_not_available; END $$"),
        ("a deadlock", "DO $$ BEGIN RAISE deadlock_detected; END $$"),
        ("a full disk", "DO $$ BEGIN RAISE disk_full; END $$"),
        ("a broken disk", "DO $$ BEGIN RAISE io_error; END $$"),
        ("too many connections", "DO $$ BEGIN RAISE too_many_connections; END $$"),
        ("a server that starts up", "DO $$ BEGIN RAISE cannot_connect_now; END $$"),
    ],
)
async def test_a_fault_of_the_server_is_unavailable(database_url: str, fault: str, sql: str) -> None:
    """Whether the statement was done is not known: the caller decides again."""
    timeout_s = 0.3 if "too long" in fault else STATEMENT_TIMEOUT_S
    async with opened(database_url) as db:
        if "read-only" in fault:
            await db.execute("SET default_transaction_read_only = on")
        with pytest.raises(DatabaseUnavailable, match=r"^Postgres at 127\.0\.0\.1:[0-9]+: \w+$"):
            await db.execute(sql, timeout_s=timeout_s)
        assert await db.fetchval("SELECT 1") == 1


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT $1::text", "a\0b"),
        ("SELECT $1::text", "\ud800"),
        ("SELECT $1::int", 2**40),
        ("SELECT $1::bigint", 2**70),
        ("SELECT $1::text::jsonb", '"\\u0000"'),
        ("SELECT $1::text::jsonb", "[" * 100_000),
        ("SELECT $1::uuid", "s3cret"),
        ("SELECT make_interval(secs => $1)", float("inf")),
    ],
)
async def test_what_postgres_cannot_hold_is_the_callers_fault(db: Database, sql: str, value: object) -> None:
    """Refused, instead of crashing the caller; the value stands in no message."""
    with pytest.raises((InvalidRequest, DatabaseUnavailable)) as refused:
        await db.fetchval(sql, value)
    assert "s3cret" not in str(refused.value)
    assert await db.fetchval("SELECT 1") == 1


async def test_a_key_too_long_for_its_index_is_the_callers_fault(db: Database) -> None:
    await db.execute("CREATE TABLE kept (text text PRIMARY KEY)")
    with pytest.raises(InvalidRequest):
        await db.execute("INSERT INTO kept VALUES ($1)", urandom(10_000).hex())


async def test_our_own_mistakes_crash_loudly(db: Database) -> None:
    for sql in ("SELEC 1", "SELECT * FROM nowhere", "SELECT 1 / 0 FROM nowhere"):
        with pytest.raises(Exception, match=r"nowhere|SELEC") as crash:
            await db.fetchval(sql)
        assert not isinstance(crash.value, DatabaseUnavailable | InvalidRequest)


async def test_a_server_that_restarts_is_used_again(server_directory: Path) -> None:
    with EmbeddedPostgres(server_directory, fsync=False) as server:
        async with opened(server.url("postgres")) as db:
            assert await db.fetchval("SELECT 1") == 1
            await asyncio.to_thread(server.kill)
            with pytest.raises(DatabaseUnavailable):
                await db.fetchval("SELECT 1")
            await asyncio.to_thread(server.start)

            async def is_there() -> bool:
                return await db.find_fault() is None

            assert await eventually(is_there)
            assert await db.fetchval("SELECT 1") == 1
