"""Runs of the reconciliation: one at a time for each day or file, carried on after a crash, kept with their counts.

The process with the lease works on the run; the lease ends by itself. A run continues only over the statement that it
began with: over another one, recognised by its hash, it begins at the first row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

import msgspec

from core.closing import Sums
from core.errors import ConflictsExhausted
from core.sentences import encode_phrase
from storage.postgres.database import Database, document, storable

EDGES_KEEP_DAYS = 14
"""Rows near midnight stay so long for the days beside them: twice as far back as the daily job catches up."""

DIFFERENCES_KEEP_DAYS = 90


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `day` None: of a file. `counts` are by `core.reconciliation.Finding`, `sums` by currency, both up to
    `next_row`. `statement_rows` None: an earlier version has begun it.
    """

    id: int
    account: str
    day: date | None
    sha256: str | None
    dry_run: bool
    status: str
    next_row: int
    counts: dict[str, int]
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    last_error: str
    sums: dict[str, Sums] = {}
    statement_rows: int | None = None
    leased_at: datetime | None = None
    error_phrase: str | None = None


class LastReconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """The last finished run of an account over a day, for metrics."""

    account: str
    age_s: float
    counts: dict[str, int]


class FinishedDay(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run over a day, of which the rows near midnight are kept. Begun before the day was over, it is of a
    part of it.
    """

    id: int
    started_at: datetime


_COLUMNS = """id, channel_account AS account, day, encode(statement_sha256, 'hex') AS sha256, dry_run, status, next_row,
          counts::text, attempt, started_at, finished_at, last_error, sums::text, statement_rows, leased_at,
          error_phrase"""

_CLAIM = f"""
INSERT INTO reconciliations AS r (channel_account, day, statement_sha256, dry_run, leased_at, leased_until)
VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5))
ON CONFLICT {{conflict}}
DO UPDATE SET leased_at = excluded.leased_at, leased_until = excluded.leased_until, status = 'running'
 WHERE (r.leased_until IS NULL OR r.leased_until <= clock_timestamp()) AND (NOT $6::boolean OR r.due_at <= now())
RETURNING {_COLUMNS}"""
_CLAIM_DAY = _CLAIM.format(conflict="(channel_account, day, dry_run) WHERE finished_at IS NULL AND day IS NOT NULL")
_CLAIM_FILE = _CLAIM.format(
    conflict="(channel_account, statement_sha256, dry_run) WHERE finished_at IS NULL AND day IS NULL"
)

# Rows recorded of another statement of this day are worthless.
_BEGIN = f"""
WITH other AS (
    SELECT id FROM reconciliations WHERE id = $1 AND leased_at = $2 AND statement_sha256 IS DISTINCT FROM $3
), rows_gone AS (
    DELETE FROM reconciliation_rows WHERE reconciliation_id IN (SELECT id FROM other)
), refunded_gone AS (
    DELETE FROM reconciliation_refunded WHERE reconciliation_id IN (SELECT id FROM other)
), differences_gone AS (
    DELETE FROM reconciliation_differences WHERE reconciliation_id IN (SELECT id FROM other)
)
UPDATE reconciliations
   SET statement_sha256 = $3,
       statement_rows = $4,
       next_row = CASE WHEN EXISTS (SELECT FROM other) THEN 1 ELSE next_row END,
       counts = CASE WHEN EXISTS (SELECT FROM other) THEN '{{}}' ELSE counts END,
       sums = CASE WHEN EXISTS (SELECT FROM other) THEN '{{}}' ELSE sums END,
       started_at = CASE WHEN EXISTS (SELECT FROM other) THEN now() ELSE started_at END
 WHERE id = $1 AND leased_at = $2
