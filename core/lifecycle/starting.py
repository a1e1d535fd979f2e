"""An order is placed, another payment is started, and the channel responds to the creation of a payment."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from core.decision import Arm, Change, Decision, Event, Outcome
from core.evidence import Source
from core.lifecycle.rules import OrderTerms, PaymentTerms, Rules
from core.order import (
    Checkout,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    deadline_key,
)

PAYABLE_MAX = timedelta(days=3650)
"""The longest time to pay. Without it a year 9999 could be a year 10000 in UTC, which Python cannot read."""


def place(
    terms: OrderTerms,
    payment: PaymentTerms | None,
    existing: OrderState | None,
    rules: Rules,
    *,
    now: datetime,
    expires_at: datetime,
    page_token: str,
) -> Decision:
    """Insert the order with its first payment and their pending rows: armed before the channel is called."""
    if existing is not None:
        same = _terms_of(existing.order) == terms and _same_first_payment(existing, payment)
        return Decision(outcome=Outcome.SAME if same else Outcome.OTHER_TERMS)
    order = Order(
        **msgspec.structs.asdict(terms),
        status=OrderStatus.CREATED if payment is None else OrderStatus.PAYING,
        version=1,
        page_token=page_token,
        created_at=now,
        expires_at=expires_at,
        handed_off_at=now if payment is not None and payment.origin is Origin.WATCHED else None,
    )
    deadline = Arm(
        key=deadline_key(order.order_no),
        kind=PendingKind.DEADLINE,
        order_no=order.order_no,
        attempt=1,
        at=expires_at,
    )
    started = () if payment is None else (_new_payment(order, payment, 1, now),)
    return Decision(
        outcome=Outcome.PLACED,
        change=Change(
            order=order,
            event=Event(kind=Outcome.PLACED, by=Source.API, key=started[0].key if started else None),
            is_new=True,
            new_payments=started,
            arm=(deadline, *(_first_query(row, rules) for row in started)),
        ),
    )


def start_payment(
    state: OrderState, terms: PaymentTerms, rules: Rules, *, unclear: tuple[PaymentKey, ...] = ()
) -> Decision:
    """Start another payment. The flow has queried the earlier ones; `unclear` are those without a clear result.

    Nobody pays twice: paid → nothing is started; unclear → refused; same account and method → the open payment is used
    again.
    """
    order = state.order
    if order.status is OrderStatus.PAID:
        return Decision(outcome=Outcome.ALREADY_PAID)
    if order.status is OrderStatus.CLOSED or state.now >= order.expires_at:
        return Decision(outcome=Outcome.ALREADY_CLOSED)
    for row in state.open_payments():
        wanted = terms.out_trade_no if terms.origin is Origin.WATCHED else row.out_trade_no
        same = (row.channel_account, row.method, row.origin) == (terms.account, terms.method, terms.origin)
        if same and row.out_trade_no == wanted and row.refused_at is None:
            return Decision(outcome=Outcome.REUSED)
    if any(row.key in unclear for row in state.open_payments()):
        return Decision(outcome=Outcome.UNCLEAR)
    payment = _new_payment(order, terms, 1 + len(state.payments), state.now)
    change = Change(
        order=order.next_version(
            status=OrderStatus.PAYING,
            handed_off_at=state.now if terms.origin is Origin.WATCHED else order.handed_off_at,
        ),
        event=Event(kind=Outcome.STARTED, by=Source.API, key=payment.key),
        new_payments=(payment,),
        arm=(_first_query(payment, rules),),
    )
    return Decision(outcome=Outcome.STARTED, change=change)


def on_created(
    state: OrderState,
    key: PaymentKey,
    *,
    checkout: Checkout,
    channel_reference: str | None,
    payable_until: datetime | None,
) -> Decision:
    """The channel created the payment: store its checkout. From now on the page shows *processing*."""
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    if payment.checkout is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    created = replace(
        payment,
        checkout=checkout,
        channel_reference=channel_reference or payment.channel_reference,
        payable_until=payment.payable_until if payable_until is None else _bounded(payable_until, state.now),
        refused_at=None,
    )
    change = Change(
        order=state.order.next_version(handed_off_at=state.order.handed_off_at or state.now),
        event=Event(kind=Outcome.HANDED_OFF, by=Source.API, key=key),
        payments=(created,),
    )
    return Decision(outcome=Outcome.HANDED_OFF, change=change)


def on_create_refused(state: OrderState, key: PaymentKey, code: str) -> Decision:
    """The channel refused to create it. Only together with a verified *missing* does that end the payment."""
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    if payment.refused_at is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.CREATE_REFUSED, by=Source.API, key=key, note=code),
        payments=(replace(payment, refused_at=state.now),),
    )
    return Decision(outcome=Outcome.CREATE_REFUSED, change=change)


def _terms_of(order: Order) -> OrderTerms:
    return OrderTerms(**{name: getattr(order, name) for name in OrderTerms.__struct_fields__})


def _same_first_payment(state: OrderState, wanted: PaymentTerms | None) -> bool:
    """A replay names the first payment's account, method and origin, and the number if that payment is watched."""
    first = next((row for row in state.payments if row.attempt_no == 1), None)
    if first is None or wanted is None:
        return wanted is None or first is not None
    if (first.channel_account, first.method, first.origin) != (wanted.account, wanted.method, wanted.origin):
        return False
    return wanted.origin is Origin.OURS or wanted.out_trade_no == first.out_trade_no


def _new_payment(order: Order, terms: PaymentTerms, attempt_no: int, now: datetime) -> Payment:
    return Payment(
        channel_account=terms.account,
        out_trade_no=terms.out_trade_no,
        order_no=order.order_no,
        attempt_no=attempt_no,
        amount=order.amount,
        currency=order.currency,
        status=PaymentStatus.OPEN,
        payable_until=_bounded(terms.payable_until or order.expires_at, now),
        created_at=now,
        method=terms.method,
        origin=terms.origin,
        channel_reference=terms.channel_reference,
    )


def _bounded(payable_until: datetime, now: datetime) -> datetime:
    return min(max(payable_until, now), now + PAYABLE_MAX)


def _first_query(payment: Payment, rules: Rules) -> Arm:
    attempt = rules.backoff.first_attempt
    return Arm(
        key=payment.key,
        kind=PendingKind.QUERY,
        order_no=payment.order_no,
        attempt=attempt,
        delay_s=rules.backoff.gap_s(attempt, payment.out_trade_no),
    )
