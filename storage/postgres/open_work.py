"""Counts of what waits for a person, for the navigation of the console: bounded, each by its own small index."""

from __future__ import annotations

import msgspec

from storage.postgres.cases import IS_OPEN
from storage.postgres.database import Database

COUNT_MAX = 100
"""Counting stops here: a badge says "99+" of more."""


class OpenWork(msgspec.Struct, frozen=True, kw_only=True):
    """Open cases, dead letters, refunds that wait for a second operator, alerts that are raised: each at most
    `COUNT_MAX`.
    """

    cases: int = 0
    dead_letters: int = 0
    approvals: int = 0
    alerts: int = 0


_COUNT = f"""
SELECT (SELECT count(*) FROM (SELECT FROM cases
                               WHERE {IS_OPEN} AND (opened_at, id) > ('-infinity'::timestamptz, 0)
                               ORDER BY opened_at, id LIMIT {COUNT_MAX}) c) AS cases,
       (SELECT count(*) FROM (SELECT FROM notifications
                               WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL
                                 AND dead_at > '-infinity' LIMIT {COUNT_MAX}) n) AS dead_letters,
       (SELECT count(*) FROM (SELECT decision, expires_at FROM refund_approvals
                               WHERE refund_no IS NULL AND decision IS DISTINCT FROM 'declined'
                                 AND id < 9223372036854775807 ORDER BY id DESC LIMIT {COUNT_MAX}) a
         WHERE decision IS NULL AND expires_at > now()) AS approvals,
       (SELECT count(*) FROM (SELECT FROM alerts
                               WHERE cleared_at IS NULL AND raised_at IS NOT NULL AND key >= ''
                               LIMIT {COUNT_MAX}) r) AS alerts"""


async def count_open_work(db: Database) -> OpenWork:
    """All counts of one moment. Raises DatabaseUnavailable."""
    [row] = await db.fetch(_COUNT)
    return OpenWork(**dict(row))
