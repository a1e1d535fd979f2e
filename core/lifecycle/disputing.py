"""Disputes and reversals: kept, told to the merchant, and never taken for the end of an order or for refunds.

A dispute unpays nothing: the order stays paid and says that its money is disputed, until the dispute is won or closed.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from core.decision import Case, CaseResolution, Change, Decision, Event, Observation, Outcome
from core.dispute import Dispute, DisputeKind, DisputeState, advanced, unsettled
from core.evidence import Disputed, Source
from core.lifecycle.paying import on_restored
from core.lifecycle.refund_amounts import is_going_back
from core.lifecycle.refund_sums import sum_resolutions, without_reversal
from core.lifecycle.withholding import is_restored
from core.notice import NotificationType, order_notification
from core.order import CaseReason, OrderState, OrderStatus, Payment, PaymentKey, PaymentStatus
from core.sentences import Amount, Items, Moment, Phrase, Sentence, Term


def on_dispute(state: OrderState, key: PaymentKey, evidence: Disputed, by: Source) -> Decision:
    """A dispute about money of this payment, new or further on; a late message changes nothing."""
    payment = state.payment(key)
    if payment is None or evidence.channel_account != payment.channel_account:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    seen = _seen(state, payment, evidence)
    dispute = None if seen is None else advanced(_known(state, payment, evidence.dispute_id), seen)
    if dispute is None:
        return _nothing_new(state, payment, evidence, by)
    payment = without_reversal(payment, dispute)
    others = tuple(one for one in state.disputes_of(payment.key) if one.dispute_id != dispute.dispute_id)
    left = unsettled((*others, dispute), payment.key)
    change = _restored(state, payment, dispute, left, by) or _recorded(state, payment, dispute, left, by)
    change = replace(
        change,
        event=replace(change.event, evidence=evidence, note=str(_note(dispute))),
        payments=change.payments or ((payment,) if payment != state.payment(key) else ()),
        disputes=(dispute,),
        resolutions=(*sum_resolutions(state, payment), *_resolutions(state, payment, dispute, left)),
    )
    return Decision(outcome=change.event.kind, change=change)


def _restored(
    state: OrderState, payment: Payment, dispute: Dispute, left: tuple[Dispute, ...], by: Source
) -> Change | None:
    """The money that is there again pays the order, or came late or twice; None if a person decides already, or it is
    going back.
    """
    questions = {(payment.key, CaseReason.PAID_LATE), (payment.key, CaseReason.DOUBLE_PAYMENT)}
    has_question = not questions.isdisjoint(state.open_cases)
    if has_question or is_going_back(state, payment.key) or not is_restored(state, payment, left):
        return None
    return on_restored(state, payment, by, str(_note(dispute))).change


def _recorded(state: OrderState, payment: Payment, dispute: Dispute, left: tuple[Dispute, ...], by: Source) -> Change:
    """The dispute alone: its event, case and notification."""
    order, is_left = state.order.next_version(), dispute in left
    late, type_ = order.status is OrderStatus.CLOSED, _notification_type(dispute, is_left=is_left)
    return Change(
        order=order,
        event=Event(kind=_outcome(dispute, is_left=is_left), by=by, key=payment.key),
        cases=_cases(state, payment, dispute) if is_left else (),
        notification=None
        if type_ is None
        else order_notification(type_, order, payment, now=state.now, late=late, dispute=dispute),
    )


def shows_other_money(payment: Payment, evidence: Disputed) -> bool:
    """Whether the channel must be queried too: the payment is not paid here, or money has gone back or returned."""
    is_moved = evidence.dispute_kind in (DisputeKind.REVERSAL, DisputeKind.REFUND)
    return payment.status is not PaymentStatus.PAID or payment.refunded_amount != 0 or is_moved


def _known(state: OrderState, payment: Payment, dispute_id: str) -> Dispute | None:
    return next((one for one in state.disputes_of(payment.key) if one.dispute_id == dispute_id), None)


def _seen(state: OrderState, payment: Payment, evidence: Disputed) -> Dispute | None:
    """The dispute as the evidence shows it; None while only its id is known."""
    if evidence.state is None:
        return None
    changed_at = evidence.changed_at or state.now
    return Dispute(
        dispute_id=evidence.dispute_id,
        channel_account=payment.channel_account,
        out_trade_no=payment.out_trade_no,
        order_no=payment.order_no,
        kind=evidence.dispute_kind,
        state=evidence.state,
        opened_at=evidence.opened_at or changed_at,
        changed_at=changed_at,
        amount=evidence.disputed_amount,
        currency=evidence.disputed_currency,
        reason=evidence.dispute_reason,
        outcome=evidence.outcome,
        respond_by=evidence.respond_by,
    )


def _nothing_new(state: OrderState, payment: Payment, evidence: Disputed, by: Source) -> Decision:
    outcome = Outcome.UNCLEAR if evidence.state is None else Outcome.NOTHING_NEW
    note = f"{evidence.dispute_kind} {evidence.dispute_id}: {evidence.state or 'not asked yet'}"
    observation = Observation(order_no=state.order.order_no, kind="disputed_seen", by=by, key=payment.key, note=note)
    return Decision(outcome=outcome, observation=observation)


def _outcome(dispute: Dispute, *, is_left: bool) -> Outcome:
    if dispute.kind is DisputeKind.REFUND and is_left:
        return Outcome.REFUND_FAILED
    return Outcome.DISPUTED if is_left else Outcome.DISPUTE_ENDED


def _notification_type(dispute: Dispute, *, is_left: bool) -> NotificationType | None:
    """None for a refund that reached the buyer another way."""
    if dispute.kind is DisputeKind.REFUND:
        return "order.refund_failed" if is_left else None
    return "order.disputed" if is_left else "order.dispute_ended"


def _reason(dispute: Dispute) -> CaseReason:
    return CaseReason.REFUND_FAILED if dispute.kind is DisputeKind.REFUND else CaseReason.DISPUTED


def _cases(state: OrderState, payment: Payment, dispute: Dispute) -> tuple[Case, ...]:
    reason = _reason(dispute)
    if (payment.key, reason) in state.open_cases:
        return ()
    return (Case(reason=reason, key=payment.key, detail=_note(dispute)),)


def _resolutions(
    state: OrderState, payment: Payment, dispute: Dispute, left: tuple[Dispute, ...]
) -> tuple[CaseResolution, ...]:
    """The case ends with the last dispute of the payment, if that was won or closed; a lost one stays for a person."""
    is_open = (payment.key, CaseReason.DISPUTED) in state.open_cases
    if not is_open or any(_reason(one) is CaseReason.DISPUTED for one in left):
        return ()
    resolution = "won" if dispute.state is DisputeState.WON else "closed"
    return (CaseResolution(reason=CaseReason.DISPUTED, key=payment.key, resolution=resolution),)


def _note(dispute: Dispute) -> Sentence:
    """Return `claim du_1: open, 1250 USD, fraudulent`, without what the channel does not say."""
    return Sentence(
        "{kind} {id}: {facts}",
        kind=Term("dispute_kind.", dispute.kind),
        id=dispute.dispute_id,
        facts=Items(tuple(_facts(dispute))),
    )


def _facts(dispute: Dispute) -> Iterator[str | Term | Phrase]:
    yield Term("dispute_state.", dispute.state)
    if dispute.amount is not None:
        currency = dispute.currency or ""
        yield Phrase("{amount} {currency}", {"amount": Amount(dispute.amount, currency), "currency": currency})
    yield from (word for word in (dispute.reason, dispute.outcome) if word)
    if dispute.respond_by is not None and not dispute.state.is_final:
        at = Moment(dispute.respond_by, dispute.respond_by.isoformat())
        yield Phrase("respond by {at}", {"at": at})
