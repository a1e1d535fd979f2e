"""Callbacks that pay when no query is answered, for accounts with `trust_callback = "when_unanswered"`.

Each query of such an account notes whether it had a verified answer; `core.lifecycle.trusting` has the rule.
"""

from __future__ import annotations

from functools import partial

from core.admission import CallKind, Urgency
from core.decision import Outcome
from core.errors import ChannelNotCalled, ChannelRefused
from core.evidence import Evidence, Source
from core.lifecycle import CallbackResult, Message, on_unanswered
from core.order import Origin, Payment
from flows.channel_call import Deferred, call_channel
from flows.commit import commit_evidence
from flows.watched import is_named_beside
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import callbacks, pending
from storage.postgres.inbox import StoredCallback


async def query_noted(
    resources: Resources, account: Account, payment: Payment, urgency: Urgency
) -> Evidence | Deferred:
    """Query the channel, and note whether a query that went out had a verified answer.

    One that the budget of a callback has cut off went out too. A refusal is an answer, and none about money.
    """
    is_sent = is_verified = False

    async def query() -> Evidence:
        nonlocal is_sent
        is_sent = True
        return await account.channel.query_payment(payment)

    try:
        evidence = await call_channel(resources, account, CallKind.QUERY, urgency, query)
        is_verified = is_sent
        return evidence
    except (ChannelRefused, ChannelNotCalled):
        is_sent = False
        raise
    finally:
        if is_sent:
            await pending.note_answer(resources.db, payment.key, is_verified=is_verified)


async def pay_unanswered(
    resources: Resources, account: Account, payment: Payment, stored: StoredCallback, by: Source
) -> CallbackResult:
    """Let the callback pay if its payment's queries have had no answer for long enough and nothing speaks against it.

    The lease is ours meanwhile: a query under way may have the answer.
    """
    unclear = CallbackResult(outcome=Outcome.UNCLEAR, is_done=False)
    if payment.origin is Origin.WATCHED and await is_named_beside(resources, account, stored.evidence):
        return unclear
    leased = await pending.claim(resources.db, payment.key, resources.settings.lease_s)
    if leased is None:
        return unclear
    try:
        numbers = {*stored.evidence.every_id, payment.out_trade_no, payment.channel_reference or payment.out_trade_no}
        decide = partial(
            on_unanswered,
            key=payment.key,
            message=Message(evidence=stored.evidence, received_at=stored.received_at),
            others=await callbacks.find_others(resources.db, stored, numbers),
            rules=account.rules,
            by=by,
        )
        committed = await commit_evidence(resources, payment.order_no, decide)
    finally:
        await pending.release(resources.db, leased, was_queried=False)
    outcome = committed.decision.outcome
    return CallbackResult(outcome=outcome, is_done=True) if outcome is Outcome.PAID else unclear
