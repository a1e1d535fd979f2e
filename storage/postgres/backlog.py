"""Counts of open rows and the age of the oldest due one: whether nodrop keeps up, cheap to read."""

from __future__ import annotations

import msgspec

from storage.postgres.cases import OPEN_REASONS, count_of_reason
from storage.postgres.database import Database

COUNT_MAX = 100_000
"""Counting stops here: a scrape must not read a million rows to say "too many"."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, and the age in seconds of what has been due longest (0: nothing is due). `cases` by reason, open ones."""

    pending: int
    pending_overdue: int
    pending_oldest_due_s: float
    callbacks: int
    callbacks_oldest_due_s: float
    notifications: int
    notifications_oldest_due_s: float
    refunds: int
    refunds_oldest_due_s: float
    dead_letters: int
    cases: dict[str, int]


_BACKLOG = f"""
SELECT json_build_object(
    'pending', (SELECT count(*) FROM (SELECT FROM pending LIMIT {COUNT_MAX}) p),
    'pending_overdue', (SELECT count(*) FROM (SELECT FROM pending WHERE due_at <= now() LIMIT {COUNT_MAX}) p),
    'pending_oldest_due_s', (SELECT coalesce(greatest(0, extract(epoch FROM now() - min(due_at))), 0) FROM pending),
    'callbacks', (SELECT count(*) FROM (SELECT FROM callbacks
                   WHERE handled_at IS NULL AND dead_at IS NULL LIMIT {COUNT_MAX}) c),
    'callbacks_oldest_due_s', (SELECT coalesce(greatest(0, extract(epoch FROM now() - min(due_at))), 0) FROM callbacks
                                WHERE handled_at IS NULL AND dead_at IS NULL),
    'notifications', (SELECT count(*) FROM (SELECT FROM notifications
                       WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL LIMIT {COUNT_MAX}) n),
    'notifications_oldest_due_s', (SELECT coalesce(greatest(0, extract(epoch FROM now() - min(due_at))), 0)
                                     FROM notifications
                                    WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL),
    'refunds', (SELECT count(*) FROM (SELECT FROM refunds
                 WHERE status IN ('requested', 'processing') LIMIT {COUNT_MAX}) r),
    'refunds_oldest_due_s', (SELECT coalesce(greatest(0, extract(epoch FROM now() - min(due_at))), 0) FROM refunds
                              WHERE status IN ('requested', 'processing')),
    'dead_letters', (SELECT count(*) FROM (SELECT FROM notifications
                      WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL
                      LIMIT {COUNT_MAX}) n),
    'cases', (SELECT coalesce(json_object_agg(reason, count), '{{}}') FROM (
                  WITH RECURSIVE {OPEN_REASONS}
                  SELECT reason, {count_of_reason("reasons.reason", COUNT_MAX)} AS count FROM reasons
                   WHERE reason IS NOT NULL) c)
)::text"""


async def read_backlog(db: Database) -> Backlog:
    """All figures of one moment.

    Raises:
        DatabaseUnavailable: it cannot be read.
    """
    return msgspec.json.decode(await db.fetchval(_BACKLOG), type=Backlog)
