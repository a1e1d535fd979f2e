"""A callback: verify over the raw bytes, inbox, confirm within a short budget, acknowledge in the channel's own words.

The inbox row is due a minute later: with it the compensation is armed before anything is tried. Whatever goes wrong
after it, the channel is told that we have the callback, and the compensation carries on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import structlog
from msgspec import Struct

from channels.base import Acknowledgement, Callback
from core import jobs
from core.admission import Urgency
from core.decision import Outcome
from core.errors import (
    CallbackRejected,
    ChannelError,
    ChannelUnavailable,
    DatabaseUnavailable,
    NodropError,
    RedisUnavailable,
    UnknownAccount,
)
from core.evidence import Evidence, Paid, Refunded, Source, Unclear
from core.lifecycle import mismatch, on_callback
from core.order import CaseReason, Payment, PaymentKey, PaymentStatus
from flows.ask import query_now
from flows.channel_call import Waiting
from flows.commit import pass_door_with_evidence
from flows.rearm import arm_jobs, cancel_jobs
from flows.refresh import lease_or_wait
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import callbacks
from storage.postgres.callbacks import StoredCallback, insert_callback
from storage.postgres.orders import find_state_by_payment
from storage.redis.parked_callbacks import ParkedCallback

DRAIN_BATCH = 100
_LOOK_AGAIN_S = 1.0

log = structlog.get_logger()


async def receive_callback(resources: Resources, name: str, headers: Mapping[str, str], body: bytes) -> Acknowledgement:
    """Take a callback. Header names are lower-case; `body` is what was on the wire.

    Returns the channel's own acknowledgement; by then the callback is stored, whatever becomes of it.

    Raises:
        UnknownAccount: there is no such account.
        CallbackRejected: forged or stale; nothing was looked up, nothing was stored.
        ChannelUnreadable: genuine, and not what the protocol says.
        ChannelUnavailable: it cannot be verified now; the channel must send it again.
        DatabaseUnavailable: it is parked in Redis if that works; the channel must send it again.
    """
    account = await resources.accounts.get(name)
    received_at = datetime.now(UTC)
    callback = await _verify(account, headers, body, received_at)
    if callback.evidence is None:
        log.info("callback_of_no_payment", account=name)
        return account.channel.acknowledge()
    try:
        stored = await _store(resources, account, callback, headers, body, None)
    except DatabaseUnavailable:
        await _park(resources, ParkedCallback(account=name, headers=dict(headers), body=body, received_at=received_at))
        raise
    if not stored.is_handled:
        await _handle_in_request(resources, stored)
    return account.channel.acknowledge()


async def compensate_callback(resources: Resources, callback_id: str, arm_no: int) -> Outcome:
    """The job that was armed before the synchronous update: is the order still unpaid? Confirm and update."""
    stored = await callbacks.claim(resources.db, callback_id, resources.settings.lease_s, arm_no=arm_no)
    if stored is None:
        return Outcome.STALE
    return await compensate_claimed(resources, stored)


async def compensate_claimed(resources: Resources, stored: StoredCallback) -> Outcome:
    """A stored callback that is ours to carry on with. What cannot be done now is done after n² units."""
    try:
        handled = await _handle(resources, stored, Source.COMPENSATION, within_s=resources.settings.callback_confirm_s)
    except NodropError as error:
        handled = _Handled(outcome=Outcome.UNCLEAR, is_done=False)
        log.warning("callback_not_handled", callback_id=stored.id, reason=type(error).__name__)
    except Exception:  # a callback that meets a bug of ours is tried again, and ends as a case
        handled = _Handled(outcome=Outcome.UNCLEAR, is_done=False)
        log.exception("callback_broke", callback_id=stored.id)
    if handled.is_done:
        await callbacks.finish(resources.db, stored.id, handled.outcome)
    else:
        await _again(resources, stored, handled)
    return handled.outcome


async def drain_parked(resources: Resources) -> int:
    """Put callbacks that were parked while Postgres was down into the inbox; how many. They leave after that commit."""
    drained = []
    for field, parked in await resources.parked.parked(DRAIN_BATCH):
        try:
            account = await resources.accounts.get(parked.account)
            callback = await _verify(account, parked.headers, parked.body, parked.received_at)
            stored = await _store(resources, account, callback, parked.headers, parked.body, parked.received_at)
        except (UnknownAccount, ChannelUnavailable) as error:
            # It stays parked, in nobody's way: its account may be put back, and what verifies it be fetched.
            log.warning("parked_callback_not_verified", account=parked.account, reason=type(error).__name__)
            continue
        except ChannelError as error:
            log.warning("parked_callback_dropped", account=parked.account, reason=type(error).__name__)
        else:
            if not stored.is_handled:
                await arm_jobs(resources, [jobs.compensate_callback(stored.id, stored.arm_no)])
        drained.append(field)
    await resources.parked.unpark(drained)
    if drained:
        log.info("parked_callbacks_drained", count=len(drained))
    return len(drained)


# -- storing -----------------------------------------------------------------------------------------------------------


async def _verify(account: Account, headers: Mapping[str, str], body: bytes, received_at: datetime) -> Callback:
    try:
        return await account.channel.verify_callback(headers, body, received_at=received_at)
    except CallbackRejected as error:
        log.warning("callback_rejected", account=account.config.name, reason=type(error).__name__)
        raise


async def _store(
    resources: Resources,
    account: Account,
    callback: Callback,
    headers: Mapping[str, str],
    body: bytes,
    received_at: datetime | None,
) -> StoredCallback:
    assert callback.evidence is not None, "only what concerns a payment is stored"
    return await insert_callback(
        resources.db,
        account=account.config.name,
        notification_id=callback.notification_id,
        headers=headers,
        body=body,
        evidence=callback.evidence,
        received_at=received_at,
        due_s=resources.settings.backoff().gap_s(1),
    )


async def _park(resources: Resources, parked: ParkedCallback) -> None:
    try:
        await resources.parked.park(parked)
    except RedisUnavailable:
        log.error("callback_not_parked", account=parked.account, reason="redis_unavailable")
    else:
        log.warning("callback_parked", account=parked.account)


# -- handling ----------------------------------------------------------------------------------------------------------


class _Handled(Struct, frozen=True, kw_only=True):
    """What came of it and whether that was all. `wait_s`: nothing was tried, and may be after so many seconds."""

    outcome: Outcome
    is_done: bool
    wait_s: float | None = None


async def _handle_in_request(resources: Resources, stored: StoredCallback) -> None:
    """The synchronous update, if a slot is free, within the budget. Its failing is not the channel's business."""
    is_full = resources.confirm_slots.locked()
    # Without a slot the compensation is not a precaution but the work itself: it is due at once.
    job = jobs.compensate_callback(stored.id, stored.arm_no, 0.0 if is_full else resources.settings.backoff().gap_s(1))
    await arm_jobs(resources, [job])
    if is_full:
        log.info("callback_left_to_compensation", account=stored.channel_account, reason="no_slot")
        return
    try:
        async with resources.confirm_slots, asyncio.timeout(resources.settings.callback_confirm_s):
            handled = await _handle(
                resources, stored, Source.CALLBACK, within_s=resources.settings.callback_confirm_s / 2
            )
            if handled.is_done:
                await callbacks.finish(resources.db, stored.id, handled.outcome)
                await cancel_jobs(resources, [job])
    except (NodropError, TimeoutError) as error:
        log.warning("callback_left_to_compensation", account=stored.channel_account, reason=type(error).__name__)
    except Exception:  # it is stored: even with a bug of ours it must be acknowledged
        log.exception("callback_broke", callback_id=stored.id)


