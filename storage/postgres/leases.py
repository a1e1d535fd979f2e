"""The part that the leased tables share: pending, callbacks, notifications and refunds.

A row of these tables waits for work: it is due at `due_at`, and one process has it until `leased_until`. A lease ends
by itself, so a killed worker holds nothing up for long. Each module has the same verbs with the same meaning:

    claim           lease one row, if it is free, open, due and still has this arm number
    claim_overdue   lease the rows that have been due for longer than a grace period, oldest first, without a look-back
    reschedule      due again in so many seconds, under the next arm number, and free
    finish          done; pending rows and refunds have none, because only the door ends them
    walk_due        all rows due within a window, in batches, to arm Redis with
    take_over       end the leases of processes that are gone; refunds have none, because money waits for a lease's end

A claim of the sweep has waited for `grace_s`, and says so in its rows. If such a row is only postponed, for the same
attempt, it is due earlier by that time: the sweep finds it when its wait ends, and does not wait for the grace again.

All of them read `clock_timestamp()` and never `now()`, which stands still from a statement's beginning: after a wait
for a row's lock it would take a lease that has ended for a valid one, and give one that is shorter than it says. An
UPDATE alone computes its row before that wait, so `claim` locks the row in a subquery first. A statement that searches
an index by the clock reads it once (`NOW`).

The index of what is due has open rows only, and while they are few the planner would rather walk it whole than look a
key up: so a statement that is given a key does not name them as the index does.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import asyncpg
import msgspec

from core.errors import RowLocked
from storage.postgres.database import Database
from storage.postgres.gathered import Gathered, columns, if_unlocked

R = TypeVar("R")

DUE = "due_at <= clock_timestamp() + interval '1 second'"
"""A job only reminds: whoever can write to Redis may run it early, and would use up the attempts of its row. A second,
because the clocks of Redis and Postgres do not run quite alike."""

FREE = "(leased_until IS NULL OR leased_until <= clock_timestamp())"
NOW = "(SELECT clock_timestamp())"

WALK_BATCH = 5000

_CLOCK = "SELECT date_part('epoch', clock_timestamp())"


def due_in_s(delay_s: float, grace_s: float, *, is_postponed: bool) -> float:
    """Seconds until a row that is rescheduled is due. A row that is merely postponed has waited for the grace."""
    return delay_s - grace_s if is_postponed else delay_s


class DueRow(NamedTuple):
    """The arguments of a row's job, due in `delay_s` seconds."""

    id: str
    arm_no: int
    delay_s: float


class Claim(NamedTuple):
    """One row that a caller wants to lease."""

    id: str
    arm_no: int
    lease_s: float


def gathered_claims(
    one: str, many: str, read: Callable[[dict[str, Any]], R], *, has_process: bool = True
) -> Gathered[Claim, R | None]:
    """Claims that many callers share: `many` is a `claim_many_statement`, `one` claims and waits for a single row.

    A row that cannot be read fails alone: sent again, the others would find their rows leased, by themselves.
    """
    one_unlocked = if_unlocked(one)

    def result_of(is_locked: bool, fields: dict[str, Any]) -> R | Exception | None:  # noqa: FBT001 - a column
        try:
            return RowLocked() if is_locked else None if fields["arm_no"] is None else read(fields)
        except msgspec.DecodeError as error:
            return error

    async def send(db: Database, claims: list[Claim]) -> list[R | Exception | None]:
        rows = await db.fetch(many, *columns(claims), *((db.process,) if has_process else ()))
        return [result_of(fields.pop("is_locked"), fields) for fields in map(dict, rows)]

    async def claim_one(statement: str, db: Database, claim: Claim) -> R | None:
        row = await db.fetchrow(statement, *claim, *((db.process,) if has_process else ()))
        return None if row is None else read(dict(row))

    async def lone(db: Database, claim: Claim) -> R | Exception:
        return await claim_one(one_unlocked, db, claim) or RowLocked()

    return Gathered(send, alone=partial(claim_one, one), lone=lone, key=itemgetter(0))


