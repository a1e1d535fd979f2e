"""The decisions: from an order's state and what was learnt to what is to be committed and scheduled. All of them pure.

    place, start_payment          the merchant wants an order, or another attempt to pay it
    on_created, on_create_refused the channel answered the creation of a payment
    on_callback, on_query         evidence, from the channel's own message or from its answer
    on_refresh                    somebody looks: is there anything to ask?
    on_deadline, on_close_*       the order's time is over, or the merchant ends it

Rules that hold in all of them: only evidence moves a payment; amount, currency, account and number are compared on every
kind of evidence, and a mismatch opens a case and never pays; *paid wins*; giving up is not evidence.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from core.backoff import Backoff
from core.decision import Arm, Case, Change, Decision, Event, Observation, Outcome
from core.evidence import Closed, Evidence, Missing, Paid, Refunded, Source, Unclear, Unpaid, kind_of
from core.notice import order_notification
from core.order import (
    CaseReason,
    Checkout,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    Pending,
    PendingKind,
    deadline_key,
)


class LatePolicy(StrEnum):
    """What becomes of the *order* when money arrives after close. The payment is paid and the case open either way."""

    ACCEPT = "accept"
    FLAG = "flag"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision needs to know besides the state: the back-off and the margin of the deployment, the account's policy.

    `payable_margin_s` is how long after `payable_until` a channel may still report money.
    """

    backoff: Backoff = Backoff()
    payable_margin_s: float = 300.0
    late_policy: LatePolicy = LatePolicy.ACCEPT


class OrderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the merchant asks for. Two requests with equal terms are the same order."""

    order_no: str
    amount: int
    currency: str
    subject: str
    notify_url: str | None = None
    return_url: str | None = None
    metadata: dict[str, str] = {}


class PaymentTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How it is to be paid. A watched payment brings its number, and may bring what to query by and until when."""

    account: str
    method: str = ""
    out_trade_no: str
    origin: Origin = Origin.OURS
    channel_reference: str | None = None
    payable_until: datetime | None = None


