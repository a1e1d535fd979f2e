"""Verified evidence → decision. Only evidence moves a payment.

Here the evidence is compared with the payment and sorted by what it says; `core.lifecycle.paying` decides about money
that is there.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from core.decision import Case, Change, Decision, Event, Handled, Observation, Outcome
from core.evidence import Approved, Closed, Disputed, Evidence, Lapsed, Paid, Refunded, Source, Unclear, kind_term
from core.lifecycle.attempts import next_attempt
from core.lifecycle.capturing import (
    NOTHING_QUERIED,
    Approval,
    as_unpaid,
    capture,
    is_approval_over,
    may_capture,
    on_approval_ended,
    to_query_first,
)
from core.lifecycle.ending import is_definitely_unpaid, is_payable
from core.lifecycle.left_over import is_to_close
from core.lifecycle.paying import on_confirmed, on_money
from core.lifecycle.rechecking import close_payment, next_recheck
from core.lifecycle.refund_numbers import with_refund_numbers
from core.lifecycle.rules import Rules
from core.order import CaseReason, OrderState, Payment, PaymentKey, PaymentStatus
from core.sentences import Amount, Sentence


def on_query(
    state: OrderState,
    key: PaymentKey,
    evidence: Evidence,
    rules: Rules,
    by: Source,
    *,
    arm_no: int | None = None,
    claimed: bool = False,
    after_capture: bool = False,
    approval: Approval = NOTHING_QUERIED,
) -> Decision:
    """The result of a query. `arm_no` is given by a scheduled query, which alone advances the attempt.

    A payment that is still open although its order is resolved (another one paid it) is to be closed at its channel.

    `after_capture`: a capture was requested just before, or none shall be. *Approved* then means that the money is not
    taken yet, or was declined: it counts as unpaid, and the next query captures again, so that nothing runs in a
    circle.

    `approval` is about a capture of the payment. `query` of the decision names the order's other payments that are to
    be asked before it.
    """
    if after_capture and isinstance(evidence, Approved):
        evidence = as_unpaid(evidence)
    decision = on_evidence(state, key, evidence, rules, by, approval=approval, claimed=claimed)
    payment, row = state.payment(key), state.pending_of(key)
    if payment is None:
        return decision
    is_scheduled = arm_no is not None and row is not None and row.arm_no == arm_no
    if decision.outcome is Outcome.STILL_OPEN and is_to_close(state, payment, evidence, is_scheduled=is_scheduled):
        decision = replace(decision, close=(key,))
    if row is None or not is_scheduled:
        return decision
    if decision.change is not None and key in (*decision.change.resolved, *(arm.key for arm in decision.rearm)):
        return decision
    if payment.status is PaymentStatus.CLOSED:
        return next_recheck(state, payment, row, evidence, decision, rules, by)
    if payment.status is PaymentStatus.PAID and payment.unconfirmed_since is None:
        return replace(decision, drop=(key,))
    is_unpaid = decision.outcome is not Outcome.MISMATCH and is_payable(payment, evidence, rules, state.now)
    return next_attempt(state, row, decision, rules, by, payable_since=payment.created_at if is_unpaid else None)


def mismatch(payment: Payment, evidence: Evidence) -> tuple[CaseReason, str] | None:
    """The first difference between the payment and the evidence, or None."""
    if evidence.channel_account != payment.channel_account:
        return CaseReason.ACCOUNT_MISMATCH, Sentence("evidence of {account}", account=evidence.channel_account)
    if evidence.out_trade_no != payment.out_trade_no:
        return CaseReason.NUMBER_MISMATCH, Sentence("evidence of {out_trade_no}", out_trade_no=evidence.out_trade_no)
    if evidence.currency is not None and evidence.currency != payment.currency:
        currencies = {"seen": evidence.currency, "wanted": payment.currency}
        return CaseReason.CURRENCY_MISMATCH, Sentence("{seen} instead of {wanted}", **currencies)
    if evidence.amount is not None and evidence.amount != payment.amount:
        seen, wanted = Amount(evidence.amount, payment.currency), Amount(payment.amount, payment.currency)
        return CaseReason.AMOUNT_MISMATCH, Sentence("{seen} instead of {wanted}", seen=seen, wanted=wanted)
    return None


# -- callbacks ---------------------------------------------------------------------------------------------------------


class CallbackPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Steps for a stored callback. `commits`: its own evidence is committed. `queries`: the channel is queried.
    `differs`: it speaks of another amount, currency, account or number than the payment's.
    """

    commits: bool
    queries: bool
    differs: bool


