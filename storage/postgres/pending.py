"""The temporary table: leases of payments to be queried and of orders to be closed, and when each is due.

A lease makes one query per payment at a time across all processes: its holder queries the channel, the others wait for
the result. Rows are made, resolved and moved to their next attempt by the door. Verbs and clock: `leases`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from core.errors import RowLocked
from core.order import OrderState, PaymentKey, PendingKind
from storage.postgres.database import Database
from storage.postgres.gathered import Gathered, columns, if_unlocked
from storage.postgres.leases import DUE, FREE, NOW, due_in_s, take_over_statement, walk, walk_statement
from storage.postgres.orders import _STATE, _order_state, find_state


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    """A row leased to us. `leased_at` is the token of the lease, and when the query began."""

    key: PaymentKey
    kind: PendingKind
    order_no: str
    arm_no: int
    leased_at: datetime
    grace_s: float = 0.0


class PendingRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The arguments of a row's job, due in `delay_s` seconds."""

    key: PaymentKey
    kind: PendingKind
    order_no: str
    arm_no: int
    delay_s: float


class LastQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Begin of the last completed query of a payment (None: there was none), and the database's clock `now`."""

    now: datetime
    began_at: datetime | None


_COLUMNS = "channel_account, out_trade_no, kind, order_no, arm_no, leased_at"

_CLAIM = f"""
UPDATE pending
   SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $6
 WHERE (channel_account, out_trade_no) = (
           SELECT channel_account, out_trade_no FROM pending
            WHERE channel_account = $1 AND out_trade_no = $2 AND {FREE}
              AND ($4::int IS NULL OR (arm_no = $4 AND {DUE}))
              AND ($5::timestamptz IS NULL OR answered_from IS NULL OR answered_from < $5)
              FOR UPDATE)
RETURNING {_COLUMNS}"""

# Of many: a row that somebody else has locked is not waited for, and told apart from one that is not to be had.
_MATCHES = f"""(channel_account, out_trade_no) = (w.channel_account, w.out_trade_no) AND {FREE}
              AND (w.arm_no IS NULL OR (arm_no = w.arm_no AND {DUE}))
              AND (w.unanswered_since IS NULL OR answered_from IS NULL OR answered_from < w.unanswered_since)"""
_CLAIM_MANY = """
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::int[], $5::timestamptz[], $6::text[])
      WITH ORDINALITY AS w(channel_account, out_trade_no, lease_s, arm_no, unanswered_since, process, n)
), claimed AS (
    UPDATE pending p
       SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => free.lease_s),
           leased_by = free.process
      FROM (SELECT w.n, w.lease_s, w.process, one.channel_account, one.out_trade_no FROM wanted w
             CROSS JOIN LATERAL (
                   SELECT channel_account, out_trade_no FROM pending WHERE {matches}
                      FOR UPDATE SKIP LOCKED) AS one) AS free
     WHERE (p.channel_account, p.out_trade_no) BETWEEN (free.channel_account, free.out_trade_no)
                                                   AND (free.channel_account, free.out_trade_no)
    RETURNING free.n, p.*
)
SELECT CASE WHEN c.n IS NULL THEN EXISTS (SELECT FROM pending WHERE {matches}) ELSE false END AS is_locked,
       c.channel_account, c.out_trade_no, c.kind, c.order_no, c.arm_no, c.leased_at{state}
  FROM wanted w LEFT JOIN claimed c ON c.n = w.n
 ORDER BY w.n"""
_CLAIM_ALL = _CLAIM_MANY.format(matches=_MATCHES, state="")
_CLAIM_WITH_ORDERS = _CLAIM_MANY.format(
    matches=_MATCHES, state=f", (SELECT {_STATE} FROM orders o WHERE o.order_no = c.order_no) AS state"
)

