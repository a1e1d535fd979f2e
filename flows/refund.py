"""A refund: lease it, query whether the channel has it, request it if not, and commit its status.

The row was written by the decision that wanted it (money after close, a second payment, an operator:
`flows.refund_request`), so it is requested once: our number is the channel's idempotency key, and a refund that may
have been requested is queried first.
"""

from __future__ import annotations

from functools import partial

import structlog
from msgspec import Struct

from channels.base import ChannelRefund, SpacesRefunds
from core import jobs
from core.admission import CallKind, Urgency
from core.decision import Outcome
from core.dispute import DisputeState, unsettled
from core.errors import ChannelRefused, InvalidRequest, OutcomeUnknown, UnknownAccount
from core.lifecycle import on_refund, refund_wait_s
from core.order import OrderState, Payment, RefundStatus
from flows.channel_call import Deferred, call_channel
from flows.commit import arm_jobs, commit_decision
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import refunds
from storage.postgres.orders import find_state
from storage.postgres.refunds import LeasedRefund

log = structlog.get_logger()


class RefundResult(Struct, frozen=True, kw_only=True):
    """Verified status of a refund at its channel; `status` None: unknown. `note` is the channel's code, or why.
    `channel_refund_no` is the channel's own number of it.
    """

    status: RefundStatus | None
    note: str = ""
    channel_refund_no: str | None = None


async def refund_scheduled(resources: Resources, refund_no: str, arm_no: int) -> Outcome:
    """The refund's job. A job of an older scheduling finds nothing to do."""
    leased = await refunds.claim(resources.db, refund_no, resources.settings.lease_s, arm_no=arm_no)
    return Outcome.STALE if leased is None else await refund_leased(resources, leased)


async def refund_leased(resources: Resources, leased: LeasedRefund) -> Outcome:
    """A refund whose lease is ours. What does not become definite is due again after n² units.

    Should the lease end under it, somebody else does the same: the same number is the same refund at the channel.
    """
    state = await find_state(resources.db, leased.order_no)
    payment = None if state is None else state.payment(leased.key)
    if state is None or payment is None:
        return Outcome.STALE
    try:
        account = await resources.accounts.get(leased.key.channel_account)
    except UnknownAccount:
        log.error("refund_not_requested", account=leased.key.channel_account, refund_no=leased.refund_no)
        result: RefundResult | Deferred = RefundResult(status=None, note="unknown_account")
    else:
        result = await _request_or_query(resources, account, payment, leased, state)
    if isinstance(result, Deferred):
        await _reschedule(resources, leased, note=result.reason, wait_s=result.seconds)
        return Outcome.NOT_YET
    return await _commit(resources, leased, state, result)


async def _request_or_query(
    resources: Resources, account: Account, payment: Payment, leased: LeasedRefund, state: OrderState
) -> RefundResult | Deferred:
    """Query the refund if the channel may have it already; request it if the channel does not know it.

    While the money is disputed it is not requested: the buyer would have it twice. Once the dispute is lost the
    buyer has it, so the refund has failed.
    """
    if leased.may_be_known:
        known = await _query(resources, account, payment, leased)
        if known is not None:
            return known
    disputes = [dispute for dispute in unsettled(state.disputes, payment.key) if dispute.takes_money]
    if disputes:
        is_lost = any(dispute.state is DisputeState.LOST for dispute in disputes)
        return RefundResult(status=RefundStatus.FAILED if is_lost else None, note="disputed")
    wait_s = _wait_s(account, leased, state)
    if wait_s:
        return Deferred(seconds=wait_s, reason="refund_gap")
    call = account.channel.refund_payment
    try:
        refund = await call_channel(
            resources, account, CallKind.REFUND, Urgency.SCHEDULED, call, payment, leased.refund_no, leased.amount
        )
    except ChannelRefused as refused:
        # A refusal is definite only if the channel also says that it has no such refund.
        known = await _query(resources, account, payment, leased)
        return RefundResult(status=RefundStatus.FAILED, note=f"refused: {refused.code}") if known is None else known
    except InvalidRequest as error:  # nothing was sent: the channel has no number for this amount
        return RefundResult(status=RefundStatus.FAILED, note=error.detail)
    except OutcomeUnknown as error:
        return RefundResult(status=None, note=error.detail or type(error).__name__)
    return refund if isinstance(refund, Deferred) else _result(refund)


def _wait_s(account: Account, leased: LeasedRefund, state: OrderState) -> float:
    """Seconds that this channel wants between the refunds of one payment."""
    channel = account.channel
    return refund_wait_s(state, leased.refund_no, channel.refund_gap_s) if isinstance(channel, SpacesRefunds) else 0.0


async def _query(
    resources: Resources, account: Account, payment: Payment, leased: LeasedRefund
) -> RefundResult | Deferred | None:
    """The refund's status at the channel; None: verified, the channel knows no such refund. No answer is never None."""
    call = account.channel.query_refund
    try:
        refund = await call_channel(
            resources, account, CallKind.QUERY_REFUND, Urgency.SCHEDULED, call, payment, leased.refund_no
        )
    except ChannelRefused as refused:
        return RefundResult(status=None, note=f"query refused: {refused.code}")
    except OutcomeUnknown as error:
        return RefundResult(status=None, note=error.detail or type(error).__name__)
    return refund if refund is None or isinstance(refund, Deferred) else _result(refund)


def _result(refund: ChannelRefund) -> RefundResult:
    return RefundResult(status=RefundStatus(refund.state.value), channel_refund_no=refund.channel_refund_no)


async def _commit(resources: Resources, leased: LeasedRefund, state: OrderState, result: RefundResult) -> Outcome:
    decide = partial(
        on_refund,
        refund_no=leased.refund_no,
        refund_status=result.status,
        rules=resources.rules,
        note=result.note,
        channel_refund_no=result.channel_refund_no,
    )
    committed = await commit_decision(resources, leased.order_no, decide, known=state)
    if committed.decision.outcome is Outcome.REFUND_FAILED:
        log.error("refund_failed", order_no=leased.order_no, refund_no=leased.refund_no, reason=result.note or "failed")
    state_after = committed.state_after
    refund = None if state_after is None else state_after.refund(leased.refund_no)
    known = None if refund is None else refund.channel_refund_no
    if known is not None and result.channel_refund_no not in (None, known):
        log.error("refund_number_differs", order_no=leased.order_no, refund_no=leased.refund_no)
    if refund is not None and not refund.status.is_final:
        await _reschedule(resources, leased, note="" if result.status is not None else result.note)
    return committed.decision.outcome


async def _reschedule(resources: Resources, leased: LeasedRefund, *, note: str, wait_s: float | None = None) -> None:
    next_try = resources.rules.backoff.next_try(leased.attempt, leased.refund_no, wait_s=wait_s)
    arm_no = await refunds.reschedule(
        resources.db, leased, attempt=next_try.attempt, delay_s=next_try.delay_s, error=note
    )
    if arm_no is not None:
        await arm_jobs(resources, [jobs.refund_payment(leased.refund_no, arm_no, next_try.delay_s)])
