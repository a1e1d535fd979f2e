"""Callbacks that could not be handled yet: due again after n² units, or ended as a case or as another system's."""

from __future__ import annotations

import structlog

from core import jobs
from core.decision import Outcome
from core.errors import UnknownAccount
from core.lifecycle import CallbackResult
from core.lifecycle.unknown import case_of_unknown, is_unreadable, next_look_s
from core.order import CaseReason
from core.sentences import Sentence, Term
from flows.commit import arm_jobs
from runtime.resources import Resources
from storage.postgres import callbacks
from storage.postgres.inbox import StoredCallback

log = structlog.get_logger()


async def reschedule_callback(resources: Resources, stored: StoredCallback, result: CallbackResult) -> None:
    """Due again, or over: a case when the attempts are used up, because the channel contradicts it.

    A hint ends without a case: anybody may have written it, and the payment's own queries go on.
    """
    if result.outcome is Outcome.UNKNOWN_PAYMENT:
        await _keep_unknown(resources, stored)
        return
    next_try = resources.rules.backoff.next_try(stored.attempt, stored.id, wait_s=result.wait_s)
    if next_try.is_exhausted and stored.is_hint:
        await callbacks.finish(resources.db, stored.id, result.outcome)
        return
    if next_try.is_exhausted:
        detail = _after(stored, result.outcome)
        await _give_up(resources, stored, CaseReason.CALLBACK_CONTRADICTED, detail)
        return
    await _arm_again(resources, stored, next_try.attempt, next_try.delay_s, result.outcome)


async def _keep_unknown(resources: Resources, stored: StoredCallback) -> None:
    """Look for its payment again, or end it after a day: as a case, or dropped as another system's."""
    outcome = Outcome.UNKNOWN_PAYMENT
    wait_s = next_look_s(resources.rules.backoff, stored.attempt, stored.id, kept_for_s=stored.kept_for_s)
    is_over = wait_s is None or (is_unreadable(stored.evidence) and not stored.evidence.every_id)
    if wait_s is not None and not is_over:
        await _arm_again(resources, stored, stored.attempt + 1, wait_s, outcome)
        return
    if is_unreadable(stored.evidence):
        await callbacks.finish(resources.db, stored.id, outcome)
        return
    is_exclusive = await _is_exclusive(resources, stored.channel_account)
    if is_exclusive is None and stored.kept_for_s > -resources.callback_kept_s:
        await _arm_again(resources, stored, stored.attempt + 1, resources.compensation_delay_s, outcome)
        return
    reason = case_of_unknown(stored.evidence, is_exclusive=is_exclusive is not False)
    if reason is not None and not stored.is_hint:
        await _give_up(resources, stored, reason, _after(stored, outcome))
        return
    await callbacks.drop(resources.db, stored)
    log.info("callback_dropped", account=stored.channel_account, reason=outcome)


async def _is_exclusive(resources: Resources, name: str) -> bool | None:
    """Whether unknown money at this account is a case. None: the account cannot be opened now; it may be put back
    within another day, and after that a person has to look.
    """
    try:
        return (await resources.accounts.get(name)).config.exclusive
    except UnknownAccount:
        return None


def _after(stored: StoredCallback, outcome: Outcome) -> Sentence:
    return Sentence("after {count} attempts: {outcome}", count=stored.attempt, outcome=Term("outcome.", outcome))


async def _give_up(resources: Resources, stored: StoredCallback, reason: CaseReason, detail: str) -> None:
    await callbacks.give_up(resources.db, stored, reason, detail)
    log.error("callback_given_up", account=stored.channel_account, reason=reason)


async def _arm_again(
    resources: Resources, stored: StoredCallback, attempt: int, delay_s: float, outcome: Outcome
) -> None:
    arm_no = await callbacks.reschedule(resources.db, stored, attempt=attempt, delay_s=delay_s, outcome=outcome)
    if arm_no is not None:
        await arm_jobs(resources, [jobs.compensate_callback(stored.id, arm_no, delay_s)])
