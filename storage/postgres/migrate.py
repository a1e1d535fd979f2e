"""The numbered migrations, applied in order, forward only, safe when several processes start at once.

A release step runs beside the old code, so a migration only expands; what is no longer used is contracted by a later
one. A migration runs in one transaction. One that builds an index of a table in use is the single statement `CREATE
INDEX CONCURRENTLY IF NOT EXISTS` in its file, which runs outside of a transaction and lets writers go on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib.resources import files
from typing import Any

from core.errors import ConfigurationError, DatabaseUnavailable
from storage.postgres.address import read_address
from storage.postgres.database import CONNECT_TIMEOUT_S, connect
from storage.postgres.faults import mapped_faults

VERSION_MIN = 15

_LOCK = 0x6E6F64726F70  # "nodrop"
_LOCK_WAIT_S = 120.0
_QUEUE_S = 5
_STATEMENT_TIMEOUT_S = 3600.0
"""An index of a large table takes its time, and what waits for a lock has a limit of its own."""

_LEDGER = """
CREATE TABLE IF NOT EXISTS migrations (
    name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)"""

_RECORD = "INSERT INTO migrations (name, sha256) VALUES ($1, $2)"

_IS_ANOTHER_ROLE = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolname <> current_user)"

# Of the owner's own tables: others may share the schema. What was granted before by somebody else is taken back.
_GRANTS = """
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), $1::text)
UNION ALL
SELECT format('REVOKE ALL ON %s FROM %I', oid::regclass, $1::text)
  FROM pg_class WHERE oid IN ('audit'::regclass, 'migrations'::regclass)
UNION ALL
SELECT format('GRANT %s ON %s TO %I',
              CASE relname WHEN 'audit' THEN 'SELECT, INSERT'
                           WHEN 'migrations' THEN 'SELECT'
                           ELSE 'SELECT, INSERT, UPDATE, DELETE' END, oid::regclass, $1::text)
  FROM pg_class
 WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
   AND pg_has_role(current_user, relowner, 'USAGE')
UNION ALL
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, $1::text)
  FROM pg_proc
 WHERE pronamespace = current_schema()::regnamespace AND pg_has_role(current_user, proowner, 'USAGE')
   AND proname IN ('make_observations', 'move_observations', 'drop_observations', 'delete_old_acts')"""

_COMMENT = re.compile(r"--[^\n]*")
_CONCURRENT = re.compile(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS ([a-z_0-9]+) [^;]+;?")
_IS_INVALID = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid)"


async def migrate(url: str, tls: str = "", *, application: str | None = None) -> list[str]:
    """Apply what is missing; returns the names of what was applied now. Use a direct address, not a pooler's.

    `application` is the role of web and worker, if it is another than that of `url`: it is granted what they need.

    Raises:
        ConfigurationError: an applied migration has been edited, or the server is older than Postgres 15.
        DatabaseUnavailable: Postgres cannot be reached, or another migration did not end in time.
    """
    async with _connection(url, tls) as connection:
        version = connection.get_server_version()
        if version.major < VERSION_MIN:
            raise ConfigurationError(f"DATABASE_URL: Postgres {version.major} is too old; {VERSION_MIN} is the oldest")
        await _lock(connection)
        done = await _apply(connection)
        if application is not None:
            await _grant(connection, application)
        return done


async def is_another_role(url: str, tls: str, application: str) -> bool:
    """Whether `application` is a role, and not the one of `url`. A pooler's user may be no role of Postgres."""
    async with _connection(url, tls) as connection:
        return bool(await connection.fetchval(_IS_ANOTHER_ROLE, application))


async def missing_migrations(url: str, tls: str = "") -> list[str]:
    """The names of what has not been applied yet. Raises as `migrate`."""
    async with _connection(url, tls) as connection:
        known = await connection.fetchval("SELECT to_regclass('migrations') IS NOT NULL")
        applied = {row["name"] for row in await connection.fetch("SELECT name FROM migrations")} if known else set()
        return [name for name, _ in _numbered() if name not in applied]


async def _grant(connection: Any, role: str) -> None:
    """Grant what web, worker and commands need, and no more of `audit` than to add and read rows."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{_QUEUE_S}s'")
        for statement in await connection.fetch(_GRANTS, role):
            await connection.execute(statement[0])


@asynccontextmanager
async def _connection(url: str, tls: str) -> AsyncIterator[Any]:
    address = read_address(url, tls)
    connection = await connect(address, statement_cache_size=0)
    try:
        with mapped_faults(address):
            yield connection
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _lock(connection: Any) -> None:
    """Poll for the lock: a session that waits in the blocking call holds a snapshot, on which index builds deadlock."""
    deadline = asyncio.get_running_loop().time() + _LOCK_WAIT_S
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        if asyncio.get_running_loop().time() > deadline:
            raise DatabaseUnavailable(f"another migration has been running for {_LOCK_WAIT_S:.0f} s")
        await asyncio.sleep(0.2)


async def _apply(connection: Any) -> list[str]:
    await connection.execute(_LEDGER)
    applied = {row["name"]: row["sha256"] for row in await connection.fetch("SELECT name, sha256 FROM migrations")}
    done = []
    for name, text in _numbered():
        digest = sha256(text.encode()).hexdigest()
        if name in applied:
            if applied[name] != digest:
                raise ConfigurationError(f"migration {name} was edited after it had been applied")
            continue
        index = concurrent_index(text)
        if index is None:
            async with connection.transaction():
                # Better fail and be tried again than queue every reader behind a lock that does not come.
                await connection.execute(f"SET LOCAL lock_timeout = '{_QUEUE_S}s'")
                await connection.execute(text, timeout=_STATEMENT_TIMEOUT_S)
                await connection.execute(_RECORD, name, digest)
        else:
            await _build(connection, index, text)
            await connection.execute(_RECORD, name, digest)
        done.append(name)
    return done


def concurrent_index(text: str) -> str | None:
    """The name of the index that a migration builds outside of a transaction; None if it runs in one."""
    match = _CONCURRENT.fullmatch(" ".join(_COMMENT.sub("", text).split()))
    return None if match is None else match[1]


async def _build(connection: Any, index: str, text: str) -> None:
    """Build it, in place of what an interrupted build has left. It waits for older transactions and holds up nobody."""
    if await connection.fetchval(_IS_INVALID, index):
        await connection.execute(f"DROP INDEX CONCURRENTLY {index}", timeout=_STATEMENT_TIMEOUT_S)
    await connection.execute(text, timeout=_STATEMENT_TIMEOUT_S)


def _numbered() -> list[tuple[str, str]]:
    found = [file for file in files("storage.postgres.migrations").iterdir() if file.name.endswith(".sql")]
    return [(file.name, file.read_text("utf-8")) for file in sorted(found, key=lambda file: file.name)]