_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT channel_account, out_trade_no FROM pending
     WHERE due_at <= {NOW} - make_interval(secs => $1) AND {FREE}
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE pending p
       SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4
      FROM overdue o
     WHERE p.channel_account = o.channel_account AND p.out_trade_no = o.out_trade_no
    RETURNING p.*
)
SELECT {_COLUMNS} FROM claimed ORDER BY due_at"""

_RELEASE = """
UPDATE pending
   SET leased_at = NULL, leased_until = NULL,
       answered_from = CASE WHEN $4 THEN leased_at ELSE answered_from END
 WHERE (channel_account, out_trade_no) = (
           SELECT channel_account, out_trade_no FROM pending
            WHERE channel_account = $1 AND out_trade_no = $2 AND leased_at = $3 FOR UPDATE)"""
_RELEASE_UNLOCKED = if_unlocked(_RELEASE)

_IS_IT = "(channel_account, out_trade_no) = (w.channel_account, w.out_trade_no)"
_RELEASE_MANY = f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bool[])
      WITH ORDINALITY AS w(channel_account, out_trade_no, leased_at, was_queried, n)
), released AS (
    UPDATE pending p
       SET leased_at = NULL, leased_until = NULL,
           answered_from = CASE WHEN free.was_queried THEN p.leased_at ELSE p.answered_from END
      FROM (SELECT w.n, w.was_queried, one.channel_account, one.out_trade_no FROM wanted w
             CROSS JOIN LATERAL (
                   SELECT channel_account, out_trade_no FROM pending WHERE {_IS_IT} AND leased_at = w.leased_at
                      FOR UPDATE SKIP LOCKED) AS one) AS free
     WHERE (p.channel_account, p.out_trade_no) BETWEEN (free.channel_account, free.out_trade_no)
                                                   AND (free.channel_account, free.out_trade_no)
    RETURNING free.n
)
SELECT r.n IS NULL AND w.leased_at = (SELECT leased_at FROM pending WHERE {_IS_IT}) AS is_locked
  FROM wanted w LEFT JOIN released r ON r.n = w.n
 ORDER BY w.n"""

_RESCHEDULE = """
UPDATE pending
   SET due_at = clock_timestamp() + make_interval(secs => $4), arm_no = arm_no + 1,
       leased_at = NULL, leased_until = NULL
 WHERE channel_account = $1 AND out_trade_no = $2 AND arm_no = $3
RETURNING arm_no"""

