"""Disputes: read from the channel where its message proves only an id, and committed for each of their payments."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import structlog
from msgspec.structs import replace

from channels.base import QueriesDisputes
from core.admission import CallKind, Urgency
from core.decision import Outcome
from core.errors import ChannelRefused, ChannelUnreadable
from core.evidence import Disputed, Source
from core.lifecycle import CallbackPlan, CallbackResult, on_dispute, shows_other_money
from core.order import CaseReason, Payment
from core.sentences import Sentence, Term
from flows.channel_call import Deferred, call_channel
from flows.commit import commit_decision
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.cases import open_account_case
from storage.postgres.inbox import StoredCallback
from storage.postgres.orders import find_named_payment

log = structlog.get_logger()

_UNKNOWN = CallbackResult(outcome=Outcome.UNKNOWN_PAYMENT, is_done=False)
_QUERY = CallbackPlan(commits=True, queries=True, differs=False)


class Confirm(Protocol):
    """The query of the payment that a callback is about, and its result."""

    async def __call__(
        self, account: Account, payment: Payment, stored: StoredCallback, plan: CallbackPlan
    ) -> CallbackResult: ...


async def handle_dispute(resources: Resources, stored: StoredCallback, by: Source, confirm: Confirm) -> CallbackResult:
    """Handle a callback about a dispute, for each of its payments that is known here. Raises as `call_channel`.

    The payment is queried too where other sums may be found, or a payment that is not paid here.
    """
    account = await resources.accounts.get(stored.channel_account)
    assert isinstance(stored.evidence, Disputed), "only a callback about a dispute"
    disputes = await _read(resources, account, stored.evidence, Urgency.FRESH)
    if isinstance(disputes, Deferred):
        return CallbackResult(outcome=Outcome.NOT_YET, is_done=False, wait_s=disputes.seconds)
    results = []
    for dispute in disputes:
        payment, outcome = await _commit(resources, account, dispute, by)
        if payment is None:
            continue
        result = CallbackResult(outcome=outcome, is_done=True)
        if shows_other_money(payment, dispute):
            evidence = replace(dispute, out_trade_no=payment.out_trade_no)
            result = await confirm(account, payment, replace(stored, evidence=evidence), _QUERY)
        results.append(result)
    return min(results, key=lambda result: result.is_done, default=_UNKNOWN)


async def commit_dispute(resources: Resources, account: Account, dispute: Disputed, *, by: Source) -> bool:
    """Commit a dispute that was not delivered. Whether any of its payments is known here. Raises as `call_channel`."""
    disputes = await _read(resources, account, dispute, Urgency.SCHEDULED)
    if isinstance(disputes, Deferred):
        return False
    payments = [(await _commit(resources, account, one, by))[0] for one in disputes]
    return any(payment is not None for payment in payments)


async def _read(
    resources: Resources, account: Account, dispute: Disputed, urgency: Urgency
) -> tuple[Disputed, ...] | Deferred:
    """The dispute for each payment that it is about."""
    if dispute.state is not None:
        return (dispute,)
    if not isinstance(account.channel, QueriesDisputes):
        raise ChannelUnreadable("dispute_without_state")
    try:
        return await call_channel(resources, account, CallKind.DISPUTE, urgency, account.channel.query_dispute, dispute)
    except ChannelRefused as refused:
        # Nothing else tells of it: the app has no permission to read disputes.
        detail = Sentence(
            "the channel refuses to show {kind} {id}: {reason}",
            kind=Term("dispute_kind.", dispute.dispute_kind),
            id=dispute.dispute_id,
            reason=refused.code,
        )
        log.error("dispute_not_readable", account=account.config.name, reason=refused.code)
        await open_account_case(resources.db, account.config.name, CaseReason.DISPUTED, detail=detail)
        raise


async def _commit(
    resources: Resources, account: Account, dispute: Disputed, by: Source
) -> tuple[Payment | None, Outcome]:
    """Commit the dispute of one payment; None if that is not known here."""
    named = await find_named_payment(resources.db, account.config.name, dispute)
    if named is None:
        return None, Outcome.UNKNOWN_PAYMENT
    state, payment = named
    decide = partial(on_dispute, key=payment.key, evidence=dispute, by=by)
    committed = await commit_decision(resources, state.order.order_no, decide, known=state)
    return payment, committed.decision.outcome