def plan_callback(payment: Payment, evidence: Evidence, *, trusts_callback: bool) -> CallbackPlan:
    """A callback's evidence is committed without a query if the account trusts signed callbacks or the payment is paid
    already; a mismatch is committed too (it opens a case), and the channel is queried all the same, as it is about a
    payment that only a callback has paid. The end of an approval is kept, and the channel is queried too. `Unclear`
    and a bare number are only reasons to query.
    """
    is_about_it = payment.has_object(*evidence.ids, evidence.channel_transaction_id)
    differs = is_about_it and mismatch(payment, evidence) is not None
    is_enough = is_about_it and not isinstance(evidence, Unclear)
    is_enough &= payment.status is PaymentStatus.PAID or trusts_callback
    queries = differs or not is_enough or payment.unconfirmed_since is not None
    commits = differs or is_enough or isinstance(evidence, Lapsed)
    return CallbackPlan(commits=commits, queries=queries, differs=differs)


class CallbackResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of handling a callback, and whether the callback is done.

    `is_stored`: the commit of its decision has ended it in the inbox too.
    `wait_s`: nothing was tried, and may be tried after so many seconds; no attempt is used up.
    """

    outcome: Outcome
    is_done: bool
    is_stored: bool = False
    wait_s: float | None = None


def callback_result(plan: CallbackPlan, callback: Evidence, answer: Evidence, outcome: Outcome) -> CallbackResult:
    """The result of a callback after a query. `callback` is its own evidence, `answer` the query's,
    `outcome` of the query's decision.

    A callback is done when the query was clear and does not contradict it. A genuine *paid* that the channel does not
    confirm is not done, also when the channel calls the payment closed: a person has to look where the money is.
    """
    if outcome is Outcome.UNCLEAR:
        return CallbackResult(outcome=Outcome.MISMATCH if plan.differs else outcome, is_done=False)
    if plan.differs:
        return CallbackResult(outcome=Outcome.MISMATCH, is_done=True)
    if isinstance(callback, Paid | Refunded | Disputed) and not isinstance(answer, Paid | Refunded):
        return CallbackResult(outcome=Outcome.UNCLEAR, is_done=False)
    return CallbackResult(outcome=outcome, is_done=True)


def with_end(
    decision: Decision, plan: CallbackPlan, callback: Evidence, answer: Evidence, *, callback_id: str
) -> Decision:
    """The decision on a query, with the end of the callback that led to it, should that be done by it.

    A capture that is due has a result of its own.
    """
    result = callback_result(plan, callback, answer, decision.outcome)
    is_over = result.is_done and not (decision.capture or decision.query)
    return replace(decision, handled=Handled(id=callback_id, outcome=result.outcome)) if is_over else decision


# -- evidence ----------------------------------------------------------------------------------------------------------


def on_evidence(
    state: OrderState,
    key: PaymentKey,
    evidence: Evidence,
    rules: Rules,
    by: Source,
    *,
    approval: Approval | None,
    claimed: bool,
    unconfirmed: bool = False,
) -> Decision:
    """`approval` None: the evidence is a callback's."""
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    if claimed:
        detail = Sentence("transaction {transaction}", transaction=evidence.channel_transaction_id or "")
        return _open_case(state, payment, evidence, by, CaseReason.TRANSACTION_CLAIMED_TWICE, detail)
    difference = mismatch(payment, evidence)
    if difference is not None:
        return _open_case(state, payment, evidence, by, *difference)
    match evidence:
        case Paid() | Refunded():
            is_query = approval is not None
            return _on_agreed_money(state, payment, evidence, rules, by, is_query=is_query, unconfirmed=unconfirmed)
        case Unclear(reason=reason):
            return _observe(state, payment, evidence, by, Outcome.UNCLEAR, reason)
    if payment.status is PaymentStatus.OPEN:
        return _on_no_money(state, payment, evidence, rules, by, approval)
    if approval is not None and payment.unconfirmed_since is not None:
        detail = Sentence("a callback has paid it, and the channel says {says}", says=kind_term(evidence))
        return _open_case(state, payment, evidence, by, CaseReason.CALLBACK_CONTRADICTED, detail, Outcome.CONTRADICTED)
    return _observe(state, payment, evidence, by, Outcome.NOTHING_NEW)


