"""The last payments of each account that became paid, each with whether a genuine callback about it came; and how many
of a day's payments had one, from the roll-ups.
"""

from __future__ import annotations

from collections import defaultdict

from core.rollups import Step
from core.silence import LAST_MAX, LAST_S, PAST_DAYS, Heard, LastPayments
from storage.postgres.database import Database

READ_MAX = 200
"""Payments of an account that are read to find those that can be judged. The callbacks of watched ones go to the system
that created them."""

# LIMIT 1 in place of EXISTS, as in `rollups`.
_LAST = f"""
SELECT a.name, p.paid_at,
       (SELECT true
          FROM unnest(ARRAY[p.out_trade_no, p.channel_reference, p.channel_transaction_id]) AS ids (one)
         CROSS JOIN LATERAL (
               SELECT FROM callbacks c
                WHERE c.channel_account = a.name AND c.out_trade_no = ids.one
                  AND c.evidence->>'kind' NOT IN ('unpaid', 'approved', 'lapsed', 'closed', 'missing')
                LIMIT 1) AS callback
         LIMIT 1) IS NOT NULL AS is_heard
  FROM accounts a
 CROSS JOIN LATERAL (
       SELECT * FROM (
              SELECT * FROM payments
               WHERE channel_account = a.name AND paid_at IS NOT NULL
                 AND paid_at > clock_timestamp() - make_interval(secs => $2)
                 AND paid_at <= clock_timestamp() - make_interval(secs => $1)
               ORDER BY channel_account DESC, paid_at DESC, out_trade_no DESC
               LIMIT {READ_MAX}) AS read
        WHERE origin = 'ours'
        LIMIT $3) AS p
 WHERE a.enabled
 ORDER BY a.name, p.paid_at DESC, p.out_trade_no DESC"""

_PAST = f"""
SELECT name, coalesce(figures->>'expected', '0')::bigint AS payments,
       coalesce(figures->>'unheard', '0')::bigint AS unheard
  FROM rollups
 WHERE step = {int(Step.DAY)} AND at > clock_timestamp() - make_interval(days => $1) AND scope = 'account'"""


async def find_last_payments(db: Database, *, grace_s: float) -> list[LastPayments]:
    """Of each enabled account that has any, those for which the channel has had the money for longer than this."""
    rows = await db.fetch(_LAST, grace_s, LAST_S, LAST_MAX)
    by_account = defaultdict(list)
    for row in rows:
        by_account[row["name"]].append(row)
    return [
        LastPayments(
            account=account,
            paid_at=tuple(row["paid_at"] for row in of_account),
            is_heard=tuple(row["is_heard"] for row in of_account),
        )
        for account, of_account in by_account.items()
    ]


async def find_past(db: Database) -> dict[str, list[Heard]]:
    """Each day of each account, today among them."""
    past = defaultdict(list)
    for row in await db.fetch(_PAST, PAST_DAYS):
        past[row["name"]].append(Heard(payments=row["payments"], heard=row["payments"] - row["unheard"]))
    return past
