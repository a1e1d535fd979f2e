"""An order is placed, another payment is started, and the channel responds to the creation of a payment."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from core.checkout import NO_PAYER, Payer
from core.decision import Arm, Change, Decision, Event, Outcome
from core.evidence import Source
from core.lifecycle.capturing import Queried, is_claimed
from core.lifecycle.returning import handed_again
from core.lifecycle.rules import OrderTerms, PaymentTerms, Rules
from core.order import (
    PAYABLE_MAX,
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


def place(
    terms: OrderTerms,
    payment: PaymentTerms | None,
    existing: OrderState | None,
    rules: Rules,
    *,
    now: datetime,
    expires_at: datetime,
    page_token: str,
    payer: Payer = NO_PAYER,
) -> Decision:
    """Insert the order with its first payment and their pending rows: armed before the channel is called.

    `payer` is the one that the buyer's own payments, started on the order's page, may need.
    """
    if existing is not None and other_terms(existing, terms, payment):
        return Decision(outcome=Outcome.OTHER_TERMS)
    if existing is not None:
        again = None if payment is None else handed_again(existing, None, Outcome.SAME, Source.API)
        return Decision(outcome=Outcome.SAME, change=again)
    order = Order(
        **msgspec.structs.asdict(terms),
        status=OrderStatus.CREATED if payment is None else OrderStatus.PAYING,
        version=1,
        page_token=page_token,
        created_at=now,
        expires_at=expires_at,
        handed_off_at=now if payment is not None and payment.origin is Origin.WATCHED else None,
        payer=None if payer == NO_PAYER else payer,
    )
    deadline = Arm(
        key=deadline_key(order.order_no),
        kind=PendingKind.DEADLINE,
        order_no=order.order_no,
        attempt=1,
        at=expires_at,
    )
    started = () if payment is None else (new_payment(order, payment, 1, now),)
    return Decision(
        outcome=Outcome.PLACED,
        change=Change(
            order=order,
            event=Event(kind=Outcome.PLACED, by=Source.API, key=started[0].key if started else None),
            is_new=True,
            new_payments=started,
            arm=(deadline, *(first_query(row, rules) for row in started)),
        ),
    )


def other_terms(existing: OrderState, terms: OrderTerms, payment: PaymentTerms | None) -> tuple[str, ...]:
    """Names of the terms in which a request differs from the order with its number; none: it is the same request.

    A replay may leave the payment out, or name the first one's account, method, origin, and number if it is watched.
    """
    order, names = existing.order, OrderTerms.__struct_fields__
    others = tuple(name for name in names if getattr(order, name) != getattr(terms, name))
    first = next((row for row in existing.payments if row.attempt_no == 1), None)
    if payment is None:
        return others
    if first is None:
        return *others, "account"
    named = {
        "account": first.channel_account == payment.account,
        "method": first.method == payment.method,
        "watch": first.origin is payment.origin,
        "watch.out_trade_no": payment.origin is Origin.OURS or first.out_trade_no == payment.out_trade_no,
    }
    return others + tuple(name for name, is_same in named.items() if not is_same)


def start_payment(
    state: OrderState,
    terms: PaymentTerms,
    rules: Rules,
    *,
    unclear: tuple[PaymentKey, ...] = (),
    queried: Queried | None = None,
) -> Decision:
    """Start another payment. The flow has queried the earlier ones: `unclear` are those without a clear result,
    `queried` the others. One that was started meanwhile is in neither, and may be paid: the version shows it here.

    Test money pays no order that real money is on its way to, nor the reverse: nothing is started.

    Nobody pays twice: paid → nothing is started; unclear, or captured meanwhile → refused; same account and method →
    the open payment is used again. If its checkout has ended, or is another payer's, the decision names it in `close`:
    a new number must wait until it is definite. One that takes money only on our capture is given up instead, with
    every payment whose capture was refused.
    """
    order = state.order
    if order.status is OrderStatus.PAID:
        return Decision(outcome=Outcome.ALREADY_PAID)
    if order.status is OrderStatus.CLOSED or state.now >= order.expires_at:
        return Decision(outcome=Outcome.ALREADY_CLOSED)
    if state.is_other_world(terms.live):
        return Decision(outcome=Outcome.OTHER_WORLD)
    same = open_payment(state, terms)
    if same is not None and not is_checkout_over(same, terms.payer, state.now):
        return Decision(outcome=Outcome.REUSED, change=handed_again(state, same.key, Outcome.REUSED, Source.API))
    if any(row.key in unclear or _may_be_paid(row, queried) for row in state.open_payments()):
        return Decision(outcome=Outcome.UNCLEAR, change=handed_again(state, None, Outcome.UNCLEAR, Source.API))
    if same is not None and not rules.checkouts.needs_capture:
        return Decision(outcome=Outcome.CHECKOUT_ENDED, close=(same.key,))
    payment, given_up = new_payment(order, terms, 1 + len(state.payments), state.now), _given_up(state, same)
    note = ", ".join(row.out_trade_no for row in given_up)
    change = Change(
        order=order.next_version(
            status=OrderStatus.PAYING,
            handed_off_at=state.now if terms.origin is Origin.WATCHED else order.handed_off_at,
        ),
        event=Event(kind=Outcome.STARTED, by=Source.API, key=payment.key, note=f"gives up {note}" if note else ""),
        new_payments=(payment,),
        payments=given_up,
        arm=(first_query(payment, rules),),
    )
    return Decision(outcome=Outcome.STARTED, change=change)


def open_payment(state: OrderState, terms: PaymentTerms) -> Payment | None:
    """The newest open payment of this account and method that is not given up; a watched one by its number."""
    rows = [
        row
        for row in state.open_payments()
        if (row.channel_account, row.method, row.origin) == (terms.account, terms.method, terms.origin)
        and (terms.origin is Origin.OURS or row.out_trade_no == terms.out_trade_no)
        and row.given_up_at is None
    ]
    return rows[-1] if rows else None


def is_checkout_over(payment: Payment, payer: Payer, now: datetime) -> bool:
    """Whether this payer cannot use the payment: creation was refused, its checkout has ended or is another payer's."""
    is_anothers = payment.payer is not None and payer not in (NO_PAYER, payment.payer)
    return payment.refused_at is not None or is_anothers or _has_ended(payment, now)


