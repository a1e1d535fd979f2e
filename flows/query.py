"""The delayed query: the job `query_payment`, and the sweep's way to the same when the job was lost."""

from __future__ import annotations

from functools import partial

import structlog

from core import jobs
from core.admission import Urgency
from core.decision import Outcome
from core.errors import UnknownAccount
from core.evidence import Source, Unclear
from core.lifecycle import on_query
from core.order import OrderState, PaymentKey
from flows.ask import ask_and_commit
from flows.capture import capture_if_due
from flows.channel_call import Deferred
from flows.close import close_payment
from flows.commit import arm_jobs, commit_decision
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state_by_payment
from storage.postgres.pending import Leased

log = structlog.get_logger()


async def query_scheduled(resources: Resources, key: PaymentKey, arm_no: int, *, by: Source = Source.QUERY) -> Outcome:
    """The job. It alone advances the attempt; a job of an older scheduling finds nothing to do."""
    claimed = await pending.claim_with_order(resources.db, key, resources.settings.lease_s, arm_no=arm_no)
    return Outcome.STALE if claimed is None else await query_leased(resources, *claimed, by=by)


async def query_leased(resources: Resources, leased: Leased, state: OrderState | None = None, *, by: Source) -> Outcome:
    """A scheduled query whose lease is ours: `query_scheduled` has taken it, with the order, or the sweep."""
    try:
        account = await resources.accounts.get(leased.key.channel_account)
    except UnknownAccount:
        return await _commit_unanswered(resources, leased, by=by)
    state = state or await find_state_by_payment(resources.db, leased.key)
    payment = None if state is None else state.payment(leased.key)
    if state is None or payment is None:
        await pending.release(resources.db, leased)
        return Outcome.STALE
    urgency = _urgency(account, state, leased)
    result = await ask_and_commit(
        resources, account, payment, by=by, urgency=urgency, arm_no=leased.arm_no, known=state
    )
    if isinstance(result, Deferred):
        return await _postpone(resources, leased, result)
    if result.decision.close:
        await close_payment(resources, account, payment)
    if result.decision.is_capture_due:
        await capture_if_due(resources, account, result, by=by, urgency=Urgency.SCHEDULED)
    return result.decision.outcome


def _urgency(account: Account, state: OrderState, leased: Leased) -> Urgency:
    """After the n² attempts queries are many and find little: all of them together have a fifth of the rate."""
    row = state.pending_of(leased.key)
    is_late = row is not None and account.rules.backoff.is_exhausted(row.attempt)
    return Urgency.BACKGROUND if is_late else Urgency.SCHEDULED


async def _postpone(resources: Resources, leased: Leased, deferred: Deferred) -> Outcome:
    """The channel may not be called now: due again when it may, with the same attempt."""
    arm_no = await pending.reschedule(resources.db, leased, delay_s=deferred.seconds)
    if arm_no is not None:
        await arm_jobs(resources, [jobs.query_payment(leased.key, arm_no, deferred.seconds)])
    return Outcome.NOT_YET


async def _commit_unanswered(resources: Resources, leased: Leased, *, by: Source) -> Outcome:
    """Without an account (removed, or its credentials do not open) no channel can be queried, which is no evidence.

    The payment is queried again after n² units like any other, so that in the end a case opens.
    """
    account, number = leased.key
    log.error("payment_not_queried", account=account, out_trade_no=number, reason="unknown_account")
    unclear = Unclear(channel_account=account, out_trade_no=number, reason="unknown_account")
    decide = partial(on_query, key=leased.key, evidence=unclear, rules=resources.rules, by=by, arm_no=leased.arm_no)
    outcome = (await commit_decision(resources, leased.order_no, decide)).decision.outcome
    if outcome is not Outcome.UNKNOWN_PAYMENT:
        return outcome
    await pending.release(resources.db, leased)
    return Outcome.STALE