_RESCHEDULE_MANY = f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::float8[])
      WITH ORDINALITY AS w(channel_account, out_trade_no, arm_no, due_s, n)
), moved AS (
    UPDATE pending p
       SET due_at = clock_timestamp() + make_interval(secs => free.due_s), arm_no = p.arm_no + 1,
           leased_at = NULL, leased_until = NULL
      FROM (SELECT w.n, w.due_s, one.channel_account, one.out_trade_no FROM wanted w
             CROSS JOIN LATERAL (
                   SELECT channel_account, out_trade_no FROM pending WHERE {_IS_IT} AND arm_no = w.arm_no
                      FOR UPDATE SKIP LOCKED) AS one) AS free
     WHERE (p.channel_account, p.out_trade_no) BETWEEN (free.channel_account, free.out_trade_no)
                                                   AND (free.channel_account, free.out_trade_no)
    RETURNING free.n, p.arm_no
)
SELECT m.arm_no, m.n IS NULL AND w.arm_no = (SELECT arm_no FROM pending WHERE {_IS_IT}) AS is_locked
  FROM wanted w LEFT JOIN moved m ON m.n = w.n
 ORDER BY w.n"""

_NOTE_ANSWER = """
UPDATE pending
   SET unanswered_since = CASE WHEN NOT $3 THEN coalesce(unanswered_since, clock_timestamp()) END,
       verified_at = CASE WHEN $3 THEN clock_timestamp() ELSE verified_at END
 WHERE channel_account = $1 AND out_trade_no = $2"""

_LAST_QUERY = """
SELECT clock_timestamp() AS now, answered_from AS began_at
  FROM pending WHERE channel_account = $1 AND out_trade_no = $2"""

_KINDS = {kind.value: kind for kind in PendingKind}  # a fourth of the time of a call
_ROW = "channel_account, out_trade_no, kind, order_no, arm_no"

_TAKE_OVER = take_over_statement("pending", _ROW, lease=("leased_at", "leased_until", "leased_by"))

_WALK = walk_statement("pending", ("channel_account", "out_trade_no"), _ROW)


async def claim(
    db: Database,
    key: PaymentKey,
    lease_s: float,
    *,
    arm_no: int | None = None,
    unanswered_since: datetime | None = None,
    is_for_money: bool = False,
) -> Leased | None:
    """Lease one payment's row: of any arm number and at any time, or of `arm_no` once it is due.

    Returns None if the row is gone, leased, not due or has another arm number, or if a query that began at
    `unanswered_since` or later is completed. `is_for_money`: the channel is to move money under this lease, so no other
    process takes it over.
    """
    process = None if is_for_money else db.process
    return await _claim(db, _Claim(*key, lease_s, arm_no, unanswered_since, process))


async def claim_with_order(
    db: Database, key: PaymentKey, lease_s: float, *, arm_no: int
) -> tuple[Leased, OrderState] | None:
    """`claim` of a scheduled row, and the order that the lease protects, in one statement."""
    return await _claim_with_order(db, _Claim(*key, lease_s, arm_no, None, db.process))


async def claim_overdue(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[Leased]:
    """Lease free rows that have been due for longer than `grace_s`, oldest first."""
    rows = await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s, db.process)
    return [replace(_leased(row), grace_s=grace_s) for row in rows]


async def release(db: Database, leased: Leased, *, was_queried: bool = True) -> None:
    """Give the lease back without moving the row.

    `was_queried`: the channel was queried, so the lease counts as the payment's last query. Otherwise (the account's
    rate is used up) the next process may query at once.
    """
    await _release(db, _Release(*leased.key, leased.leased_at, was_queried))


async def reschedule(db: Database, leased: Leased, *, delay_s: float) -> int | None:
    """Due again in `delay_s` seconds, for the same attempt: the door alone advances it.

    Returns the new arm number, None when the row is gone or was scheduled meanwhile.
    """
    due_s = due_in_s(delay_s, leased.grace_s, is_postponed=True)
    return await _reschedule(db, _Later(*leased.key, leased.arm_no, due_s))


async def note_answer(db: Database, key: PaymentKey, *, is_verified: bool) -> None:
    """A query of the payment went out, and has had a verified answer or none."""
    await db.execute(_NOTE_ANSWER, *key, is_verified)


async def find_last_query(db: Database, key: PaymentKey) -> LastQuery | None:
    """The payment's last query; None when nothing is pending for this payment any more."""
    row = await db.fetchrow(_LAST_QUERY, *key)
    return None if row is None else LastQuery(**dict(row))


async def take_over(db: Database, processes: Sequence[str]) -> list[PendingRow]:
    """End the leases of these processes, which are gone. Returns the rows under their new arm numbers."""
    return [_pending_row(row) for row in await db.fetch(_TAKE_OVER, list(processes))]


async def walk_due(db: Database, *, from_s: float | None = None, until_s: float) -> AsyncIterator[list[PendingRow]]:
    """Rows due between `from_s` (None: ever) and `until_s` seconds from now, in batches."""
    async for rows in walk(db, _WALK, ("", ""), from_s=from_s, until_s=until_s):
        yield [_pending_row(row) for row in rows]


def _leased(row: object) -> Leased:
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    key = PaymentKey(fields.pop("channel_account"), fields.pop("out_trade_no"))
    return Leased(key=key, kind=PendingKind(fields.pop("kind")), **fields)


