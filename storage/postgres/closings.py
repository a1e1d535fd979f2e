"""Closings of days: the money that is known here, computed day by day and kept, and the sign-offs of people.

What is kept is a picture of the payments, refunds and disputes of a day, taken anew by the worker, after each
reconciliation, and when somebody signs the day off. Lists read only these rows, so they take the same time behind any
number of orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

import msgspec

from core.closing import DayMoney, Run, SignOff, Sums
from core.dispute import Dispute
from core.reconciliation import Finding
from storage.postgres.database import Database, document
from storage.postgres.reconciliation.differences import DIFFERENCES_MAX

LISTED_DIFFERENCES_MAX = 500
"""Differences of a day that a list looks at to count the open ones; of a day by itself all are, that a run keeps."""

_NEEDS_PERSON = [finding.value for finding in Finding if finding.is_difference]

# Both by the index of the day, and by no other column of it.
_MONEY = """
SELECT currency, sum(payments)::bigint AS payments, sum(paid)::bigint AS paid,
       sum(refunds)::bigint AS refunds, sum(refunded)::bigint AS refunded
  FROM (SELECT p.currency, count(*) AS payments, sum(p.amount) AS paid, 0 AS refunds, 0 AS refunded
          FROM payments p
         WHERE p.channel_account = $1 AND p.paid_at IS NOT NULL AND p.paid_at >= $2 AND p.paid_at < $3
         GROUP BY p.currency
        UNION ALL
        SELECT f.currency, 0, 0, count(*), sum(f.amount)
          FROM refunds f
         WHERE f.channel_account = $1 AND f.status = 'succeeded' AND f.settled_at >= $2 AND f.settled_at < $3
         GROUP BY f.currency) AS kinds
 GROUP BY currency"""
_DISPUTES = """
SELECT dispute_id, channel_account, out_trade_no, order_no, kind, state, opened_at, changed_at, amount, currency,
       reason, outcome, respond_by
  FROM disputes WHERE channel_account = $1 AND opened_at >= $2 AND opened_at < $3
 ORDER BY opened_at
 LIMIT 10000"""
_PUT = """
INSERT INTO closings (channel_account, day, money) VALUES ($1, $2, $3::text::jsonb)
ON CONFLICT (channel_account, day)
DO UPDATE SET money = excluded.money, computed_at = now()"""

# A difference is open while its case is: the case that names the same payment for the same reason, or any that the door
# has opened about it. The comparison is that of the cases' own index.
_IS_OPEN = """
EXISTS (SELECT FROM cases c
         WHERE coalesce(c.order_no, '') = CASE WHEN d.kind IN ('malformed', 'total') THEN ''
                                                ELSE coalesce(d.order_no, '') END
           AND coalesce(c.channel_account, '') = {account}
           AND coalesce(c.out_trade_no, '') = CASE WHEN d.kind IN ('malformed', 'total') THEN '' ELSE d.out_trade_no END
           AND (c.reason = 'statement_' || d.kind
                OR (d.kind IN ('paid_there_only', 'refund') AND NOT starts_with(c.reason, 'statement_')))
           AND c.resolved_at IS NULL)"""
_IS_OPEN_OF_LIST = _IS_OPEN.format(account="k.channel_account")
_RUN = """r.id, r.status, r.started_at, r.counts::text AS counts, r.sums::text AS sums, r.last_error,
       r.error_phrase"""
_LIST = f"""
SELECT k.channel_account AS account, k.day, k.money::text AS money, k.computed_at,
       latest.id AS latest_id, latest.status AS latest_status, latest.started_at AS latest_started_at,
       latest.counts AS latest_counts, latest.last_error AS latest_error, latest.error_phrase AS latest_phrase,
       whole.id AS whole_id, whole.status AS whole_status, whole.started_at AS whole_started_at,
       whole.counts AS whole_counts, whole.sums AS whole_sums,
       coalesce(open.count, 0) AS open_differences,
       signed.at, signed.by, signed.note, signed.figures::text AS figures
  FROM {{days}} k
  LEFT JOIN LATERAL (SELECT {_RUN} FROM reconciliations r
                      WHERE r.channel_account = k.channel_account AND r.day = k.day AND NOT r.dry_run
                      ORDER BY r.id DESC LIMIT 1) AS latest ON true
  LEFT JOIN LATERAL (SELECT {_RUN} FROM reconciliations r
                      WHERE r.channel_account = k.channel_account AND r.day = k.day AND NOT r.dry_run
                        AND (r.finished_at IS NOT NULL OR r.id = latest.id)
                      ORDER BY r.finished_at IS NULL, r.finished_at DESC LIMIT 1) AS whole ON true
  LEFT JOIN LATERAL (SELECT count(*) AS count
                       FROM (SELECT d.* FROM reconciliation_differences d
                              WHERE d.reconciliation_id = whole.id AND d.kind = ANY($5::text[]) LIMIT $6) AS d
                      WHERE {_IS_OPEN_OF_LIST}) AS open ON true
  LEFT JOIN LATERAL (SELECT s.at, s.by, s.note, s.figures FROM sign_offs s
                      WHERE s.channel_account = k.channel_account AND s.day = k.day
                      ORDER BY s.id DESC LIMIT 1) AS signed ON true
 WHERE {{chosen}}
 ORDER BY k.day DESC, k.channel_account DESC
 LIMIT $4"""
_LIST_ALL = _LIST.format(days="closings", chosen="(k.day, k.channel_account) < ($2, $3::text) AND $1::text IS NULL")
_LIST_OF_ACCOUNT = _LIST.format(
    days="closings",
    chosen="k.channel_account = $1::text AND (k.day, k.channel_account) < ($2, $3::text) AND k.day <= $2",
)
# Whether or not it is kept: $1 is the account, $2 the day.
_ONE = _LIST.format(
    days="(SELECT $1::text AS channel_account, $2::date AS day, '{}'::jsonb AS money, now() AS computed_at)",
    chosen="$3::text IS NOT NULL",
)
_SIGN = """
INSERT INTO sign_offs (channel_account, day, by, note, figures) VALUES ($1, $2, $3, $4, $5::text::jsonb)"""
_SIGNED = """
SELECT at, by, note, figures::text FROM sign_offs WHERE channel_account = $1 AND day = $2 ORDER BY id DESC LIMIT $3"""

_FIRST = (date.max, "")
"""Before every day, read backwards: no name comes before an empty one."""


class ClosingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A kept closing with the runs over its day and its newest sign-off. `there` is of `whole`: the newest finished
    run, else the newest one.
    """

    account: str
    day: date
    here: dict[str, DayMoney]
    there: dict[str, Sums]
    computed_at: datetime
    latest: Run | None
    whole: Run | None
    open_differences: int
    sign_off: SignOff | None


