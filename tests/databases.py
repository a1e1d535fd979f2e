"""A database that is handed from test to test: emptying it takes a tenth of the time of cloning it."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg

from demo.embedded import EmbeddedPostgres

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
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""

# A table that was never written to has no page. Two are filled by the migrations.
_WRITTEN = """
SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT IN ('migrations', 'identity')
   AND pg_relation_size(oid) > 0"""


class ReusedDatabase:
    """A migrated database that is empty for each test. One whose schema was changed is replaced by another."""

    def __init__(self, postgres: EmbeddedPostgres, template: str) -> None:
        self._postgres = postgres
        self._template = template
        self._schema = ""
        self._name = ""

    def lend(self) -> str:
        """URL of the empty database, which is created when there is none."""
        if not self._name:
            self._name = f"test_{uuid4().hex}"
            self._postgres.create_database(self._name, self._template)
            self._schema = _in_thread(self._read_schema())
        return self._postgres.url(self._name)

    def take_back(self) -> None:
        """End the sessions that a test has left behind, and empty the database or drop it."""
        if not _in_thread(self._empty()):
            self._postgres.drop_database(self._name)
            self._name = ""

    async def _read_schema(self) -> str:
        connection = await asyncpg.connect(self._postgres.url(self._name), ssl=False, timeout=TIMEOUT_S)
        try:
            schema: str = await connection.fetchval(_SCHEMA)
        finally:
            await connection.close(timeout=TIMEOUT_S)
        return schema

    async def _empty(self) -> bool:
        """Whether the database is as it was when it was created."""
        connection = await asyncpg.connect(self._postgres.url(self._name), ssl=False, timeout=TIMEOUT_S)
        try:
            await connection.execute(_END_SESSIONS)
            if await connection.fetchval(_SCHEMA) != self._schema:
                return False
            if written := await connection.fetchval(_WRITTEN):
                await connection.execute(f"TRUNCATE {written} RESTART IDENTITY CASCADE")
        finally:
            await connection.close(timeout=TIMEOUT_S)
        return True


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run it beside the test's own event loop, which may be running."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