def _pending_row(row: Iterable[Any]) -> PendingRow:
    account, number, kind, order_no, arm_no, *_, delay_s = row
    return PendingRow(
        key=PaymentKey(account, number), kind=_KINDS[kind], order_no=order_no, arm_no=arm_no, delay_s=delay_s
    )


# -- statements for many callers ---------------------------------------------------------------------------------------


class _Claim(NamedTuple):
    """One row that a caller wants to lease: the parameters of the statement."""

    channel_account: str
    out_trade_no: str
    lease_s: float
    arm_no: int | None
    unanswered_since: datetime | None
    process: str | None


async def _claim_many(db: Database, claims: list[_Claim]) -> list[Leased | Exception | None]:
    return [_result(**dict(row)) for row in await db.fetch(_CLAIM_ALL, *columns(claims))]


async def _claim_with_orders(db: Database, claims: list[_Claim]) -> list[tuple[Leased, OrderState] | Exception | None]:
    return [_result_with_order(**dict(row)) for row in await db.fetch(_CLAIM_WITH_ORDERS, *columns(claims))]


def _result_with_order(*, state: str, **fields: Any) -> tuple[Leased, OrderState] | Exception | None:
    """An order that cannot be read fails alone: sent again, the others would find their rows leased, by themselves."""
    result = _result(**fields)
    try:
        return (result, _order_state(state)) if isinstance(result, Leased) else result
    except msgspec.DecodeError as error:
        return error


def _result(*, is_locked: bool, **fields: Any) -> Leased | Exception | None:
    if is_locked:
        return RowLocked()
    return None if fields["kind"] is None else _leased(fields)


async def _claim_alone(db: Database, claim: _Claim) -> Leased | None:
    row = await db.fetchrow(_CLAIM, *claim)
    return None if row is None else _leased(row)


async def _claim_with_order_alone(db: Database, claim: _Claim) -> tuple[Leased, OrderState] | None:
    leased = await _claim_alone(db, claim)
    state = None if leased is None else await find_state(db, leased.order_no)
    return None if leased is None or state is None else (leased, state)


_claim: Gathered[_Claim, Leased | None] = Gathered(_claim_many, alone=_claim_alone, key=itemgetter(0, 1))
_claim_with_order: Gathered[_Claim, tuple[Leased, OrderState] | None] = Gathered(
    _claim_with_orders, alone=_claim_with_order_alone, key=itemgetter(0, 1)
)


class _Release(NamedTuple):
    """One lease that is given back: the parameters of the statement."""

    channel_account: str
    out_trade_no: str
    leased_at: datetime
    was_queried: bool


async def _release_many(db: Database, leases: list[_Release]) -> list[Exception | None]:
    rows = await db.fetch(_RELEASE_MANY, *columns(leases))
    return [RowLocked() if row["is_locked"] else None for row in rows]


async def _release_alone(db: Database, lease: _Release) -> None:
    await db.execute(_RELEASE, *lease)


async def _release_lone(db: Database, lease: _Release) -> Exception | None:
    return None if await db.execute(_RELEASE_UNLOCKED, *lease) else RowLocked()


_release: Gathered[_Release, None] = Gathered(
    _release_many, alone=_release_alone, lone=_release_lone, key=itemgetter(0, 1)
)


class _Later(NamedTuple):
    """One row that is put off: the parameters of the statement."""

    channel_account: str
    out_trade_no: str
    arm_no: int
    due_s: float


async def _reschedule_many(db: Database, rows: list[_Later]) -> list[int | Exception | None]:
    found = await db.fetch(_RESCHEDULE_MANY, *columns(rows))
    return [RowLocked() if row["is_locked"] else row["arm_no"] for row in found]


async def _reschedule_alone(db: Database, row: _Later) -> int | None:
    arm_no: int | None = await db.fetchval(_RESCHEDULE, *row)
    return arm_no


_reschedule: Gathered[_Later, int | None] = Gathered(_reschedule_many, alone=_reschedule_alone, key=itemgetter(0, 1))