def _on_agreed_money(
    state: OrderState,
    payment: Payment,
    evidence: Paid | Refunded,
    rules: Rules,
    by: Source,
    *,
    is_query: bool,
    unconfirmed: bool,
) -> Decision:
    """Money that agrees with the payment, and is not other money under the same number."""
    first, second = payment.channel_transaction_id or "", evidence.channel_transaction_id
    if payment.status is PaymentStatus.PAID and first != second:
        detail = Sentence("paid as {first} and as {second}", first=first, second=second)
        return _open_case(state, payment, evidence, by, CaseReason.NUMBER_REUSED, detail, Outcome.NUMBER_REUSED)
    decision = on_money(state, payment, evidence, rules, by, unconfirmed=unconfirmed)
    if is_query and payment.unconfirmed_since is not None:
        decision = on_confirmed(state, payment, evidence, decision, by)
    decision = decision or _observe(state, payment, evidence, by, Outcome.NOTHING_NEW)
    return with_refund_numbers(state, payment.key, evidence, decision, by) if state.refunds else decision


def _on_no_money(
    state: OrderState, payment: Payment, evidence: Evidence, rules: Rules, by: Source, approval: Approval | None
) -> Decision:
    """An open payment without money: it is over, or the channel is to take its money now, or nothing has changed."""
    is_final = approval is not None or isinstance(evidence, Closed)
    if is_final and is_definitely_unpaid(payment, evidence, rules, state.now):
        return close_payment(state, payment, evidence, rules, by)
    if approval is not None and approval.lapsed is not None and is_approval_over(state, payment, evidence):
        return on_approval_ended(state, payment, approval.lapsed, evidence, by)
    unchanged = _observe(state, payment, evidence, by, Outcome.STILL_OPEN, _note(evidence))
    if approval is None or not isinstance(evidence, Approved) or not may_capture(state, payment, approval):
        return unchanged
    others = to_query_first(state, payment, approval.queried)
    return replace(unchanged, query=others) if others else capture(state, payment, evidence, by)


def _note(evidence: Evidence) -> str:
    at = evidence.at if isinstance(evidence, Lapsed) else None
    return "" if at is None else f"the channel ended the approval at {at.isoformat()}"


def _open_case(
    state: OrderState,
    payment: Payment,
    evidence: Evidence,
    by: Source,
    reason: CaseReason,
    detail: str,
    outcome: Outcome = Outcome.MISMATCH,
) -> Decision:
    """Open the case once; while it is open, the same evidence only leaves an observation."""
    if (payment.key, reason) in state.open_cases:
        return _observe(state, payment, evidence, by, outcome, f"{reason}: {detail}")
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=outcome, by=by, key=payment.key, evidence=evidence, note=str(detail)),
        cases=(Case(reason=reason, key=payment.key, detail=detail),),
    )
    return Decision(outcome=outcome, change=change)


def _observe(
    state: OrderState, payment: Payment, evidence: Evidence, by: Source, outcome: Outcome, note: str = ""
) -> Decision:
    observation = Observation(
        order_no=state.order.order_no, kind=f"{kind_term(evidence)}_seen", by=by, key=payment.key, note=note
    )
    return Decision(outcome=outcome, observation=observation)
