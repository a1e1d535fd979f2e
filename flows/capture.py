"""Capture a payment that its buyer has approved: ask the order's other payments, claim, capture, query again.

Nothing is captured unless the decision to do so is committed, under the order's version.
"""

from __future__ import annotations

from functools import partial
from time import monotonic

import structlog

from core.admission import CallKind, Urgency
from core.errors import CaptureDeclined, ChannelError, ChannelRefused, UnknownAccount
from core.evidence import Source
from core.lifecycle import Approval, Queried, is_free_of_money, on_capture_refused, on_query
from core.lifecycle.capturing import NOTHING_QUERIED
from core.order import Payment
from flows.ask import NoLease, QueryResult, ask_and_commit, commit_answer, give_back, wait_for_lease
from flows.channel_call import Deferred, call_channel
from flows.commit import commit_decision
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state

log = structlog.get_logger()


async def capture_if_due(
    resources: Resources,
    account: Account,
    approved: QueryResult,
    *,
    by: Source,
    urgency: Urgency,
    approval: Approval = NOTHING_QUERIED,
) -> QueryResult:
    """Capture a payment whose query led to that, under a lease of its own, and query what came of it.

    The order's other open payments are asked before: one that is paid or unclear stops it, and so does a payment that
    was started meanwhile.
    """
    if not approved.decision.is_capture_due:
        return approved
    leased = await pending.claim(resources.db, approved.payment.key, resources.settings.lease_s, is_for_money=True)
    if leased is None:  # another process queries the payment now, and captures
        return approved
    result = None
    try:
        result = await _capture(resources, account, approved, by, urgency, is_new_approval=approval.is_new)
    finally:
        await give_back(resources, leased, result)
    return result


async def _capture(
    resources: Resources,
    account: Account,
    approved: QueryResult,
    by: Source,
    urgency: Urgency,
    *,
    is_new_approval: bool,
) -> QueryResult:
    payment, result = approved.payment, approved
    if approved.decision.query:
        approval = Approval(queried=await _query_others(resources, payment, by, urgency), is_new=is_new_approval)
        evidence, rules = approved.evidence, account.rules
        decide = partial(on_query, key=payment.key, evidence=evidence, rules=rules, by=by, approval=approval)
        result = await commit_answer(resources, payment, evidence, decide)
    # A process that stood still since does not know what has been decided meanwhile.
    if not result.decision.capture or monotonic() - result.decided_at >= resources.settings.lease_s:
        return result
    after = await _capture_and_ask(resources, account, result.payment, by, urgency)
    return result if isinstance(after, Deferred) else after


async def _query_others(resources: Resources, payment: Payment, by: Source, urgency: Urgency) -> Queried:
    """Query the order's other open payments, and capture none. Returns those that have no money."""
    state = await find_state(resources.db, payment.order_no)
    queried = {}
    for other in () if state is None else state.open_payments():
        result = None if other.key == payment.key else await _ask_other(resources, other, by, urgency)
        if result is not None and is_free_of_money(result.payment, result.evidence):
            queried[other.key] = result.payment.capture_requested_at
    return queried


async def _ask_other(resources: Resources, other: Payment, by: Source, urgency: Urgency) -> QueryResult | None:
    """One query without a capture; None if the payment cannot be asked now."""
    try:
        account = await resources.accounts.get(other.channel_account)
    except UnknownAccount:
        return None
    leased = await wait_for_lease(resources, other.key, 0.0)
    if isinstance(leased, NoLease):
        return None
    result = None
    try:
        response = await ask_and_commit(resources, account, other, by=by, urgency=urgency, after_capture=True)
        result = None if isinstance(response, Deferred) else response
    finally:
        await give_back(resources, leased, result)
    return result


async def _capture_and_ask(
    resources: Resources, account: Account, payment: Payment, by: Source, urgency: Urgency
) -> QueryResult | Deferred:
    """Have the channel take the money that the buyer agreed to, then query what came of it.

    The response to the capture is no evidence of money: whether it is refused or unknown, only the query tells. A
    definite refusal ends the buyer's approval.
    """
    fields = {"account": account.config.name, "out_trade_no": payment.out_trade_no}
    capture = account.channel.capture_payment
    try:
        deferred = await call_channel(resources, account, CallKind.CAPTURE, urgency, capture, payment)
    except CaptureDeclined as declined:
        log.warning("payment_capture_declined", **fields, reason=declined.code)
        decide = partial(on_capture_refused, captured=payment, code=declined.code, by=by)
        await commit_decision(resources, payment.order_no, decide)
    except ChannelRefused as refused:
        log.warning("payment_not_captured", **fields, reason=refused.code)
    except ChannelError as error:
        log.warning("payment_capture_unknown", **fields, reason=error.detail or "unknown")
    else:
        if isinstance(deferred, Deferred):
            log.info("payment_capture_waits", **fields, reason=deferred.reason)
            return deferred
        log.info("payment_capture_asked", **fields)
    return await ask_and_commit(resources, account, payment, by=by, urgency=urgency, after_capture=True)