# -- placing and starting ----------------------------------------------------------------------------------------------


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
    """Another attempt to pay. The flow has queried the earlier ones; `unclear` are those that the channel did not tell.

    A user who has paid is never asked again: paid → nothing is started; unclear → refused; same account and method →
    the open payment is used again.
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
        order=_next(
            order,
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
    """The channel created the payment: keep what the user needs to pay. From now on the public reads *processing*."""
    payment = state.payment(key)
    if payment is None or payment.checkout is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    created = replace(
        payment,
        checkout=checkout,
        channel_reference=channel_reference or payment.channel_reference,
        payable_until=payable_until or payment.payable_until,
        refused_at=None,
    )
    change = Change(
        order=_next(state.order, handed_off_at=state.order.handed_off_at or state.now),
        event=Event(kind=Outcome.HANDED_OFF, by=Source.API, key=key),
        payments=(created,),
    )
    return Decision(outcome=Outcome.HANDED_OFF, change=change)


def on_create_refused(state: OrderState, key: PaymentKey, code: str) -> Decision:
    """The channel refused to create it. Only together with a verified *missing* does that end the payment."""
    payment = state.payment(key)
    if payment is None or payment.refused_at is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=_next(state.order),
        event=Event(kind=Outcome.CREATE_REFUSED, by=Source.API, key=key, note=code),
        payments=(replace(payment, refused_at=state.now),),
    )
    return Decision(outcome=Outcome.CREATE_REFUSED, change=change, ask=(key,))


# -- evidence ----------------------------------------------------------------------------------------------------------


def on_callback(
    state: OrderState, key: PaymentKey, evidence: Evidence, rules: Rules, by: Source, *, claimed: bool = False
) -> Decision:
    """Evidence that the channel sent by itself (and that the account trusts), or a mismatch that it shows.

    `claimed`: the database has refused the move, because another payment of this account has this very channel
    transaction. Two orders that claim one channel payment are a case, never two paid orders.
    """
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.NOTHING_NEW)
    if claimed:
        detail = f"transaction {evidence.channel_transaction_id}"
        return _open_case(state, payment, evidence, by, CaseReason.TRANSACTION_CLAIMED_TWICE, detail)
    return _on_evidence(state, payment, evidence, rules, by)


def on_query(
    state: OrderState,
    key: PaymentKey,
    evidence: Evidence,
    rules: Rules,
    by: Source,
    *,
    arm_no: int | None = None,
    claimed: bool = False,
) -> Decision:
    """The answer to a query. `arm_no` is given by a scheduled query, which alone advances the attempt.

    A payment that is still open although its order is resolved (another payment paid it) is to be closed at its channel.
    """
    decision = on_callback(state, key, evidence, rules, by, claimed=claimed)
    payment, row = state.payment(key), state.pending_of(key)
    if payment is not None and _is_left_over(state, payment, decision):
        decision = replace(decision, close=(key,))
    if arm_no is None or row is None or row.arm_no != arm_no:
        return decision
    if decision.change is not None and key in decision.change.resolved:
        return decision
    if key in decision.drop:
        return decision
    return _next_attempt(state, row, decision, rules, by)


def on_refresh(state: OrderState) -> Decision:
    """Somebody looks: ask about every payment that is still open."""
    ask = tuple(payment.key for payment in state.open_payments())
    return Decision(outcome=Outcome.STILL_OPEN if ask else Outcome.NOTHING_NEW, ask=ask)


def mismatch(payment: Payment, evidence: Evidence) -> tuple[CaseReason, str] | None:
    """The first difference between what we asked to be paid and what the evidence speaks of, or None."""
    if evidence.channel_account != payment.channel_account:
        return CaseReason.ACCOUNT_MISMATCH, f"evidence of {evidence.channel_account}"
    if evidence.out_trade_no != payment.out_trade_no:
        return CaseReason.NUMBER_MISMATCH, f"evidence of {evidence.out_trade_no}"
    if evidence.currency is not None and evidence.currency != payment.currency:
        return CaseReason.CURRENCY_MISMATCH, f"{evidence.currency} instead of {payment.currency}"
    if evidence.amount is not None and evidence.amount != payment.amount:
        return CaseReason.AMOUNT_MISMATCH, f"{evidence.amount} instead of {payment.amount}"
    return None


def is_definitely_unpaid(payment: Payment, evidence: Evidence, rules: Rules, now: datetime) -> bool:
    """Whether the evidence says that this payment has no money and never will have.

    A verified *missing* or *unpaid* says so only when the channel can no longer take money (`payable_until` and the
    margin have passed, and we have asked it to close), or when the channel had refused to create it.
    """
    match evidence:
        case Closed():
            return True
        case Missing() if payment.refused_at is not None:
            return True
        case Missing() | Unpaid():
            over = now >= payment.payable_until + timedelta(seconds=rules.payable_margin_s)
            return over and (payment.close_attempted_at is not None or payment.origin is Origin.WATCHED)
    return False


def _on_evidence(state: OrderState, payment: Payment, evidence: Evidence, rules: Rules, by: Source) -> Decision:
    found = mismatch(payment, evidence)
    if found is not None:
        return _open_case(state, payment, evidence, by, *found)
    match evidence:
        case Paid() | Refunded():
            return _on_money(state, payment, evidence, rules, by)
        case Unclear(reason=reason):
            return _seen(state, payment, evidence, by, Outcome.UNCLEAR, reason)
    if payment.status is not PaymentStatus.OPEN:
        return _seen(state, payment, evidence, by, Outcome.NOTHING_NEW)
    if is_definitely_unpaid(payment, evidence, rules, state.now):
        return _close_payment(state, payment, evidence, by)
    return _seen(state, payment, evidence, by, Outcome.STILL_OPEN)


def _on_money(state: OrderState, payment: Payment, evidence: Paid | Refunded, rules: Rules, by: Source) -> Decision:
    if payment.status is PaymentStatus.PAID:
        return _on_money_again(state, payment, evidence, by)
    paid = replace(
        payment,
        status=PaymentStatus.PAID,
        channel_transaction_id=evidence.channel_transaction_id,
        paid_at=evidence.at or state.now,
        refunded_amount=evidence.refunded_amount if isinstance(evidence, Refunded) else 0,
    )
    cases = _refund_case(paid)
    match state.order.status:
        case OrderStatus.PAID:
            return _second_payment(state, paid, evidence, by, cases)
        case OrderStatus.CLOSED:
            return _late_payment(state, paid, evidence, rules, by, cases)
    return _pay_order(state, paid, evidence, by, Outcome.PAID, cases, late=False)


def _pay_order(
    state: OrderState,
    paid: Payment,
    evidence: Evidence,
    by: Source,
    outcome: Outcome,
    cases: tuple[Case, ...],
    *,
    late: bool,
) -> Decision:
    """The one place in which an order becomes paid.

    Its other payments are due at once: the query finds them left over, closes them at their channels, and they are
    watched until they are definite.
    """
    order = _next(
        state.order, status=OrderStatus.PAID, paid_by=paid.key, paid_at=paid.paid_at, handed_off_at=_handed_off(state)
    )
    change = Change(
        order=order,
        event=Event(kind=outcome, by=by, key=paid.key, evidence=evidence),
        payments=(paid,),
        resolved=_rows_of(state, paid.key, deadline_key(order.order_no)),
        cases=cases,
        notification=order_notification("order.paid", order, paid, now=state.now, late=late),
    )
    return Decision(outcome=outcome, change=change, rearm=_siblings_now(state, paid.key))


def _late_payment(
    state: OrderState, paid: Payment, evidence: Evidence, rules: Rules, by: Source, cases: tuple[Case, ...]
) -> Decision:
    """Money for a closed order: a case, the merchant hears of it, and the account's policy decides about the order."""
    late = Case(reason=CaseReason.PAID_LATE, key=paid.key, detail=f"policy {rules.late_policy}")
    if rules.late_policy is LatePolicy.ACCEPT:
        return _pay_order(state, paid, evidence, by, Outcome.PAID_LATE, (late, *cases), late=True)
    order = _next(state.order)
    change = Change(
        order=order,
        event=Event(kind=Outcome.PAID_LATE, by=by, key=paid.key, evidence=evidence),
        payments=(paid,),
        resolved=_rows_of(state, paid.key),
        cases=(late, *cases),
        notification=order_notification("order.paid_late", order, paid, now=state.now, late=True),
    )
    return Decision(outcome=Outcome.PAID_LATE, change=change)


