"""The compensation of a callback that its request has not handled: the same work, until it is done."""

from __future__ import annotations

import structlog

from core.decision import Outcome
from core.errors import NodropError
from core.evidence import Source
from core.lifecycle import CallbackResult
from flows.callback import handle_callback
from flows.unhandled import reschedule_callback
from runtime.resources import Resources
from storage.postgres import callbacks
from storage.postgres.inbox import StoredCallback

log = structlog.get_logger()


async def compensate_callback(resources: Resources, callback_id: str, arm_no: int) -> Outcome:
    """The job that was armed before the synchronous update: handle the callback, unless that has happened."""
    stored = await callbacks.claim(resources.db, callback_id, resources.settings.lease_s, arm_no=arm_no)
    return Outcome.STALE if stored is None else await compensate_claimed(resources, stored)


async def compensate_claimed(resources: Resources, stored: StoredCallback) -> Outcome:
    """Handle a stored callback whose lease is ours. If that fails, it is due again after n² units."""
    result = CallbackResult(outcome=Outcome.UNCLEAR, is_done=False)
    try:
        result = await handle_callback(
            resources, stored, Source.COMPENSATION, within_s=resources.settings.callback_confirm_s
        )
    except NodropError as error:
        log.warning("callback_not_handled", callback_id=stored.id, reason=type(error).__name__)
    except Exception:  # a callback that meets a bug of ours is tried again, and ends as a case
        log.exception("callback_broke", callback_id=stored.id)
    if result.is_done and not result.is_stored:
        await callbacks.finish(resources.db, stored.id, result.outcome)
    elif not result.is_done:
        await reschedule_callback(resources, stored, result)
    return result.outcome