def claim_many_statement(
    table: str,
    key: str,
    names: str,
    *,
    is_open: str,
    key_type: str = "text",
    lease: str = ", leased_by = $4",
    before: str = "",
) -> str:
    """Lease the rows $1 with the arm numbers $2 for $3 seconds. `before` is a column of the row before its lease.

    A row that somebody else has locked is not waited for, and told apart from one that is not to be had.
    """
    matches = f"{key} = w.wanted AND arm_no = w.wanted_arm_no AND {is_open} AND {FREE} AND {DUE}"
    return f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::{key_type}[], $2::int[], $3::float8[])
      WITH ORDINALITY AS w(wanted, wanted_arm_no, lease_s, n)
), claimed AS (
    UPDATE {table} t
       SET leased_until = clock_timestamp() + make_interval(secs => free.lease_s){lease}
      FROM (SELECT w.n, w.lease_s, one.* FROM wanted w
             CROSS JOIN LATERAL (
                   SELECT {key} AS key{before} FROM {table} WHERE {matches} FOR UPDATE SKIP LOCKED) AS one) AS free
     WHERE t.{key} BETWEEN free.key AND free.key
    RETURNING free.*, t.*
)
SELECT CASE WHEN c.n IS NULL THEN EXISTS (SELECT FROM {table} WHERE {matches}) ELSE false END AS is_locked, {names}
  FROM wanted w LEFT JOIN claimed c ON c.n = w.n
 ORDER BY w.n"""


def take_over_statement(
    table: str, columns: str, *, lease: Sequence[str] = ("leased_until", "leased_by"), is_open: str = "true"
) -> str:
    """End the leases of the processes $1. The next arm number is a new token: under the old one nothing is scheduled.

    The row is due when it was due before.
    """
    ended = ", ".join(f"{column} = NULL" for column in lease)
    return f"""
UPDATE {table}
   SET arm_no = arm_no + 1, {ended}
 WHERE {is_open} AND leased_by = ANY($1) AND leased_until > clock_timestamp()
RETURNING {columns}, greatest(0, date_part('epoch', due_at - clock_timestamp())) AS delay_s"""


def walk_statement(table: str, key: Sequence[str], columns: str, *, is_open: str = "true") -> str:
    """The statement that `walk` repeats: one batch of open rows due from $1 to $2, beyond the key $4 at $1 itself.

    Instants are Unix seconds: those of a year are exact to the microsecond, and the client reads them ten times faster
    than a timestamp. The columns come first, then `due_s`, then `delay_s`.
    """
    names = ", ".join(key)
    after = ", ".join(f"${number}" for number in range(4, 4 + len(key)))
    since, until = "to_timestamp($1::float8)", "to_timestamp($2::float8)"
    return f"""
SELECT {columns}, date_part('epoch', due_at) AS due_s, greatest(0, date_part('epoch', due_at - {NOW})) AS delay_s
  FROM {table}
 WHERE {is_open} AND due_at >= {since} AND due_at <= {until} AND (due_at, {names}) > ({since}, {after})
 ORDER BY due_at, {names}
 LIMIT $3"""


async def walk(
    db: Database, statement: str, first: Sequence[Any], *, from_s: float | None, until_s: float
) -> AsyncIterator[list[asyncpg.Record]]:
    """Rows in batches along (due_at, key), without a snapshot; `first` is a key before all others.

    A row that is rescheduled meanwhile may come twice or not at all; its rescheduling has armed Redis.
    """
    now: float = await db.fetchval(_CLOCK)
    since = -math.inf if from_s is None else now + from_s
    after = tuple(first)
    while rows := await db.fetch(statement, since, now + until_s, WALK_BATCH, *after):
        yield rows
        if len(rows) < WALK_BATCH:
            return
        since, after = rows[-1]["due_s"], tuple(rows[-1])[: len(after)]