async def read_money(
    db: Database, account: str, since: datetime, until: datetime
) -> tuple[dict[str, DayMoney], list[Dispute]]:
    """The money between two instants by currency, without disputes, and the disputes that began then."""
    rows = [dict(row) for row in await db.fetch(_MONEY, account, since, until)]
    money = {str(row.pop("currency")): DayMoney(**row) for row in rows}
    disputes = [msgspec.convert(dict(row), Dispute) for row in await db.fetch(_DISPUTES, account, since, until)]
    return money, disputes


async def put_closing(db: Database, account: str, day: date, money: Mapping[str, DayMoney]) -> None:
    """Keep what a day has come to."""
    await db.execute(_PUT, account, day, document(dict(money)))


async def list_closings(
    db: Database,
    *,
    account: str | None = None,
    before: tuple[date, str] | None = None,
    limit: int,
    differences_max: int = LISTED_DIFFERENCES_MAX,
) -> list[ClosingRow]:
    """Newest day first, then by account backwards, from before a day and account on."""
    day, name = before or _FIRST
    statement = _LIST_ALL if account is None else _LIST_OF_ACCOUNT
    rows = await db.fetch(statement, account, day, name, limit, _NEEDS_PERSON, differences_max)
    return [_closing(dict(row)) for row in rows]


async def find_closing(db: Database, account: str, day: date) -> ClosingRow:
    """One day, kept or not, with the open ones of all differences that a run keeps. The caller sums its money."""
    row = await db.fetchrow(_ONE, account, day, "", 1, _NEEDS_PERSON, DIFFERENCES_MAX)
    assert row is not None, "the day is its own row"
    return _closing(dict(row))


async def insert_sign_off(
    db: Database, account: str, day: date, *, by: str, note: str, figures: Mapping[str, Mapping[str, int | None]]
) -> None:
    """Sign a day off, once more if it was."""
    await db.execute(_SIGN, account, day, by, note, document({name: dict(each) for name, each in figures.items()}))


async def list_sign_offs(db: Database, account: str, day: date, limit: int = 20) -> list[SignOff]:
    """All of a day, newest first."""
    return [_sign_off(dict(row)) for row in await db.fetch(_SIGNED, account, day, limit)]


def _closing(row: dict[str, object]) -> ClosingRow:
    sums = row["whole_sums"]
    return ClosingRow(
        account=str(row["account"]),
        day=msgspec.convert(row["day"], date),
        here=msgspec.json.decode(str(row["money"]), type=dict[str, DayMoney]),
        there={} if sums is None else msgspec.json.decode(str(sums), type=dict[str, Sums]),
        computed_at=msgspec.convert(row["computed_at"], datetime),
        latest=_run(row, "latest", str(row["latest_error"]), row["latest_phrase"]),
        whole=_run(row, "whole", ""),
        open_differences=msgspec.convert(row["open_differences"], int),
        sign_off=None if row["at"] is None else _sign_off(row),
    )


def _run(row: dict[str, object], name: str, error: str, phrase: object = None) -> Run | None:
    if row[f"{name}_id"] is None:
        return None
    counts = msgspec.json.decode(str(row[f"{name}_counts"]), type=dict[str, int])
    return Run(
        id=msgspec.convert(row[f"{name}_id"], int),
        status=str(row[f"{name}_status"]),
        started_at=msgspec.convert(row[f"{name}_started_at"], datetime),
        is_incomplete=counts.get(Finding.TOTAL, 0) > 0,
        differences=sum(counts.get(kind, 0) for kind in _NEEDS_PERSON),
        last_error=error,
        error_phrase=None if phrase is None else str(phrase),
    )


def _sign_off(row: dict[str, object]) -> SignOff:
    figures = msgspec.json.decode(str(row["figures"]), type=dict[str, dict[str, int | None]])
    return SignOff(at=msgspec.convert(row["at"], datetime), by=str(row["by"]), note=str(row["note"]), figures=figures)
