"""Query one payment at its channel and commit the result. Every trigger that asks a channel ends in here.

One query of a payment runs at a time across all processes, by the lease of its pending row, under the account's rate
limit and breaker. The channel is called between two statements and never inside one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from time import monotonic

import structlog
from msgspec import Struct

from core.admission import CallKind, Urgency
from core.decision import Decision
from core.errors import ChannelError, DatabaseUnavailable
from core.evidence import Evidence, Refunded, Source, Unclear
from core.lifecycle import Approval, on_query, with_notice
from core.lifecycle.capturing import NOTHING_QUERIED
from core.order import OrderState, Origin, Payment, PaymentKey
from flows.channel_call import Deferred, call_channel
from flows.commit import DecideOnEvidence, EndCallback, commit_evidence
from flows.create import find_reference
from flows.refund_notice import with_named_refund
from flows.unanswered import query_noted
from flows.watched import settle_named
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.pending import Leased

LEASE_POLL_S = 0.1
"""Pause between two looks at a lease that another process holds."""

log = structlog.get_logger()


class NoLease(StrEnum):
    """Reason why a payment was not leased: nothing is pending for it any more, or another process kept the lease."""

    ROW_GONE = "row_gone"
    BUSY = "busy"


class QueryResult(Struct, frozen=True, kw_only=True):
    """The channel's evidence, the decision, when its commit began (monotonic), and the payment after that."""

    evidence: Evidence
    decision: Decision
    payment: Payment
    is_row_gone: bool
    decided_at: float


async def wait_for_lease(resources: Resources, key: PaymentKey, within_s: float) -> Leased | NoLease:
    """The lease of a payment; if another process holds it, wait up to `within_s` seconds for its end."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        leased = await pending.claim(resources.db, key, resources.settings.lease_s)
        if leased is not None:
            return leased
        if await pending.find_last_query(resources.db, key) is None:
            return NoLease.ROW_GONE
        if asyncio.get_running_loop().time() > deadline:
            return NoLease.BUSY
        await asyncio.sleep(LEASE_POLL_S)


async def query_now(
    resources: Resources,
    account: Account,
    payment: Payment,
    *,
    by: Source,
    urgency: Urgency,
    leased: Leased | None,
    known: OrderState | None = None,
    notice: Evidence | None = None,
    approval: Approval | None = None,
    ends: Callable[..., Decision] | None = None,
) -> QueryResult | Deferred:
    """An unscheduled query (callback, refresh, close, another attempt); the lease is given back after it.

    `leased` None: nothing is pending for this payment any more (money after close), so no other process queries it.
    `known` is the order as it was just read, `notice` the channel's own message that led to this query. With `approval`
    an approved payment may be due for `flows.capture`, which the caller then calls; without it nothing is captured.
    """
    result: QueryResult | None = None
    try:
        response = await ask_and_commit(
            resources,
            account,
            payment,
            by=by,
            urgency=urgency,
            known=known,
            notice=notice,
            after_capture=approval is None,
            approval=approval or NOTHING_QUERIED,
            ends=ends,
        )
        result = None if isinstance(response, Deferred) else response
        return response
    finally:
        await give_back(resources, leased, result)


async def give_back(resources: Resources, leased: Leased | None, result: QueryResult | None) -> None:
    """End a lease. `result` is shared with those who wait for it; None: nothing was committed, the next one queries."""
    if leased is None or (result is not None and result.is_row_gone):
        return
    with suppress(DatabaseUnavailable):  # then it ends by itself
        await pending.release(resources.db, leased, was_queried=result is not None)


async def ask_and_commit(
    resources: Resources,
    account: Account,
    payment: Payment,
    *,
    by: Source,
    urgency: Urgency,
    known: OrderState | None = None,
    arm_no: int | None = None,
    after_capture: bool = False,
    notice: Evidence | None = None,
    approval: Approval = NOTHING_QUERIED,
    ends: Callable[..., Decision] | None = None,
) -> QueryResult | Deferred:
    """One query, and its result through the door. The other arguments are those of `on_query` and the door; `ends` is
    `with_end` for the callback that led to the query.
    """
    evidence = await _ask(resources, account, payment, urgency, notice)
    if isinstance(evidence, Deferred):
        return evidence
    if payment.origin is Origin.WATCHED:
        evidence = await settle_named(resources, account, payment, evidence, by)
    rules = account.rules
    decide = partial(
        on_query,
        key=payment.key,
        evidence=evidence,
        rules=rules,
        by=by,
        arm_no=arm_no,
        after_capture=after_capture,
        approval=approval,
    )
    ends_here = None if ends is None else partial(ends, answer=evidence)
    return await commit_answer(resources, payment, evidence, decide, known, ends_here)


async def commit_answer(
    resources: Resources,
    payment: Payment,
    evidence: Evidence,
    decide: DecideOnEvidence,
    known: OrderState | None = None,
    ends: EndCallback | None = None,
) -> QueryResult:
    """The evidence of a query, through the door."""
    decided_at = monotonic()
    committed = await commit_evidence(resources, payment.order_no, decide, known=known, ends=ends)
    state = committed.state_after
    return QueryResult(
        evidence=evidence,
        decision=committed.decision,
        # as it was decided on: before, it may not have had its channel reference
        payment=(None if state is None else state.payment(payment.key)) or payment,
        is_row_gone=committed.has_resolved(payment.key),
        decided_at=decided_at,
    )


async def _ask(
    resources: Resources, account: Account, payment: Payment, urgency: Urgency, notice: Evidence | None
) -> Evidence | Deferred:
    """Query the channel, if it may be called now. No result is `Unclear`, never a conclusion."""
    channel = account.channel
    try:
        if channel.queries_by_reference and payment.channel_reference is None:
            found = await find_reference(resources, account, payment)
            if not isinstance(found, Payment):
                return found
            payment = found
        if account.trusts_when_unanswered:
            answer = await query_noted(resources, account, payment, urgency)
        else:
            answer = await call_channel(resources, account, CallKind.QUERY, urgency, channel.query_payment, payment)
        if notice is None or isinstance(answer, Deferred):
            return answer
        if isinstance(notice, Unclear):
            return await with_named_refund(resources, account, payment, urgency, answer, notice)
        return with_notice(answer, notice) if isinstance(notice, Refunded) else answer
    except ChannelError as error:
        return Unclear(
            channel_account=payment.channel_account,
            out_trade_no=payment.out_trade_no,
            reason=error.detail or type(error).__name__,
        )
