"""One turn of the retention: a batch of each kind that is over and older than its setting says."""

from __future__ import annotations

import structlog

from core.lifecycle import on_left_payer
from flows.commit import commit_decision
from runtime.resources import Resources
from storage.postgres import retention
from storage.postgres.alerts import delete_alerts
from storage.postgres.audit import delete_old_acts
from storage.postgres.reconciliation.runs import DIFFERENCES_KEEP_DAYS
from storage.postgres.refused_callbacks import delete_refused
from storage.postgres.sessions import Ends, delete_sessions
from storage.postgres.sign_in_limits import delete_limits
from storage.postgres.statement_requests import delete_old_files, delete_old_requests

log = structlog.get_logger()


async def delete_old(resources: Resources) -> bool:
    """Delete a batch of each kind. True: one was full, so there is more to delete at once."""
    settings, db = resources.settings, resources.db
    callbacks = await retention.delete_callbacks(db, keep_days=settings.callbacks_keep_days)
    notifications = await retention.delete_notifications(db, keep_days=settings.notifications_keep_days)
    cases = await retention.delete_cases(db, keep_days=settings.cases_keep_days)
    await delete_old_files(db)
    await delete_old_requests(db, keep_days=DIFFERENCES_KEEP_DAYS, limit=retention.BATCH)
    await delete_sessions(db, Ends(settings.ops_idle_s, settings.ops_session_s))
    await delete_limits(db)
    await delete_refused(db, keep_days=settings.callbacks_keep_days, limit=retention.BATCH)
    alerts = await delete_alerts(db)
    acts = await delete_old_acts(db, keep_days=settings.audit_keep_days, limit=retention.BATCH)
    if callbacks or notifications or cases:
        log.info("old_rows_deleted", callbacks=callbacks, notifications=notifications, cases=cases)
    if acts:
        log.info("old_acts_deleted", count=acts)
    payers = await _erase_left_payers(resources)
    return max(callbacks, notifications, cases, alerts, acts) >= retention.BATCH or payers >= retention.PAYERS_BATCH


async def _erase_left_payers(resources: Resources) -> int:
    """Beside this release one of before may run, which ends orders and leaves the payer that it does not know."""
    order_nos = await retention.find_left_payers(resources.db, retention.PAYERS_BATCH)
    for order_no in order_nos:
        await commit_decision(resources, order_no, on_left_payer)
    if order_nos:
        log.info("payers_erased", count=len(order_nos))
    return len(order_nos)
