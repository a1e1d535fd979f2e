"""Callbacks that were parked in Redis while Postgres was down: moved into the inbox once it is back."""

from __future__ import annotations

from datetime import datetime

import structlog

from core import jobs
from core.errors import ChannelError, ChannelUnavailable, UnknownAccount
from core.order import CaseReason
from core.sentences import Sentence
from flows.callback import store_callback, verify_callback
from flows.commit import arm_jobs
from flows.refusals import write_refusals
from flows.unstored import count_ignored
from runtime.identity import check_identity
from runtime.resources import Resources
from storage.postgres.cases import open_account_case
from storage.postgres.orders import find_now
from storage.redis.parked_callbacks import ParkedCallback

DRAIN_BATCH = 100
UNKNOWN_ACCOUNT = "unknown_account"

log = structlog.get_logger()


async def drain_parked(resources: Resources) -> int:
    """Move parked callbacks into the inbox; they leave Redis after that commit.

    Returns how many were moved or dropped.

    Raises:
        ConfigurationError: they are another deployment's, which would lose them.
    """
    waiting = await resources.parked.parked(DRAIN_BATCH)
    if waiting:
        await check_identity(resources.db, resources.redis)
    now = await find_now(resources.db) if waiting else None
    drained = [field for field, parked in waiting if now and await _is_over(resources, field, parked, now)]
    await resources.parked.unpark(drained)
    await write_refusals(resources)
    if drained:
        log.info("parked_callbacks_drained", count=len(drained))
    return len(drained)


async def _is_over(resources: Resources, field: bytes, parked: ParkedCallback, now: datetime) -> bool:
    """Whether the callback is in the inbox, or dropped. Otherwise it stays parked for a day: its account may be put
    back, and the key that verifies it be fetched. Each process says so once.
    """
    try:
        await _move(resources, parked)
        return True
    except UnknownAccount:
        reason = UNKNOWN_ACCOUNT
    except ChannelUnavailable as error:
        reason = error.detail or "unavailable"
    except ChannelError as error:
        log.warning("parked_callback_dropped", account=parked.account, reason=type(error).__name__)
        resources.refusals.note(parked.account, error, parked.headers, parked.body, "")
        return True
    if (now - parked.received_at).total_seconds() < resources.callback_kept_s:
        _warn_once(resources, field, parked, reason)
        return False
    log.error("parked_callback_dropped", account=parked.account, reason=reason)
    if reason == UNKNOWN_ACCOUNT:
        await count_ignored(resources, parked.account, reason)
    else:
        detail = Sentence("a parked callback could not be verified for a day: {reason}", reason=reason)
        await open_account_case(resources.db, parked.account, CaseReason.CALLBACK_UNREADABLE, detail=detail)
    return True


async def _move(resources: Resources, parked: ParkedCallback) -> None:
    account = await resources.accounts.get(parked.account)
    callback = await verify_callback(account, parked.headers, parked.body, parked.received_at)
    if callback.evidence is None:
        await count_ignored(resources, parked.account, callback.ignored)
        return
    stored = await store_callback(
        resources, account, callback, parked.headers, parked.body, parked.received_at, due_s=0.0
    )
    if not stored.is_handled:
        await arm_jobs(resources, [jobs.compensate_callback(stored.id, stored.arm_no)])


def _warn_once(resources: Resources, field: bytes, parked: ParkedCallback, reason: str) -> None:
    if resources.parked.is_first_report(field):
        log.warning("parked_callback_not_verified", account=parked.account, reason=reason)
