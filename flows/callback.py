"""A callback: verify the raw bytes, store them, confirm with the channel within a short budget, acknowledge.

The inbox row is due a minute later, so its compensation is armed before anything is tried. Once the row is stored the
channel's acknowledgement is returned, whatever fails after that: the compensation carries on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import structlog
from msgspec.structs import replace

from channels.base import Acknowledgement, Callback
from core import jobs
from core.admission import Urgency
from core.decision import Decision, Outcome
from core.errors import (
    CallbackRejected,
    CallbackStale,
    ChannelUnavailable,
    DatabaseUnavailable,
    NodropError,
)
from core.evidence import COMBINED, Disputed, Evidence, Lapsed, Source, Unclear, hint_of
from core.lifecycle import (
    Approval,
    CallbackPlan,
    CallbackResult,
    callback_result,
    is_new_approval,
    on_callback,
    plan_callback,
    with_end,
)
from core.order import OrderState, Origin, Payment, PaymentStatus
from flows.ask import NoLease, give_back, query_now, wait_for_lease
from flows.capture import capture_if_due
from flows.channel_call import Deferred
from flows.combined import handle_combined
from flows.commit import arm_jobs, commit_evidence
from flows.dispute import handle_dispute
from flows.unanswered import pay_unanswered
from flows.unhandled import reschedule_callback
from flows.unstored import STORE_S, count_ignored, park_callback
from flows.watched import is_named_beside
from runtime.accounts import Account, answering_despite_lag
from runtime.resources import Resources
from storage.postgres import callbacks
from storage.postgres.inbox import StoredCallback, insert_callback
from storage.postgres.orders import find_named_payment
from storage.redis.parked_callbacks import ParkedCallback

BUSY_RETRY_S = 1.0
"""Delay until a callback is handled again whose payment another process queries now."""

log = structlog.get_logger()


async def receive_callback(resources: Resources, name: str, headers: Mapping[str, str], body: bytes) -> Acknowledgement:
    """Take a callback. Header names are lower-case; `body` is the raw bytes.

    Returns the channel's own acknowledgement; by then the callback is stored, whatever becomes of it.

    Raises:
        UnknownAccount: there is no such account.
        CallbackRejected: forged or stale; nothing was looked up, nothing was stored.
        ChannelUnavailable: it cannot be verified now; the channel must send it again.
        DatabaseUnavailable: it is parked in Redis if that works; the channel must send it again.
    """
    account, waited_s = await resources.accounts.get_within(name, STORE_S)
    # The headers that the verification reads: the others, which may hold anything, are neither stored nor parked.
    headers = {name: headers[name] for name in account.channel.callback_headers if name in headers}
    callback, received_at = await _verify_by_clocks(resources, account, headers, body)
    if callback.evidence is None:
        await count_ignored(resources, name, callback.ignored)
        return account.channel.acknowledge()
    try:
        async with answering_despite_lag(STORE_S - waited_s):
            lease_s = _first_lease_s(resources, account, callback.evidence)
            stored = await store_callback(resources, account, callback, headers, body, lease_s=lease_s)
    except DatabaseUnavailable:
        parked = ParkedCallback(account=name, headers=headers, body=body, received_at=received_at)
        await park_callback(resources, parked)
        raise
    if not stored.is_handled:
        await _handle_in_request(resources, stored)
    return account.channel.acknowledge()


# -- storing -----------------------------------------------------------------------------------------------------------


async def _verify_by_clocks(
    resources: Resources, account: Account, headers: Mapping[str, str], body: bytes
) -> tuple[Callback, datetime]:
    """The callback, and the time by which it is fresh. Raises as `Channel.verify_callback`."""
    clock = resources.clock
    if clock.read_other is not None:
        other = datetime.fromtimestamp(clock.read_other(), UTC)
        with suppress(CallbackStale), account.for_strangers():
            return await account.channel.verify_callback(headers, body, received_at=other), other
    now = datetime.fromtimestamp(clock.read(), UTC)
    return await verify_callback(account, headers, body, now), now


async def verify_callback(account: Account, headers: Mapping[str, str], body: bytes, received_at: datetime) -> Callback:
    """The callback, if it is genuine. Raises as `Channel.verify_callback`."""
    try:
        with account.for_strangers():
            return await account.channel.verify_callback(headers, body, received_at=received_at)
    except (CallbackRejected, ChannelUnavailable) as error:
        log.warning("callback_rejected", account=account.config.name, reason=type(error).__name__)
        raise


async def store_callback(
    resources: Resources,
    account: Account,
    callback: Callback,
    headers: Mapping[str, str],
    body: bytes,
    received_at: datetime | None = None,
    due_s: float | None = None,
    lease_s: float | None = None,
) -> StoredCallback:
    """Store a callback about money, readable or not; its compensation is due in `due_s` seconds, None: as always.
    With `lease_s` its handling begins in the same statement: its order is read, and its payment leased if it is free.

    Raises DatabaseUnavailable: nothing may be acknowledged then.
    """
    assert callback.evidence is not None, "only a callback about money is stored"
    if callback.unreadable:
        log.error("callback_unreadable", account=account.config.name, reason=callback.unreadable)
    return await insert_callback(
        resources.db,
        resources.sealer,
        account=account.config.name,
        notification_id=callback.notification_id,
        headers=headers,
        body=body,
        evidence=hint_of(callback.evidence, account.config.name) if callback.is_hint else callback.evidence,
        is_hint=callback.is_hint,
        received_at=received_at,
        due_s=resources.compensation_delay_s if due_s is None else due_s,
        kept_s=resources.callback_kept_s,
        unreadable="" if callback.is_hint else callback.unreadable,
        lease_s=lease_s,
    )


def _first_lease_s(resources: Resources, account: Account, evidence: Evidence) -> float | None:
    """The lease that is taken when a callback is stored; None: no query of one payment follows in the request."""
    is_left = resources.confirm_slots.locked() or resources.clock.is_far_off
    is_query = account.config.trust_callback is not True and not isinstance(evidence, Disputed)
    return resources.settings.lease_s if is_query and not _is_combined(evidence) and not is_left else None


def _is_combined(evidence: Evidence) -> bool:
    return isinstance(evidence, Unclear) and evidence.reason == COMBINED and bool(evidence.ids)


# -- handling ----------------------------------------------------------------------------------------------------------


async def _handle_in_request(resources: Resources, stored: StoredCallback) -> None:
    """The synchronous update within the budget, if a slot is free. What it leaves undone is armed before the
    acknowledgement: until then the channel sends the callback again, and the sweep finds its row.

    Nothing is raised: the callback is stored, so it must be acknowledged. A failure is left to the compensation.
    """
    slots = resources.confirm_slots
    try:
        if slots.locked() or resources.clock.is_far_off:
            await _leave_to_compensation(resources, stored)
            return
        async with slots:  # entered at once: nothing ran since `locked` was False
            is_over = await _handle_within_budget(resources, stored)
        if not is_over:
            job = jobs.compensate_callback(stored.id, stored.arm_no, resources.compensation_delay_s)
            await arm_jobs(resources, [job])
    except Exception:  # a bug of ours must not keep the channel sending
        log.exception("callback_broke", callback_id=stored.id)


async def _leave_to_compensation(resources: Resources, stored: StoredCallback) -> None:
    """Without a slot the compensation is not a precaution but the work itself: it is due at once."""
    log.info("callback_left_to_compensation", account=stored.channel_account, reason="no_slot")
    try:
        await give_back(resources, stored.leased, None)
        await reschedule_callback(resources, stored, CallbackResult(outcome=Outcome.NOT_YET, is_done=False, wait_s=0.0))
    except DatabaseUnavailable:
        log.warning("callback_not_rescheduled", callback_id=stored.id)


async def _handle_within_budget(resources: Resources, stored: StoredCallback) -> bool:
    """Whether it is done, or due again when the channel may be queried: then its first compensation is void. Expected
    faults are logged.
    """
    budget_s = resources.settings.callback_confirm_s
    try:
        async with asyncio.timeout(budget_s):
            result = await handle_callback(resources, stored, Source.CALLBACK, within_s=budget_s / 2)
            if result.is_done and not result.is_stored:
                await callbacks.finish(resources.db, stored.id, result.outcome)
            elif not result.is_done and result.wait_s is not None:
                await reschedule_callback(resources, stored, result)
            return result.is_done or result.wait_s is not None
    except (NodropError, TimeoutError) as error:
        log.warning("callback_left_to_compensation", account=stored.channel_account, reason=type(error).__name__)
    except Exception:  # a bug of ours
        log.exception("callback_broke", callback_id=stored.id)
    return False


async def handle_callback(
    resources: Resources, stored: StoredCallback, by: Source, *, within_s: float, is_part: bool = False
) -> CallbackResult:
    """Observe, decide, commit: its own evidence if that is enough, otherwise the channel's answer to a query.

    `is_part`: it is done when all of its parts are, so the commit of this one does not end it.
    """
    if isinstance(stored.evidence, Disputed):
        return await handle_dispute(resources, stored, by, partial(_confirm, resources, by=by, within_s=within_s))
    if _is_combined(stored.evidence):
        return await handle_combined(
            resources, stored, partial(handle_callback, resources, by=by, within_s=within_s, is_part=True)
        )
    named = stored.named or await find_named_payment(resources.db, stored.channel_account, stored.evidence)
    if named is None:
        return CallbackResult(outcome=Outcome.UNKNOWN_PAYMENT, is_done=False)
    state, payment = named
    if payment.out_trade_no != stored.evidence.out_trade_no:
        await callbacks.assign(resources.db, stored.id, payment.out_trade_no)
    account = await resources.accounts.get(stored.channel_account)
    stored = replace(stored, evidence=replace(stored.evidence, out_trade_no=payment.out_trade_no))
    trusted = account.config.trust_callback is True
    if trusted and payment.origin is Origin.WATCHED:
        trusted = not await is_named_beside(resources, account, stored.evidence)
    plan = plan_callback(payment, stored.evidence, trusts_callback=trusted)
    ends = None if is_part else partial(with_end, plan=plan, callback=stored.evidence, callback_id=stored.id)
    if plan.commits:
        await give_back(resources, stored.leased, None)
        stored = replace(stored, leased=None)
        decide = partial(on_callback, key=payment.key, evidence=stored.evidence, rules=account.rules, by=by)
        ends_here = None if ends is None or plan.queries else partial(ends, answer=stored.evidence)
        committed = await commit_evidence(resources, payment.order_no, decide, known=state, ends=ends_here)
        if not plan.queries:
            is_stored = committed.decision.handled is not None
            return CallbackResult(outcome=committed.decision.outcome, is_done=True, is_stored=is_stored)
    known = None if plan.commits else state
    return await _confirm(resources, account, payment, stored, plan, by=by, within_s=within_s, known=known, ends=ends)


async def _confirm(
    resources: Resources,
    account: Account,
    payment: Payment,
    stored: StoredCallback,
    plan: CallbackPlan,
    *,
    by: Source,
    within_s: float,
    known: OrderState | None = None,
    ends: Callable[..., Decision] | None = None,
) -> CallbackResult:
    """Query the channel, waiting up to `within_s` seconds for another process that queries the same payment."""
    leased = stored.leased or await wait_for_lease(resources, payment.key, within_s)
    if leased is NoLease.BUSY or (leased is NoLease.ROW_GONE and payment.status is PaymentStatus.OPEN):
        return CallbackResult(outcome=Outcome.NOT_YET, is_done=False, wait_s=BUSY_RETRY_S)
    is_new = payment.capture_refused_at is not None and is_new_approval(payment, stored.evidence)
    approval = Approval(is_new=is_new, lapsed=stored.evidence if isinstance(stored.evidence, Lapsed) else None)
    result = await query_now(
        resources,
        account,
        payment,
        by=by,
        urgency=Urgency.FRESH,
        leased=None if isinstance(leased, NoLease) else leased,
        known=known,
        notice=stored.evidence,
        approval=approval,
        ends=ends,
    )
    if isinstance(result, Deferred):
        return CallbackResult(outcome=Outcome.NOT_YET, is_done=False, wait_s=result.seconds)
    if result.decision.is_capture_due:
        result = await capture_if_due(resources, account, result, by=by, urgency=Urgency.FRESH, approval=approval)
    if account.trusts_when_unanswered and not plan.differs and isinstance(result.evidence, Unclear):
        return await pay_unanswered(resources, account, result.payment, stored, by)
    done = callback_result(plan, stored.evidence, result.evidence, result.decision.outcome)
    return replace(done, is_stored=result.decision.handled is not None)
