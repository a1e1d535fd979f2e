"""A callback that nothing confirms: when it pays the order all the same.

Only for accounts with `trust_callback = "when_unanswered"`. The payment is then paid and *unconfirmed*: its queries go
on until one of them confirms it, no refund is made because of it, and an answer that says otherwise is a case.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from core.decision import Arm, Decision, Outcome
from core.evidence import Approved, Evidence, Paid, Source, Unpaid
from core.lifecycle.callbacks import on_callback
from core.lifecycle.rules import Rules
from core.order import CaseReason, OrderState, Payment, PaymentKey, PaymentStatus, Pending


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored callback about a payment: its evidence, and when it came."""

    evidence: Evidence
    received_at: datetime


def on_unanswered(
    state: OrderState,
    key: PaymentKey,
    message: Message,
    others: tuple[Message, ...],
    rules: Rules,
    by: Source,
    *,
    claimed: bool = False,
) -> Decision:
    """A wholly signed callback whose query had no answer: it pays if `_may_pay` says so. Otherwise nothing happens.

    `others` are all stored callbacks about this payment. The row of the payment begins anew with its first gap.
    """
    payment, row = state.payment(key), state.pending_of(key)
    if payment is None or row is None or not _may_pay(state, payment, row, message, others, rules):
        return Decision(outcome=Outcome.UNCLEAR)
    decision = on_callback(state, key, message.evidence, rules, by, claimed=claimed, unconfirmed=True)
    if decision.outcome is not Outcome.PAID:
        return decision
    attempt = rules.backoff.first_attempt
    arm = Arm(
        key=key,
        kind=row.kind,
        order_no=row.order_no,
        attempt=attempt,
        delay_s=rules.backoff.gap_s(attempt, key.out_trade_no),
        expected_arm_no=row.arm_no,
    )
    return replace(decision, rearm=(*decision.rearm, arm))


def _may_pay(
    state: OrderState,
    payment: Payment,
    row: Pending,
    message: Message,
    others: tuple[Message, ...],
    rules: Rules,
) -> bool:
    """Whether it says *paid*, the payment's queries have had no answer for long enough, and nothing speaks against it:
    no case, no dispute or refund, no refusal or close at the channel, no verified answer since it came, and no other
    callback.
    """
    was_ended = payment.refused_at is not None or payment.close_attempted_at is not None
    is_payable = payment.status is PaymentStatus.OPEN and not state.order.is_resolved and not was_ended
    has_case = any(reason != CaseReason.ATTEMPTS_EXHAUSTED for _, reason in state.open_cases)
    is_doubted = has_case or bool(state.disputes) or payment.refunded_amount != 0
    is_sure = isinstance(message.evidence, Paid) and payment.has_object(*message.evidence.every_id)
    if not is_sure or not is_payable or is_doubted:
        return False
    return _is_unanswered(row, message, state.now, rules) and all(_agrees(other, message) for other in others)


def _is_unanswered(row: Pending, message: Message, now: datetime, rules: Rules) -> bool:
    """Whether queries went out and had no verified answer for `unanswered_s`, nor any since the message came."""
    if row.unanswered_since is None or now - row.unanswered_since < timedelta(seconds=rules.unanswered_s):
        return False
    return row.verified_at is None or row.verified_at < message.received_at


def _agrees(other: Message, message: Message) -> bool:
    """Whether another callback speaks of the same money, or said *not yet* before this one came."""
    match other.evidence:
        case Paid() as paid:
            return _money(paid) == _money(message.evidence)
        case Unpaid() | Approved():
            return other.received_at <= message.received_at
    return False


def _money(evidence: Evidence) -> tuple[object, ...]:
    return evidence.channel_account, evidence.amount, evidence.currency, evidence.channel_transaction_id