def on_created(
    state: OrderState,
    key: PaymentKey,
    *,
    checkout: Checkout,
    channel_reference: str | None,
    payable_until: datetime | None,
    checkout_ends_at: datetime | None = None,
) -> Decision:
    """The channel created the payment: store its checkout. From now on the page shows *processing*.

    After the end of a checkout the same number may have been given a fresh one. `checkout_ends_at` None: it works as
    long as the payment can be paid.
    """
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    is_in_use = payment.checkout is not None and not _has_ended(payment, state.now)
    if is_in_use or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    until = payment.payable_until if payable_until is None else _bounded(payable_until, state.now)
    created = replace(
        payment,
        checkout=checkout,
        checkout_ends_at=min(checkout_ends_at or until, until),
        channel_reference=channel_reference or payment.channel_reference,
        payable_until=until,
        refused_at=None,
    )
    outcome = Outcome.HANDED_OFF if payment.checkout is None else Outcome.CHECKOUT_RENEWED
    change = Change(
        order=state.order.next_version(handed_off_at=state.order.handed_off_at or state.now),
        event=Event(kind=outcome, by=Source.API, key=key),
        payments=(created,),
    )
    return Decision(outcome=outcome, change=change)


def on_create_refused(state: OrderState, key: PaymentKey, code: str) -> Decision:
    """The channel refused to create it. Only together with a verified *missing* does that end the payment.

    The refusal of a fresh checkout says nothing about the payment that is there.
    """
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    is_known = payment.refused_at is not None or payment.checkout is not None
    if is_known or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.CREATE_REFUSED, by=Source.API, key=key, note=code),
        payments=(replace(payment, refused_at=state.now),),
    )
    return Decision(outcome=Outcome.CREATE_REFUSED, change=change)


def new_payment(order: Order, terms: PaymentTerms, attempt_no: int, now: datetime) -> Payment:
    return Payment(
        channel_account=terms.account,
        out_trade_no=terms.out_trade_no,
        order_no=order.order_no,
        attempt_no=attempt_no,
        amount=order.amount,
        currency=order.currency,
        status=PaymentStatus.OPEN,
        payable_until=_bounded(_end(terms, order, now), now),
        created_at=now,
        method=terms.method,
        origin=terms.origin,
        channel_reference=terms.channel_reference,
        payer=None if terms.payer == NO_PAYER else terms.payer,
        live=terms.live,
    )


def _may_be_paid(row: Payment, queried: Queried | None) -> bool:
    """Whether a payment was captured or started after the earlier ones were queried."""
    return queried is not None and (row.key not in queried or is_claimed(row, queried))


def _given_up(state: OrderState, same: Payment | None) -> tuple[Payment, ...]:
    """Payments that are never captured from now on: the one that is replaced, and those whose capture was refused."""
    return tuple(
        replace(row, given_up_at=state.now)
        for row in state.open_payments()
        if row.given_up_at is None and (row is same or row.capture_refused_at is not None)
    )


def _has_ended(payment: Payment, now: datetime) -> bool:
    return payment.checkout_ends_at is not None and now >= payment.checkout_ends_at


def _end(terms: PaymentTerms, order: Order, now: datetime) -> datetime:
    """The last moment for money: of a payment of ours the order's, of a watched one never a guess by the order's."""
    if terms.payable_until is not None or terms.origin is Origin.OURS:
        return terms.payable_until or order.expires_at
    return now + (terms.longest_window or PAYABLE_MAX)


def _bounded(payable_until: datetime, now: datetime) -> datetime:
    return min(max(payable_until, now), now + PAYABLE_MAX)


def first_query(payment: Payment, rules: Rules) -> Arm:
    attempt = rules.backoff.first_attempt
    return Arm(
        key=payment.key,
        kind=PendingKind.QUERY,
        order_no=payment.order_no,
        attempt=attempt,
        delay_s=rules.backoff.gap_s(attempt, payment.out_trade_no),
    )