def _second_payment(
    state: OrderState, paid: Payment, evidence: Evidence, by: Source, cases: tuple[Case, ...]
) -> Decision:
    """Money for an order that another payment has paid: the order stays as it is, a person decides about the money."""
    double = Case(reason=CaseReason.DOUBLE_PAYMENT, key=paid.key, detail=f"{paid.amount} {paid.currency} came twice")
    order = _next(state.order)
    change = Change(
        order=order,
        event=Event(kind=Outcome.DOUBLE_PAYMENT, by=by, key=paid.key, evidence=evidence),
        payments=(paid,),
        resolved=_rows_of(state, paid.key),
        cases=(double, *cases),
        notification=order_notification("order.double_payment", order, paid, now=state.now, late=False),
    )
    return Decision(outcome=Outcome.DOUBLE_PAYMENT, change=change)


def _on_money_again(state: OrderState, payment: Payment, evidence: Paid | Refunded, by: Source) -> Decision:
    """Money for a payment that is paid: the same money told again, a refund seen, or our number used for other money."""
    if evidence.channel_transaction_id != payment.channel_transaction_id:
        detail = f"paid as {payment.channel_transaction_id} and as {evidence.channel_transaction_id}"
        return _open_case(state, payment, evidence, by, CaseReason.NUMBER_REUSED, detail, Outcome.NUMBER_REUSED)
    if isinstance(evidence, Refunded) and evidence.refunded_amount > payment.refunded_amount:
        refunded = replace(payment, refunded_amount=evidence.refunded_amount)
        change = Change(
            order=_next(state.order),
            event=Event(kind=Outcome.NOTHING_NEW, by=by, key=payment.key, evidence=evidence, note="refund seen"),
            payments=(refunded,),
            cases=_new_cases(state, _refund_case(refunded)),
        )
        return Decision(outcome=Outcome.NOTHING_NEW, change=change)
    return _seen(state, payment, evidence, by, Outcome.NOTHING_NEW)


def _close_payment(state: OrderState, payment: Payment, evidence: Evidence, by: Source) -> Decision:
    """The payment ends without money. The order lives on until its deadline: the user may still pay another way."""
    change = Change(
        order=_next(state.order),
        event=Event(kind=Outcome.PAYMENT_CLOSED, by=by, key=payment.key, evidence=evidence),
        payments=(replace(payment, status=PaymentStatus.CLOSED),),
        resolved=_rows_of(state, payment.key),
    )
    return Decision(outcome=Outcome.PAYMENT_CLOSED, change=change)


