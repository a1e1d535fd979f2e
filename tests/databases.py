"""A database that is handed from test to test: emptying it takes a small part of the time of cloning it."""

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg

from demo.embedded import EmbeddedPostgres
from tests.kept_pools import KeptPools

TIMEOUT_S = 60.0

T = TypeVar("T")

# Everything of a schema that a test could have changed.
_SCHEMA = """
SELECT md5(string_agg(part, E'\\n' ORDER BY part)) FROM (
    SELECT format('%s %s %s %s %s', attrelid::regclass, attnum, attname, atttypid, attnotnull) AS part
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
     WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('%s %s %s', conrelid::regclass, conname, convalidated) FROM pg_constraint
    UNION ALL
    SELECT format('%s %s', indexrelid::regclass, indisvalid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
     WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('%s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
    UNION ALL
    SELECT format('%s %s', oid::regprocedure, md5(prosrc)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('%s %s', setdatabase, setconfig) FROM pg_db_role_setting
    UNION ALL
    SELECT format('%s %s', extname, extversion) FROM pg_extension
    UNION ALL
    SELECT migrations::text FROM migrations
) AS parts"""

_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND pid <> ALL($1::int[])"""

# Rows written since Postgres counts, which a session reports before it ends: into what the schema consists of, and into
# each table. Two tables are filled by the migrations.
_WRITTEN = """
SELECT (SELECT sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid))
          FROM unnest($1::regclass[]) AS oid)::bigint AS schema,
       array_agg(relname::text) AS tables,
       array_agg(pg_stat_get_tuples_inserted(oid)) AS inserted,
       array_agg(pg_relation_size(oid)) AS bytes
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT IN ('migrations', 'identity')"""
_OF_SCHEMA = [
    "pg_attribute",
    "pg_constraint",
    "pg_db_role_setting",
    "pg_extension",
    "pg_index",
    "pg_proc",
    "pg_trigger",
]
_RESTART_SEQUENCES = """
SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences WHERE last_value IS NOT NULL"""

BYTES_MAX = 100_000
"""Size of a table up to which rows are deleted: that takes a tenth of the time of new files for all indexes."""


class ReusedDatabase:
    """A migrated database that is empty for each test. One whose schema was changed is replaced by another.

    It keeps a connection of its own to it, on a loop that runs in a thread: a test's own loop may be running.
    """

    def __init__(self, postgres: EmbeddedPostgres, template: str, pools: KeptPools) -> None:
        self._postgres = postgres
        self._template = template
        self._pools = pools
        self._schema = ""
        self._schema_written = 0
        self._inserted: dict[str, int] = {}
        self._name = ""
        self._connection: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(max_workers=1)

    def lend(self, *, keeps_pools: bool = False) -> str:
        """URL of the empty database, which is created when there is none. With `keeps_pools` the pools of this test and
        of the tests before it are one; else all its sessions are new.
        """
        if not self._name:
            self._name = f"test_{uuid4().hex}"
            self._postgres.create_database(self._name, self._template)
            self._run(self._connect())
        if keeps_pools:
            self._pools.keep(self._name)
        elif self._pools.let_go(self._name):
            self._run(self._end_sessions([]))
        return self._postgres.url(self._name)

    def take_back(self) -> None:
        """End the sessions that a test has left behind, and empty the database or drop it."""
        if not self._run(self._empty(self._pools.pids())):
            self._drop()

    def close(self) -> None:
        if self._name:
            self._drop()
        self._thread.shutdown()
        self._loop.close()

    def _drop(self) -> None:
        self._pools.let_go(self._name)
        self._run(self._disconnect())
        self._postgres.drop_database(self._name)
        self._name = ""

    async def _connect(self) -> None:
        url = self._postgres.url(self._name)
        named = {"application_name": "tests"}
        self._connection = await asyncpg.connect(
            url, ssl=False, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S, server_settings=named
        )
        self._schema = await self._connection.fetchval(_SCHEMA)
        self._schema_written = -1
        self._inserted = {}

    async def _disconnect(self) -> None:
        self._connection.terminate()

    async def _empty(self, kept: list[int]) -> bool:
        """Whether the database is as it was when it was created. Not if a test has ended our session, too."""
        try:
            await self._end_sessions(kept)
            written = await self._connection.fetchrow(_WRITTEN, [*_OF_SCHEMA, "migrations"])
            if written["schema"] != self._schema_written:
                if await self._connection.fetchval(_SCHEMA) != self._schema:
                    return False
                self._schema_written = written["schema"]
            await self._delete_rows(written)
        except (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError):
            return False
        return True

    async def _end_sessions(self, kept: list[int]) -> None:
        await self._connection.fetch(_END_SESSIONS, kept)

    async def _delete_rows(self, written: Mapping[str, Any]) -> None:
        inserted = dict(zip(written["tables"], written["inserted"], strict=True))
        bytes_of = dict(zip(written["tables"], written["bytes"], strict=True))
        used = [table for table, rows in inserted.items() if rows != self._inserted.get(table, 0)]
        large = [table for table in used if bytes_of[table] > BYTES_MAX]
        self._inserted = inserted
        statements = [
            "BEGIN",
            "SET LOCAL session_replication_role = replica",  # past the trigger that keeps the audit
            *(f"DELETE FROM {table}" for table in used if table not in large),  # noqa: S608 -- Postgres's own names
            *([f"TRUNCATE {', '.join(large)} RESTART IDENTITY CASCADE"] if large else ()),
            _RESTART_SEQUENCES,
            "COMMIT",
        ]
        await self._connection.execute("; ".join(statements))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._loop.run_until_complete, work).result()
