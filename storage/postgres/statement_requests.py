"""Statements that operators want to be read: a day's own, fetched again, or an uploaded file. A worker reads them.

An uploaded file is sealed, because it names buyers, and deleted a day later at the latest. A request is leased; after a
crash it is read again, which changes nothing that was done.
"""

from __future__ import annotations

from datetime import date, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec

from core.sentences import encode_phrase
from storage.postgres.database import Database, storable
from storage.sealing import Sealer

FILE_BYTES_MAX = 16 << 20
"""Largest uploaded file: a day of 100,000 payments as Alipay's zip or WeChat Pay's gzip has a quarter of it. A longer
one is read by `nodrop reconcile`, from the disk."""

FILE_KEPT_S = 86_400.0

_COLUMNS = """id, channel_account AS account, day, dry_run, encode(sha256, 'hex') AS sha256, requested_by, requested_at,
       reason, status, rows_done, rows, run_id, error, ended_at, attempt, error_phrase"""

_PUT_FILE = """
INSERT INTO statement_files (channel_account, sha256, sealed, bytes) VALUES ($1, $2, $3, $4)
ON CONFLICT (channel_account, sha256) DO UPDATE SET sealed = excluded.sealed, uploaded_at = now()"""
_GET_FILE = "SELECT sealed FROM statement_files WHERE channel_account = $1 AND sha256 = $2"
_DELETE_FILES = """
DELETE FROM statement_files f
 WHERE f.uploaded_at < now() - make_interval(secs => $1)
   AND NOT EXISTS (SELECT FROM statement_requests r
                    WHERE r.ended_at IS NULL AND r.channel_account = f.channel_account AND r.sha256 = f.sha256)"""
_DELETE_REQUESTS = """
DELETE FROM statement_requests WHERE id = ANY(ARRAY(
    SELECT id FROM statement_requests WHERE ended_at < now() - make_interval(days => $1) ORDER BY id LIMIT $2))"""
_DELETE_FILE = "DELETE FROM statement_files WHERE channel_account = $1 AND sha256 = $2"

# The same request twice, as by a form that is sent twice, is one.
_ADD = f"""
WITH open AS (
    SELECT * FROM statement_requests
     WHERE channel_account = $1 AND day = $2 AND dry_run = $3 AND sha256 IS NOT DISTINCT FROM $4 AND ended_at IS NULL
     ORDER BY id LIMIT 1
), added AS (
    INSERT INTO statement_requests (channel_account, day, dry_run, sha256, requested_by, reason)
    SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT FROM open)
    RETURNING *
)
SELECT {_COLUMNS} FROM open UNION ALL SELECT {_COLUMNS} FROM added"""
_CLAIM = f"""
UPDATE statement_requests
   SET status = 'running', attempt = attempt + 1, leased_at = clock_timestamp(),
       leased_until = clock_timestamp() + make_interval(secs => $1)
 WHERE id = (SELECT id FROM statement_requests
              WHERE ended_at IS NULL AND (leased_until IS NULL OR leased_until <= clock_timestamp())
              ORDER BY requested_at, id
              LIMIT 1
                FOR UPDATE SKIP LOCKED)
RETURNING {_COLUMNS}, leased_at"""
_PROGRESS = """
UPDATE statement_requests
   SET rows_done = $3, rows = $4, leased_until = clock_timestamp() + make_interval(secs => $5)
 WHERE id = $1 AND leased_at = $2 AND ended_at IS NULL"""
_GIVE_BACK = """
UPDATE statement_requests
   SET status = 'waiting', attempt = attempt - $4::integer, leased_at = NULL,
       leased_until = clock_timestamp() + make_interval(secs => $3)
 WHERE id = $1 AND leased_at = $2 AND ended_at IS NULL"""
_END = """
UPDATE statement_requests
   SET status = $3, run_id = $4, error = $5, error_phrase = $7,
       rows_done = coalesce($6, rows_done), rows = coalesce($6, rows),
       ended_at = now(), leased_at = NULL, leased_until = NULL
 WHERE id = $1 AND leased_at = $2"""
_GET = f"SELECT {_COLUMNS} FROM statement_requests WHERE id = $1"
_OF_DAY = f"""
SELECT {_COLUMNS} FROM statement_requests WHERE channel_account = $1 AND day = $2 ORDER BY id DESC LIMIT $3"""


class StatementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `status` is waiting, running, done or failed; `error` says to an operator why it failed. `sha256`
    None: the statement is fetched. `run_id` is the reconciliation that came of it. `attempt`: how often it was begun.
    """

    id: int
    account: str
    day: date
    dry_run: bool
    sha256: str | None
    requested_by: str
    requested_at: datetime
    reason: str
    status: str
    rows_done: int
    rows: int | None
    run_id: int | None
    error: str
    ended_at: datetime | None
    attempt: int = 0
    error_phrase: str | None = None


class LeasedRequest(NamedTuple):
    """A request that this process works on; `leased_at` is the token of its lease."""

    request: StatementRequest
    leased_at: datetime


async def put_file(db: Database, sealer: Sealer, account: str, content: bytes) -> bytes:
    """Keep an uploaded file; return its SHA-256, which names it."""
    digest = sha256(content).digest()
    sealed = sealer.seal(content, belongs_to=_belongs_to(account, digest))
    await db.execute(_PUT_FILE, account, digest, sealed, len(content))
    return digest


async def find_file(db: Database, sealer: Sealer, account: str, digest: bytes) -> bytes | None:
    """An uploaded file; None when it is gone. Raises ConfigurationError if no master key opens it."""
    sealed = await db.fetchval(_GET_FILE, account, digest)
    return None if sealed is None else sealer.open(sealed, belongs_to=_belongs_to(account, digest))


async def delete_file(db: Database, account: str, digest: bytes) -> None:
    """Delete an uploaded file that was read."""
    await db.execute(_DELETE_FILE, account, digest)


async def delete_old_files(db: Database) -> int:
    """Delete files of more than a day that nobody is to read any more; return how many."""
    return await db.execute(_DELETE_FILES, FILE_KEPT_S)


async def delete_old_requests(db: Database, *, keep_days: int, limit: int) -> int:
    """Delete up to `limit` requests that ended before that; return how many."""
    return await db.execute(_DELETE_REQUESTS, keep_days, limit)


async def add_request(
    db: Database, account: str, day: date, *, dry_run: bool, digest: bytes | None, by: str, reason: str = ""
) -> StatementRequest:
    """Ask for a statement to be read. The same one that has not ended is returned instead of a second."""
    row = await db.fetchrow(_ADD, account, day, dry_run, digest, by, reason)
    assert row is not None, "it is there or it is added"
    return StatementRequest(**dict(row))


async def claim_request(db: Database, lease_s: float) -> LeasedRequest | None:
    """The oldest request that nobody works on, leased; None if there is none."""
    row = await db.fetchrow(_CLAIM, lease_s)
    if row is None:
        return None
    fields = dict(row)
    leased_at = fields.pop("leased_at")
    return LeasedRequest(StatementRequest(**fields), leased_at)


async def keep_request(db: Database, leased: LeasedRequest, *, done: int, rows: int | None, lease_s: float) -> bool:
    """Keep the lease and note how far it is. False: another process has it by now."""
    return await db.execute(_PROGRESS, leased.request.id, leased.leased_at, done, rows, lease_s) == 1


async def give_request_back(db: Database, leased: LeasedRequest, *, delay_s: float, is_begun: bool) -> None:
    """Let a process take it again in so many seconds. `is_begun`: this was an attempt."""
    await db.execute(_GIVE_BACK, leased.request.id, leased.leased_at, delay_s, 0 if is_begun else 1)


async def end_request(
    db: Database,
    leased: LeasedRequest,
    *,
    run_id: int | None,
    error: str = "",
    phrase: str | None = None,
    rows: int | None = None,
) -> None:
    """Write its end down: done, or failed with an error for the operator, whose `phrase` may be stored already."""
    phrase = phrase or encode_phrase(error)
    status = "failed" if error else "done"
    await db.execute(_END, leased.request.id, leased.leased_at, status, run_id, storable(error[:500]), rows, phrase)


async def find_request(db: Database, request_id: int) -> StatementRequest | None:
    """One request."""
    row = await db.fetchrow(_GET, request_id)
    return None if row is None else StatementRequest(**dict(row))


async def list_requests(db: Database, account: str, day: date, limit: int = 10) -> list[StatementRequest]:
    """Requests about one day, newest first."""
    return [StatementRequest(**dict(row)) for row in await db.fetch(_OF_DAY, account, day, limit)]


def _belongs_to(account: str, digest: bytes) -> str:
    return f"statement {digest.hex()} of {account}"
