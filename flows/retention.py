"""One turn of the retention: a batch of each kind that is over and older than its setting says."""

from __future__ import annotations

import structlog

from runtime.resources import Resources
from storage.postgres import retention

log = structlog.get_logger()


async def delete_old(resources: Resources) -> bool:
    """Delete a batch of each kind. True: one was full, so there is more to delete at once."""
    settings, db = resources.settings, resources.db
    callbacks = await retention.delete_callbacks(db, keep_days=settings.callbacks_keep_days)
    notifications = await retention.delete_notifications(db, keep_days=settings.notifications_keep_days)
    cases = await retention.delete_cases(db, keep_days=settings.cases_keep_days)
    if callbacks or notifications or cases:
        log.info("old_rows_deleted", callbacks=callbacks, notifications=notifications, cases=cases)
    return max(callbacks, notifications, cases) >= retention.BATCH