def _open_case(
    state: OrderState,
    payment: Payment,
    evidence: Evidence,
    by: Source,
    reason: CaseReason,
    detail: str,
    outcome: Outcome = Outcome.MISMATCH,
) -> Decision:
    """Open the case once; what is told again while it is open only leaves an observation."""
    if (payment.key, reason) in state.open_cases:
        return _seen(state, payment, evidence, by, outcome, f"{reason}: {detail}")
    change = Change(
        order=_next(state.order),
        event=Event(kind=outcome, by=by, key=payment.key, evidence=evidence, note=detail),
        cases=(Case(reason=reason, key=payment.key, detail=detail),),
    )
    return Decision(outcome=outcome, change=change)


def _is_left_over(state: OrderState, payment: Payment, decision: Decision) -> bool:
    """Open, ours, of a resolved order, and its channel has not been asked to close it."""
    return (
        decision.outcome is Outcome.STILL_OPEN
        and state.order.is_resolved
        and payment.status is PaymentStatus.OPEN
        and payment.origin is Origin.OURS
        and payment.close_attempted_at is None
    )


def _next_attempt(state: OrderState, row: Pending, decision: Decision, rules: Rules, by: Source) -> Decision:
    """Re-enqueue: attempt + 1, due in (attempt + 1)² units. After the last one a case opens and it is asked once a day."""
    attempt = row.attempt + 1
    arm = Arm(
        key=row.key,
        kind=row.kind,
        order_no=row.order_no,
        attempt=attempt,
        delay_s=rules.backoff.gap_s(attempt, row.key.out_trade_no),
        expected_arm_no=row.arm_no,
    )
    of_payment = row.key if row.kind is PendingKind.QUERY else None
    if not rules.backoff.is_exhausted(attempt) or (of_payment, CaseReason.ATTEMPTS_EXHAUSTED) in state.open_cases:
        return replace(decision, rearm=(arm,))
    detail = f"{row.attempt} attempts, still not definite"
    case = Case(reason=CaseReason.ATTEMPTS_EXHAUSTED, key=of_payment, detail=detail)
    if decision.change is not None:
        change = replace(decision.change, cases=(*decision.change.cases, case))
        return replace(decision, change=change, rearm=(arm,))
    event = Event(kind=Outcome.EXHAUSTED, by=by, key=of_payment, note=detail)
    change = Change(order=_next(state.order), event=event, cases=(case,))
    return replace(decision, outcome=Outcome.EXHAUSTED, change=change, rearm=(arm,))


# -- closing -----------------------------------------------------------------------------------------------------------


def on_deadline(state: OrderState, rules: Rules, *, arm_no: int | None = None) -> Decision:
    """The order's time is over. Nothing is closed here that its channel has not told to be definite.

    With open payments: `ask` and `close` name them; the flow queries, closes at the channel and queries again, and calls
    this once more with `arm_no`, upon which what is still not definite is tried again after n² units.
    """
    order, row = state.order, state.pending_of(deadline_key(state.order.order_no))
    if order.is_resolved:
        return Decision(outcome=Outcome.NOTHING_NEW, drop=() if row is None else (row.key,))
    if state.now < order.expires_at:
        return Decision(outcome=Outcome.NOT_YET)
    if not state.open_payments():
        return _close_order(state)
    ask = tuple(payment.key for payment in state.open_payments())
    close = tuple(payment.key for payment in state.open_payments() if payment.origin is Origin.OURS)
    if arm_no is None or row is None or row.arm_no != arm_no:
        return Decision(outcome=Outcome.NOT_YET, ask=ask, close=close)
    return _next_attempt(state, row, Decision(outcome=Outcome.NOT_YET, ask=ask, close=close), rules, Source.CLOSE)


