"""Sums of refunds: what is known of the money that a channel has given back of a payment, and the cases about it.

Sums come from our own refunds, from the channel's answers and its refund notices. A sum never becomes smaller: an old
message arrives late. Money that a dispute has taken is the dispute's and no refund: where a channel shows both alike,
what was counted before the dispute was known is taken off again.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.decision import Case, CaseResolution
from core.dispute import Dispute, is_withheld
from core.evidence import Evidence, Paid, Refunded
from core.lifecycle.refund_amounts import is_going_back, outside_amount, succeeded_amount, with_outside
from core.order import CaseReason, OrderState, Payment, RefundStatus
from core.sentences import Amount, Phrase, Sentence


def with_notice(answer: Evidence, notice: Refunded) -> Evidence:
    """The answer to a query, with the total that a genuine refund notice of the same money tells if it is larger: not
    every channel's query shows every refund.
    """
    if not isinstance(answer, Paid | Refunded) or notice.refunded_amount is None:
        return answer
    if _money(answer) != _money(notice):
        return answer
    known = answer.refunded_amount if isinstance(answer, Refunded) else 0
    if known is not None and known >= notice.refunded_amount:
        return answer
    return _refunded(answer, notice.refunded_amount)


def with_refund(answer: Paid | Refunded, refund_no: str, amount: int) -> Evidence:
    """The answer to a query, with one refund of the payment that the channel was queried about by its number."""
    if isinstance(answer, Refunded) and answer.refunded_amount is not None:
        return answer
    return replace(_refunded(answer, None), refunds={refund_no: amount})


def with_refunds(state: OrderState, payment: Payment, evidence: Paid | Refunded) -> Payment:
    """The payment with what the evidence adds to its refunds."""
    takes_money = any(dispute.takes_money for dispute in state.disputes_of(payment.key))
    if evidence.shows_disputes and takes_money:
        return _beside_disputes(state, payment, evidence)
    if isinstance(evidence, Paid):
        return payment
    known = replace(payment, channel_refunds=payment.channel_refunds | _not_ours(state, evidence))
    if evidence.refunded_amount is not None:
        known = replace(known, refunded_amount=max(payment.refunded_amount or 0, evidence.refunded_amount))
        return with_outside(state, known, payment) if is_going_back(state, payment.key) else known
    known = with_outside(state, known, payment) if is_going_back(state, payment.key) else known
    ours, others = succeeded_amount(state, payment.key), sum(known.channel_refunds.values())
    total = max(payment.refunded_amount or 0, others + ours)
    is_explained = total > 0 or is_going_back(state, payment.key)
    return replace(known, refunded_amount=min(total, payment.amount) if is_explained else None)


def without_reversal(payment: Payment, dispute: Dispute) -> Payment:
    """The payment without a refund that turns out to be this dispute's reversal."""
    amount = payment.channel_refunds.get(dispute.dispute_id)
    if amount is None or payment.refunded_amount is None:
        return payment
    others = {number: each for number, each in payment.channel_refunds.items() if number != dispute.dispute_id}
    return replace(payment, refunded_amount=max(0, payment.refunded_amount - amount), channel_refunds=others)


def refund_cases(state: OrderState, payment: Payment) -> tuple[Case, ...]:
    """The case about money that went back without a refund of ours, unless it is open or that was known before.

    While a refund of ours is under way, a sum that it may be is that one. Should another have been faster at the
    channel, the channel refuses ours, and that is a case too.
    """
    if payment.refunded_amount is None:
        whole = Amount(payment.amount, payment.currency)
        what = "of {amount} {currency} something was refunded at the channel"
        detail = Sentence(what, amount=whole, currency=payment.currency)
        case = Case(reason=CaseReason.REFUND_AMOUNT_UNKNOWN, key=payment.key, detail=detail)
    elif not grew_outside(state, payment):
        return ()
    else:
        case = outside_case(payment, outside_amount(state, payment))
    return () if (case.key, case.reason) in state.open_cases else (case,)


def outside_case(payment: Payment, amount: int) -> Case:
    """The case about an amount that went back at the channel without a refund of ours."""
    left = payment.remaining_amount
    detail = Sentence(
        "{refunded} of {amount} {currency} refunded at the channel, {left} left",
        refunded=Amount(amount, payment.currency),
        amount=Amount(payment.amount, payment.currency),
        currency=payment.currency,
        left=Phrase("an unknown sum") if left is None else Amount(left, payment.currency),
    )
    return Case(reason=CaseReason.REFUNDED_OUTSIDE, key=payment.key, detail=detail)


def grew_outside(state: OrderState, payment: Payment) -> bool:
    """Whether more has gone back at the channel without us than the state knew."""
    before = state.payment(payment.key)
    known = 0 if before is None else outside_amount(state, before)
    return outside_amount(state, payment) > known


def sum_resolutions(state: OrderState, payment: Payment) -> tuple[CaseResolution, ...]:
    """The end of the case *refund amount unknown* once a sum is known, and of *refunded outside* once none of it is."""
    if payment.refunded_amount is None:
        return ()
    resolution = Sentence(
        "{refunded} of {amount} {currency} refunded",
        refunded=Amount(payment.refunded_amount, payment.currency),
        amount=Amount(payment.amount, payment.currency),
        currency=payment.currency,
    )
    is_outside = outside_amount(state, payment) > 0
    settled = [CaseReason.REFUND_AMOUNT_UNKNOWN, *([] if is_outside else [CaseReason.REFUNDED_OUTSIDE])]
    return tuple(
        CaseResolution(reason=reason, key=payment.key, resolution=resolution)
        for reason in settled
        if (payment.key, reason) in state.open_cases
    )


def _beside_disputes(state: OrderState, payment: Payment, evidence: Paid | Refunded) -> Payment:
    """The refunded sum, where the channel's answer shows it together with what disputes have taken.

    A reversal is named by its dispute. While money is withheld, only a refund that was counted before is surely one;
    what else the answer shows without naming it is the dispute's.
    """
    reversals = {dispute.dispute_id for dispute in state.disputes_of(payment.key)}
    is_taken = is_withheld(state.disputes, payment.key)
    shown = _not_ours(state, evidence) if isinstance(evidence, Refunded) else {}
    refunds = {
        number: amount
        for number, amount in shown.items()
        if number not in reversals and (number in payment.channel_refunds or not is_taken)
    }
    total = sum(refunds.values()) + succeeded_amount(state, payment.key)
    return replace(payment, refunded_amount=min(total, payment.amount), channel_refunds=refunds)


def _not_ours(state: OrderState, evidence: Refunded) -> dict[str, int]:
    own = [refund for refund in state.refunds if refund.status is not RefundStatus.FAILED]
    live = {number for refund in own for number in (refund.refund_no, refund.channel_refund_no)}
    return {number: amount for number, amount in evidence.refunds.items() if number not in live}


def _refunded(answer: Paid | Refunded, refunded_amount: int | None) -> Refunded:
    return Refunded(
        channel_account=answer.channel_account,
        out_trade_no=answer.out_trade_no,
        amount=answer.amount,
        currency=answer.currency,
        channel_transaction_id=answer.channel_transaction_id,
        at=answer.at,
        refunded_amount=refunded_amount,
    )


def _money(evidence: Paid | Refunded) -> tuple[str, str, str, int, str]:
    identity = evidence.channel_account, evidence.out_trade_no, evidence.channel_transaction_id
    return *identity, evidence.amount, evidence.currency