RETURNING {_COLUMNS}"""

_RENEW = """
UPDATE reconciliations SET leased_until = clock_timestamp() + make_interval(secs => $3)
 WHERE id = $1 AND leased_at = $2"""
_SAVE = """
UPDATE reconciliations SET next_row = $3, counts = $4::text::jsonb, sums = coalesce($5::text::jsonb, sums)
 WHERE id = $1 AND leased_at = $2 AND finished_at IS NULL"""
_FINISH = f"""
UPDATE reconciliations
   SET status = 'finished', finished_at = now(), counts = $3::text::jsonb, last_error = '', error_phrase = NULL,
       leased_at = NULL, leased_until = NULL
 WHERE id = $1 AND leased_at = $2
RETURNING {_COLUMNS}"""
_FAIL = """
UPDATE reconciliations
   SET status = 'failed', attempt = attempt + 1, due_at = now() + make_interval(secs => $4), last_error = $3,
       error_phrase = $5, leased_at = NULL, leased_until = NULL
 WHERE id = $1 AND leased_at = $2"""
_RELEASE = "UPDATE reconciliations SET leased_at = NULL, leased_until = NULL WHERE id = $1 AND leased_at = $2"

_CLEAN = f"""
WITH old AS (
    SELECT id FROM reconciliations
     WHERE channel_account = $1 AND finished_at IS NOT NULL AND id <> $2
       AND (day = $3 OR finished_at < now() - interval '{EDGES_KEEP_DAYS} days')
), rows_gone AS (
    DELETE FROM reconciliation_rows WHERE reconciliation_id IN (SELECT id FROM old)
)
DELETE FROM reconciliation_differences
 WHERE reconciliation_id IN (
    SELECT id FROM reconciliations
     WHERE channel_account = $1 AND finished_at < now() - interval '{DIFFERENCES_KEEP_DAYS} days')"""

_FINISHED_DAYS = f"""
SELECT DISTINCT ON (day) day, id, started_at
  FROM reconciliations
 WHERE channel_account = $1 AND day = ANY($2::date[]) AND NOT dry_run
   AND finished_at > now() - interval '{EDGES_KEEP_DAYS} days'
 ORDER BY day, finished_at DESC"""
_LIST = f"""
SELECT {_COLUMNS} FROM reconciliations
 WHERE ($1::text IS NULL OR channel_account = $1) AND ($2::bigint IS NULL OR id = $2)
   AND id < coalesce($4::bigint, 9223372036854775807)
 ORDER BY id DESC
 LIMIT $3"""
_RECONCILED = """
SELECT DISTINCT ON (r.channel_account)
       r.channel_account AS account, extract(epoch FROM now() - r.finished_at)::float8 AS age_s, r.counts::text
  FROM reconciliations r JOIN accounts a ON a.name = r.channel_account
 WHERE r.finished_at IS NOT NULL AND r.day IS NOT NULL AND NOT r.dry_run
 ORDER BY r.channel_account, r.finished_at DESC"""

# Runs over days whose statements state other totals than their rows have, and that are still to be read whole.
_INCOMPLETE = f"""
SELECT r.channel_account AS account, count(*) AS days
  FROM reconciliations r JOIN accounts a ON a.name = r.channel_account
 WHERE r.finished_at IS NULL AND r.day IS NOT NULL AND NOT r.dry_run AND r.counts ? 'total'
   AND r.day > (now() AT TIME ZONE 'UTC')::date - {DIFFERENCES_KEEP_DAYS}
 GROUP BY 1"""


async def claim_day(
    db: Database, account: str, day: date, *, dry_run: bool, lease_s: float, only_due: bool = False
) -> Reconciliation | None:
    """The run over this day, a new one or one that was not finished, leased; None: another process has it.

    `only_due`: also None while a failed one is not yet due again.
    """
    row = await db.fetchrow(_CLAIM_DAY, account, day, None, dry_run, lease_s, only_due)
    return None if row is None else _run(row)


async def claim_file(
    db: Database, account: str, sha256: bytes, *, dry_run: bool, lease_s: float
) -> Reconciliation | None:
    """The same over a file, which its hash names."""
    row = await db.fetchrow(_CLAIM_FILE, account, None, sha256, dry_run, lease_s, False)
    return None if row is None else _run(row)


async def begin(db: Database, run: Reconciliation, sha256: bytes, rows: int | None = None) -> Reconciliation:
    """The run over this very statement of so many rows: at the row where it was left, or at the first one of another
    statement.

    Raises:
        ConflictsExhausted: the lease has ended, and another process continues the run.
    """
    row = await db.fetchrow(_BEGIN, run.id, run.leased_at, sha256, rows)
    if row is None:
        raise _lease_lost(run)
    return _run(row)


async def renew(db: Database, run: Reconciliation, lease_s: float) -> bool:
    """Keep the lease. False: another process has it by now."""
    return await db.execute(_RENEW, run.id, run.leased_at, lease_s) == 1


async def save(
    db: Database,
    run: Reconciliation,
    next_row: int,
    counts: Mapping[str, int],
    sums: Mapping[str, Sums] | None = None,
) -> None:
    """Everything before `next_row` is done. `sums` None: they stay. Raises as `begin`."""
    summed = None if sums is None else document(dict(sums))
    if await db.execute(_SAVE, run.id, run.leased_at, next_row, document(dict(counts)), summed) == 0:
        raise _lease_lost(run)


async def finish(db: Database, run: Reconciliation, counts: Mapping[str, int]) -> Reconciliation:
    """Mark it finished and give the lease back. Raises as `begin`."""
    row = await db.fetchrow(_FINISH, run.id, run.leased_at, document(dict(counts)))
    if row is None:
        raise _lease_lost(run)
    await db.execute(_CLEAN, run.account, run.id, run.day)
    return _run(row)


async def fail(db: Database, run: Reconciliation, error: str, delay_s: float) -> None:
    """Record the failure. The run can continue: by the daily job in `delay_s` seconds, by an operator at once."""
    await db.execute(_FAIL, run.id, run.leased_at, storable(error[:200]), delay_s, encode_phrase(error))


async def release(db: Database, run: Reconciliation) -> None:
    """Give the lease back: another process may continue."""
    await db.execute(_RELEASE, run.id, run.leased_at)


async def finished_days(db: Database, account: str, days: Sequence[date]) -> dict[date, FinishedDay]:
    """The last finished run over each of these days, of those whose rows near midnight are still kept."""
    rows = await db.fetch(_FINISHED_DAYS, account, list(days))
    return {row["day"]: FinishedDay(id=row["id"], started_at=row["started_at"]) for row in rows}


async def list_reconciliations(
    db: Database, *, account: str | None = None, run_id: int | None = None, before: int | None = None, limit: int = 50
) -> list[Reconciliation]:
    """Newest first, from before a run on."""
    return [_run(row) for row in await db.fetch(_LIST, account, run_id, limit, before)]


async def find_last_reconciliations(db: Database) -> list[LastReconciliation]:
    """The last finished run of each account that has one."""
    rows = await db.fetch(_RECONCILED)
    return [LastReconciliation(account=row["account"], age_s=row["age_s"], counts=_counts(row)) for row in rows]


async def find_incomplete_days(db: Database) -> dict[str, int]:
    """Days of each account whose statement states other totals than its rows have; none: the account is left out."""
    return {row["account"]: row["days"] for row in await db.fetch(_INCOMPLETE)}


def _run(row: object) -> Reconciliation:
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    sums = msgspec.json.decode(fields["sums"], type=dict[str, Sums])
    return Reconciliation(**fields | {"counts": _counts(fields), "sums": sums})


def _counts(fields: Mapping[str, object]) -> dict[str, int]:
    return msgspec.json.decode(str(fields["counts"]), type=dict[str, int])


def _lease_lost(run: Reconciliation) -> ConflictsExhausted:
    return ConflictsExhausted(f"another process continues run {run.id}")