def on_close_requested(state: OrderState) -> Decision:
    """The merchant ends an order early: its deadline is now. It closes only as any deadline does, after the channel told."""
    match state.order.status:
        case OrderStatus.PAID:
            return Decision(outcome=Outcome.ALREADY_PAID)
        case OrderStatus.CLOSED:
            return Decision(outcome=Outcome.ALREADY_CLOSED)
    if state.order.expires_at <= state.now:
        return Decision(outcome=Outcome.CLOSE_REQUESTED)
    row = state.pending_of(deadline_key(state.order.order_no))
    arm = Arm(
        key=deadline_key(state.order.order_no),
        kind=PendingKind.DEADLINE,
        order_no=state.order.order_no,
        attempt=1,
        delay_s=0.0,
        expected_arm_no=None if row is None else row.arm_no,
    )
    change = Change(
        order=_next(state.order, expires_at=state.now), event=Event(kind=Outcome.CLOSE_REQUESTED, by=Source.API)
    )
    return Decision(outcome=Outcome.CLOSE_REQUESTED, change=change, rearm=(arm,))


def on_close_attempted(state: OrderState, key: PaymentKey) -> Decision:
    """The channel answered our request to close: from then on a verified *missing* may become definite in time."""
    payment = state.payment(key)
    if payment is None or payment.close_attempted_at is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=_next(state.order),
        event=Event(kind=Outcome.CLOSE_ATTEMPTED, by=Source.CLOSE, key=key),
        payments=(replace(payment, close_attempted_at=state.now),),
    )
    return Decision(outcome=Outcome.CLOSE_ATTEMPTED, change=change)


def _close_order(state: OrderState) -> Decision:
    """Every payment is definite and none has the money."""
    order = _next(state.order, status=OrderStatus.CLOSED, closed_at=state.now)
    change = Change(
        order=order,
        event=Event(kind=Outcome.CLOSED, by=Source.CLOSE),
        resolved=_rows_of(state, deadline_key(order.order_no)),
        notification=order_notification("order.closed", order, None, now=state.now, late=False),
    )
    return Decision(outcome=Outcome.CLOSED, change=change)


# -- small parts -------------------------------------------------------------------------------------------------------


def _next(order: Order, **changes: object) -> Order:
    """The order one version on."""
    return replace(order, version=order.version + 1, **changes)


def _handed_off(state: OrderState) -> datetime:
    return state.order.handed_off_at or state.now


def _terms_of(order: Order) -> OrderTerms:
    return OrderTerms(**{name: getattr(order, name) for name in OrderTerms.__struct_fields__})


def _same_first_payment(state: OrderState, wanted: PaymentTerms | None) -> bool:
    """A replay names the first payment's account, method and origin; a watched payment's number belongs to the terms."""
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
        payable_until=terms.payable_until or order.expires_at,
        created_at=now,
        method=terms.method,
        origin=terms.origin,
        channel_reference=terms.channel_reference,
    )


def _first_query(payment: Payment, rules: Rules) -> Arm:
    attempt = rules.backoff.first_attempt
    return Arm(
        key=payment.key,
        kind=PendingKind.QUERY,
        order_no=payment.order_no,
        attempt=attempt,
        delay_s=rules.backoff.gap_s(attempt, payment.out_trade_no),
    )


def _rows_of(state: OrderState, *keys: PaymentKey) -> tuple[PaymentKey, ...]:
    return tuple(row.key for row in state.pending if row.key in keys)


def _siblings_now(state: OrderState, paid: PaymentKey) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            key=row.key,
            kind=row.kind,
            order_no=row.order_no,
            attempt=row.attempt,
            delay_s=0.0,
            expected_arm_no=row.arm_no,
        )
        for row in state.pending
        if row.kind is PendingKind.QUERY and row.key != paid
    )


def _refund_case(payment: Payment) -> tuple[Case, ...]:
    if payment.refunded_amount == 0:
        return ()
    detail = f"{payment.refunded_amount} of {payment.amount} {payment.currency} refunded at the channel"
    return (Case(reason=CaseReason.REFUNDED_OUTSIDE, key=payment.key, detail=detail),)


def _new_cases(state: OrderState, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    return tuple(case for case in cases if (case.key, case.reason) not in state.open_cases)


def _seen(
    state: OrderState, payment: Payment, evidence: Evidence, by: Source, outcome: Outcome, note: str = ""
) -> Decision:
    seen = Observation(
        order_no=state.order.order_no, kind=f"{kind_of(evidence)}_seen", by=by, key=payment.key, note=note
    )
    return Decision(outcome=outcome, observation=seen)