async def _handle(resources: Resources, stored: StoredCallback, by: Source, *, within_s: float) -> _Handled:
    """Compare, confirm with the channel, commit. A genuine "paid" that the channel does not confirm is not done."""
    evidence = stored.evidence
    key = PaymentKey(stored.channel_account, evidence.out_trade_no)
    state = await find_state_by_payment(resources.db, key)
    payment = None if state is None else state.payment(key)
    if payment is None:
        return _Handled(outcome=Outcome.NOTHING_NEW, is_done=False)
    account = await resources.accounts.get(stored.channel_account)
    differs = mismatch(payment, evidence) is not None
    is_evidence = not isinstance(evidence, Unclear)  # or it only says that there is something to ask
    if differs or (is_evidence and (payment.status is PaymentStatus.PAID or account.config.trust_callback)):
        outcome = await _commit(resources, account, payment, evidence, by)
        if not differs:
            return _Handled(outcome=outcome, is_done=True)
    leased = await lease_or_wait(resources, payment.key, within_s)
    if leased is None and payment.status is PaymentStatus.OPEN:
        # Somebody else is asking, or has just resolved it: look again after that.
        return _Handled(outcome=Outcome.NOT_YET, is_done=False, wait_s=_LOOK_AGAIN_S)
    told = await query_now(
        resources, account, payment, by=by, urgency=Urgency.FRESH, leased=leased, known=None if differs else state
    )
    if isinstance(told, Waiting):
        return _Handled(outcome=Outcome.NOT_YET, is_done=False, wait_s=told.seconds)
    outcome = told.decision.outcome
    if outcome is Outcome.UNCLEAR or differs:
        return _Handled(outcome=Outcome.MISMATCH if differs else outcome, is_done=outcome is not Outcome.UNCLEAR)
    was_paid, is_paid = (isinstance(said, Paid | Refunded) for said in (evidence, told.evidence))
    if was_paid and not is_paid:  # also when the channel calls it closed: somebody has to look where the money is
        return _Handled(outcome=Outcome.UNCLEAR, is_done=False)
    return _Handled(outcome=outcome, is_done=True)


async def _commit(resources: Resources, account: Account, payment: Payment, evidence: Evidence, by: Source) -> Outcome:
    rules = account.rules(resources.settings)
    decide = partial(on_callback, key=payment.key, evidence=evidence, rules=rules, by=by)
    return (await pass_door_with_evidence(resources, payment.order_no, decide)).decision.outcome


async def _again(resources: Resources, stored: StoredCallback, handled: _Handled) -> None:
    """Scheduled anew, or a case when the attempts are used up: no order came for it, or the channel contradicts it.

    Waiting for the channel's rate, its breaker or somebody else's query uses up no attempt.
    """
    backoff = resources.settings.backoff()
    attempt = stored.attempt + (handled.wait_s is None)
    if backoff.is_exhausted(attempt):
        unknown = handled.outcome is Outcome.NOTHING_NEW
        reason = CaseReason.UNKNOWN_ORDER if unknown else CaseReason.CALLBACK_CONTRADICTED
        await callbacks.give_up(resources.db, stored, reason, f"after {stored.attempt} attempts: {handled.outcome}")
        log.error("callback_given_up", account=stored.channel_account, reason=reason)
        return
    delay_s = backoff.gap_s(attempt, stored.id) if handled.wait_s is None else handled.wait_s
    arm_no = await callbacks.reschedule(resources.db, stored, attempt=attempt, delay_s=delay_s, outcome=handled.outcome)
    if arm_no is not None:
        await arm_jobs(resources, [jobs.compensate_callback(stored.id, arm_no, delay_s)])
