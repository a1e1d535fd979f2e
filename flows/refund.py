"""Money that goes back: lease, ask whether the channel has the refund, request it if not, and commit what it says.

The row was written by the decision that wanted it (money after close, a second payment, an operator), so it is
requested once: our number for it is the channel's idempotency key, and whoever may have asked before asks by it first.
"""

from __future__ import annotations

from functools import partial

import structlog
from msgspec import Struct

from core import jobs
from core.admission import Urgency
from core.decision import Outcome
from core.errors import ChannelRefused, InvalidRequest, NotFound, OutcomeUnknown, UnknownAccount
from core.lifecycle import Rules, on_refund, on_refund_requested
from core.order import OrderState, Payment, RefundStatus
from flows.channel_call import Waiting, call_channel
from flows.commit import pass_door
from flows.rearm import arm_jobs
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import refunds
from storage.postgres.orders import find_state
from storage.postgres.refunds import LeasedRefund

log = structlog.get_logger()


class Told(Struct, frozen=True, kw_only=True):
    """What the channel said of a refund; `status` None: it did not tell. `note` is its code, or why not."""

    status: RefundStatus | None
    note: str = ""


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
        told: Told | Waiting = Told(status=None, note="unknown_account")
    else:
        told = await _have_refunded(resources, account, payment, leased)
    if isinstance(told, Waiting):
        await _again(resources, leased, leased.attempt, told.seconds, told.reason)
        return Outcome.NOT_YET
    return await _commit(resources, leased, state, told)


async def request_refund(resources: Resources, order_no: str, out_trade_no: str, *, by: str) -> OrderState:
    """An operator gives back the money of a payment that did not pay its order; asking twice is the same refund.

    Raises:
        NotFound: there is no such order, or it has no such payment.
        InvalidRequest: this payment's money is not one to be given back here.
    """
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(f"order {order_no}")
    payment = next((row for row in state.payments if row.out_trade_no == out_trade_no), None)
    if payment is None:
        raise NotFound(f"order {order_no} has no payment {out_trade_no}")
    committed = await pass_door(
        resources, order_no, partial(on_refund_requested, key=payment.key, by_name=by), known=state
    )
    if committed.decision.outcome is Outcome.NOT_REFUNDABLE:
        raise InvalidRequest(
            f"payment {out_trade_no} cannot be refunded here: that can only be money that came, that did not pay the"
            " order and is still there, of a payment that is not only watched"
        )
    return committed.state_after or state


async def _have_refunded(
    resources: Resources, account: Account, payment: Payment, leased: LeasedRefund
) -> Told | Waiting:
    """Ask about it if the channel may have it already; request it if it has not."""
    if leased.may_be_known:
        known = await _query(resources, account, payment, leased)
        if known is not None:
            return known
    try:
        asked = await call_channel(
            resources,
            account,
            Urgency.SCHEDULED,
            lambda: account.channel.refund_payment(payment, leased.refund_no, leased.amount),
        )
    except ChannelRefused as refused:
        # A refusal is definite only together with the channel's word that it has no such refund.
        known = await _query(resources, account, payment, leased)
        return Told(status=RefundStatus.FAILED, note=f"refused: {refused.code}") if known is None else known
    except OutcomeUnknown as error:
        return Told(status=None, note=error.detail or type(error).__name__)
    return asked if isinstance(asked, Waiting) else Told(status=RefundStatus(asked.value))


async def _query(
    resources: Resources, account: Account, payment: Payment, leased: LeasedRefund
) -> Told | Waiting | None:
    """How it stands at the channel; None: verified, it knows no such refund. Not being answered is never None."""
    try:
        found = await call_channel(
            resources, account, Urgency.SCHEDULED, lambda: account.channel.query_refund(payment, leased.refund_no)
        )
    except ChannelRefused as refused:
        return Told(status=None, note=f"query refused: {refused.code}")
    except OutcomeUnknown as error:
        return Told(status=None, note=error.detail or type(error).__name__)
    if found is None or isinstance(found, Waiting):
        return found
    return Told(status=RefundStatus(found.value))


async def _commit(resources: Resources, leased: LeasedRefund, state: OrderState, told: Told) -> Outcome:
    backoff = resources.settings.backoff()
    rules = Rules(backoff=backoff)
    decide = partial(on_refund, refund_no=leased.refund_no, told=told.status, rules=rules, note=told.note)
    committed = await pass_door(resources, leased.order_no, decide, known=state)
    if committed.decision.outcome is Outcome.REFUND_FAILED:
        log.error("refund_failed", order_no=leased.order_no, refund_no=leased.refund_no, reason=told.note or "failed")
    after = committed.state_after
    refund = None if after is None else after.refund(leased.refund_no)
    if refund is not None and not refund.status.is_final:
        attempt = leased.attempt + 1
        note = "" if told.status is not None else told.note
        await _again(resources, leased, attempt, backoff.gap_s(attempt, leased.refund_no), note)
    return committed.decision.outcome


async def _again(resources: Resources, leased: LeasedRefund, attempt: int, delay_s: float, note: str) -> None:
    arm_no = await refunds.reschedule(resources.db, leased, attempt=attempt, delay_s=delay_s, error=note)
    if arm_no is not None:
        await arm_jobs(resources, [jobs.refund_payment(leased.refund_no, arm_no, delay_s)])
