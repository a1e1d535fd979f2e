"""Close an unpaid order: query its payments, close them at their channels, query again, and only then close.

A payment is closed only on verified evidence; while one is unclear, the order is tried again after n² units.
"""

from __future__ import annotations

from functools import partial

import structlog

from core import jobs
from core.acts import Preview
from core.admission import CallKind, Urgency
from core.decision import Outcome
from core.dispute import is_withheld
from core.errors import ChannelError, NotFound, OrderPaid, PreviewOutdated, UnknownAccount
from core.evidence import Evidence, Source
from core.lifecycle import on_close_attempted, on_close_requested, on_deadline
from core.order import OrderState, Payment, PaymentStatus, deadline_key
from core.previews import close_preview
from core.sentences import Sentence
from flows.ask import NoLease, query_now, wait_for_lease
from flows.channel_call import Deferred, call_channel
from flows.commit import arm_jobs, commit_decision
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state
from storage.postgres.pending import Leased

BUSY = Deferred(seconds=1.0, reason="busy")
"""Another process queries the payment now."""

log = structlog.get_logger()


async def close_scheduled(resources: Resources, order_no: str, arm_no: int) -> Outcome:
    """The deadline's job. A job of an older scheduling finds nothing to do."""
    key, lease_s = deadline_key(order_no), resources.settings.lease_s
    claimed = await pending.claim_with_order(resources.db, key, lease_s, arm_no=arm_no)
    return Outcome.STALE if claimed is None else await close_leased(resources, *claimed)


async def close_leased(resources: Resources, leased: Leased, state: OrderState | None = None) -> Outcome:
    """Make the payments of an order definite, then decide again on fresh state. The lease of its deadline is ours."""
    state = state or await find_state(resources.db, leased.order_no)
    if state is None:
        return Outcome.STALE
    rules = resources.rules
    decision = on_deadline(state, rules)
    answers, waits = {}, []
    for payment in (payment for payment in state.payments if payment.key in decision.query):
        answer = await settle_payment(resources, payment, closes=payment.key in decision.close)
        if isinstance(answer, Deferred):
            waits.append(answer.seconds)
        elif answer is not None:
            answers[payment.key] = answer
    # A channel that may not be called now was not tried: that uses no attempt.
    decide = partial(on_deadline, rules=rules, arm_no=None if waits else leased.arm_no, answers=answers)
    outcome = (await commit_decision(resources, leased.order_no, decide)).decision.outcome
    if waits and outcome is Outcome.NOT_YET:
        await _postpone(resources, leased, max(waits))
    return outcome


async def _postpone(resources: Resources, leased: Leased, delay_s: float) -> None:
    arm_no = await pending.reschedule(resources.db, leased, delay_s=delay_s)
    if arm_no is not None:
        await arm_jobs(resources, [jobs.close_order(leased.order_no, arm_no, delay_s)])


async def settle_payment(resources: Resources, payment: Payment, *, closes: bool) -> Evidence | Deferred | None:
    """Query the payment. If it is still open and `closes` is set, close it at the channel and query again.

    Returns the evidence of the first query; `Deferred` if one of these calls may not be made now; None if there is no
    account to call or nothing to query.

    A query that runs already is waited for: a deadline and a scheduled query that once coincide have the same gaps from
    then on, and the deadline would always be left to the query.
    """
    try:
        account = await resources.accounts.get(payment.channel_account)
    except UnknownAccount:
        # Removed, or its credentials do not open: without a query nothing is definite.
        log.error("payment_not_settled", account=payment.channel_account, out_trade_no=payment.out_trade_no)
        return None
    leased = await wait_for_lease(resources, payment.key, resources.settings.callback_confirm_s)
    if leased is NoLease.BUSY:
        return BUSY
    if isinstance(leased, NoLease):
        return None
    result = await query_now(resources, account, payment, by=Source.CLOSE, urgency=Urgency.SCHEDULED, leased=leased)
    if isinstance(result, Deferred):
        return result
    if closes and result.decision.outcome is Outcome.STILL_OPEN:
        return await close_payment(resources, account, payment) or result.evidence
    return result.evidence


async def close_payment(resources: Resources, account: Account, payment: Payment) -> Deferred | None:
    """Close the payment at its channel, so that it takes no more money; the query that follows brings the result.

    Returns `Deferred` if it may not be closed or queried now, None in all other cases.
    """
    try:
        closed = await call_channel(
            resources, account, CallKind.CLOSE, Urgency.SCHEDULED, account.channel.close_payment, payment
        )
    except ChannelError as error:
        log.info(
            "payment_not_closed", account=account.config.name, out_trade_no=payment.out_trade_no, reason=error.detail
        )
        return None
    if isinstance(closed, Deferred):
        return closed
    await commit_decision(resources, payment.order_no, partial(on_close_attempted, key=payment.key))
    leased = await wait_for_lease(resources, payment.key, resources.settings.callback_confirm_s)
    if isinstance(leased, NoLease):
        return BUSY if leased is NoLease.BUSY else None
    result = await query_now(resources, account, payment, by=Source.CLOSE, urgency=Urgency.SCHEDULED, leased=leased)
    return result if isinstance(result, Deferred) else None


async def preview_close(resources: Resources, order_no: str) -> Preview:
    """Effects of ending the order as things stand. Raises NotFound."""
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    return close_preview(state)


async def request_close(
    resources: Resources,
    order_no: str,
    *,
    by: Source = Source.API,
    by_name: str = "",
    expected_version: int | None = None,
) -> OrderState:
    """The merchant or an operator ends an order: its deadline moves to now and is worked off at once, like any other.

    Returns the order as it is then: closed, or not yet if a payment is still unclear.

    Raises:
        NotFound: there is no such order.
        OrderPaid: it is paid, or late money for it is there.
        PreviewOutdated: the order has moved on since `expected_version`.
    """
    decide = partial(on_close_requested, by=by, by_name=by_name, expected_version=expected_version)
    committed = await commit_decision(resources, order_no, decide)
    if committed.state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    if committed.decision.outcome is Outcome.ALREADY_PAID:
        raise OrderPaid(Sentence("order {order_no} is paid", order_no=order_no))
    if committed.decision.outcome is Outcome.MOVED:
        raise PreviewOutdated(close_preview(committed.state))
    # A worker may have been faster at the job of the deadline that has just moved.
    leased = await wait_for_lease(resources, deadline_key(order_no), resources.settings.callback_confirm_s)
    if not isinstance(leased, NoLease):
        await close_leased(resources, leased)
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    if _has_money(state):
        raise OrderPaid(Sentence("order {order_no} is paid", order_no=order_no))
    return state


def _has_money(state: OrderState) -> bool:
    """Whether money of the order is there: it was paid, and has neither gone back nor is withheld."""
    paid = [row for row in state.payments if row.status is PaymentStatus.PAID and row.remaining_amount]
    return any(not is_withheld(state.disputes, row.key) for row in paid)
