"""The scheduled query: the job `query_payment`, and the sweep's way to the same when the job was lost."""

from __future__ import annotations

from functools import partial

import structlog

from core import jobs
from core.admission import Urgency
from core.decision import Outcome
from core.errors import UnknownAccount
from core.evidence import Source, Unclear
from core.lifecycle import Rules, on_query
from core.order import OrderState, PaymentKey
from flows.ask import as_decided, ask, capture_payment, commit_answer, query_now
from flows.channel_call import Waiting
from flows.close import close_payment
from flows.commit import pass_door
from flows.rearm import arm_jobs
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state_by_payment
from storage.postgres.pending import Leased

log = structlog.get_logger()


async def query_scheduled(resources: Resources, key: PaymentKey, arm_no: int, *, by: Source = Source.QUERY) -> Outcome:
    """The delayed query: alone it advances the attempt. A job of an older scheduling finds nothing to do."""
    leased = await pending.claim(resources.db, key, resources.settings.lease_s, arm_no=arm_no)
    if leased is None:
        return Outcome.STALE
    return await query_leased(resources, leased, by=by)


async def query_leased(resources: Resources, leased: Leased, *, by: Source) -> Outcome:
    """A scheduled query whose lease is ours already: the sweep has claimed it, or `query_scheduled` has."""
    state = await find_state_by_payment(resources.db, leased.key)
    payment = None if state is None else state.payment(leased.key)
    if state is None or payment is None:
        await pending.release(resources.db, leased)
        return Outcome.STALE
    try:
        account = await resources.accounts.get(leased.key.channel_account)
    except UnknownAccount:
        return await _learn_nothing(resources, leased, state, by=by)
    asked = await ask(resources, account, payment, Urgency.SCHEDULED)
    if isinstance(asked, Waiting):
        arm_no = await pending.reschedule(resources.db, leased, delay_s=asked.seconds)
        if arm_no is not None:
            await arm_jobs(resources, [jobs.query_payment(leased.key, arm_no, asked.seconds)])
        return Outcome.NOT_YET
    committed = await commit_answer(resources, account, payment, asked, by=by, arm_no=leased.arm_no, known=state)
    if committed.decision.close:
        await close_payment(resources, account, payment)
    payment = as_decided(committed, payment)
    if committed.decision.capture and await capture_payment(resources, account, payment, Urgency.SCHEDULED):
        again = await pending.claim(resources.db, leased.key, resources.settings.lease_s)
        if again is not None:
            await query_now(
                resources, account, payment, by=by, urgency=Urgency.SCHEDULED, leased=again, is_captured=True
            )
    return committed.decision.outcome


async def _learn_nothing(resources: Resources, leased: Leased, state: OrderState, *, by: Source) -> Outcome:
    """The account was removed, or its credentials do not open: nobody can be asked, which is no evidence either.

    Tried again after n² units like any other query without an answer, so that in the end a person is told.
    """
    account, number = leased.key
    log.error("payment_not_queried", account=account, out_trade_no=number, reason="unknown_account")
    unclear = Unclear(channel_account=account, out_trade_no=number, reason="unknown_account")
    rules = Rules(backoff=resources.settings.backoff())
    decide = partial(on_query, key=leased.key, evidence=unclear, rules=rules, by=by, arm_no=leased.arm_no)
    return (await pass_door(resources, leased.order_no, decide, known=state)).decision.outcome
