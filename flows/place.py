"""Place an order and start its payments: arm before you call.

The pending row is committed before the channel creates the payment, so whatever happens between the two, the delayed
query knows of it. A replay of the request whose checkout is still empty creates again: our number is the channel's
idempotency key.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from secrets import token_bytes, token_urlsafe

import structlog
from msgspec import Struct

from channels.base import NO_PAYER, Payer
from core import lifecycle
from core.admission import Urgency
from core.decision import Decision, Outcome
from core.errors import (
    ChannelRefused,
    InvalidRequest,
    NotFound,
    NumberTaken,
    OrderClosed,
    OrderConflict,
    OrderPaid,
    OutcomeUnknown,
    PaymentRefused,
    PaymentUnclear,
)
from core.evidence import Source
from core.lifecycle import OrderTerms, PaymentTerms, place
from core.order import OrderState, Origin, Payment, PaymentKey, PaymentStatus
from flows.ask import NoLease, QueryResult, query_now, wait_for_lease
from flows.channel_call import Deferred
from flows.commit import commit_decision, commit_new
from flows.create import create_at_channel
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.door.transition import Committed
from storage.postgres.orders import find_now, find_state
from storage.postgres.payments import find_payments_by_ids

log = structlog.get_logger()


class Watch(Struct, frozen=True, kw_only=True):
    """A payment created elsewhere: its number, what to query by if not by that, and until when it can be paid."""

    out_trade_no: str
    channel_reference: str | None = None
    payable_until: datetime | None = None


class PaymentRequest(Struct, frozen=True, kw_only=True):
    """The merchant's request for a payment. `payer` is passed to the channel and stored nowhere."""

    account: str
    method: str = ""
    payer: Payer = NO_PAYER
    watch: Watch | None = None


class Placed(Struct, frozen=True, kw_only=True):
    """The order as it is now, and whether it is new."""

    state: OrderState
    outcome: Outcome


async def place_order(
    resources: Resources, order: OrderTerms, payment: PaymentRequest | None, *, expires_in_s: float | None
) -> Placed:
    """Place the order, or find it: the order number is the idempotency key.

    Raises:
        OrderConflict: there is an order with this number and other terms.
        InvalidRequest, UnknownAccount, NumberTaken, PaymentRefused: about the payment.
    """
    account = None if payment is None else await resources.accounts.get_enabled(payment.account)
    terms = None if payment is None or account is None else _terms(payment, account)
    await _check_watch(resources, terms)
    now = await find_now(resources.db)
    expires_at = now + timedelta(seconds=expires_in_s or resources.settings.order_expires_s)
    rules = resources.rules if account is None else account.rules
    page_token = token_urlsafe(16)

    def decide(state: OrderState | None) -> Decision:
        return place(order, terms, state, rules, now=now, expires_at=expires_at, page_token=page_token)

    committed = await commit_new(resources, order.order_no, decide)
    if committed.decision.outcome is Outcome.OTHER_TERMS:
        raise OrderConflict(f"order {order.order_no} exists with other terms")
    state = await _create_checkout(resources, committed, account, payment)
    return Placed(state=state, outcome=committed.decision.outcome)


async def start_payment(resources: Resources, order_no: str, payment: PaymentRequest) -> Placed:
    """Start another payment of an order. Earlier ones are queried first, so that nobody pays twice.

    Raises:
        NotFound, OrderPaid, OrderClosed: the order cannot be paid this way.
        PaymentUnclear: an earlier payment may have the money, and its channel gives no clear result.
        InvalidRequest, UnknownAccount, NumberTaken, PaymentRefused: about the payment.
    """
    account = await resources.accounts.get_enabled(payment.account)
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(f"order {order_no}")
    unclear = await _query_earlier(resources, state)
    terms = _terms(payment, account)
    await _check_watch(resources, terms)
    decide = partial(lifecycle.start_payment, terms=terms, rules=account.rules, unclear=unclear)
    committed = await commit_decision(resources, order_no, decide)
    match committed.decision.outcome:
        case Outcome.ALREADY_PAID:
            raise OrderPaid(f"order {order_no} is paid")
        case Outcome.ALREADY_CLOSED:
            raise OrderClosed(f"order {order_no} has ended")
        case Outcome.UNCLEAR:
            raise PaymentUnclear(f"order {order_no} has a payment that may have been paid")
    state = await _create_checkout(resources, committed, account, payment)
    return Placed(state=state, outcome=committed.decision.outcome)


async def _query_earlier(resources: Resources, state: OrderState) -> tuple[PaymentKey, ...]:
    """Query every open payment. Returns those of which the channel does not say that they are unpaid."""
    unclear = []
    for payment in state.open_payments():
        account = await resources.accounts.get(payment.channel_account)
        leased = await wait_for_lease(resources, payment.key, resources.settings.callback_confirm_s)
        if isinstance(leased, NoLease):
            unclear.append(payment.key)
            continue
        result = await query_now(resources, account, payment, by=Source.API, urgency=Urgency.FRESH, leased=leased)
        if not isinstance(result, QueryResult) or not lifecycle.is_verified_unpaid(payment, result.evidence):
            unclear.append(payment.key)
    return tuple(unclear)


async def _create_checkout(
    resources: Resources, placed: Committed, account: Account | None, payment: PaymentRequest | None
) -> OrderState:
    """Create the payment at its channel if it has no checkout yet. If the outcome is unknown, it is queried later."""
    state = placed.state_after
    if state is None:
        raise NotFound
    row = None if payment is None else _to_create(state, payment)
    if account is None or payment is None or row is None:
        return state
    try:
        after = await create_at_channel(resources, account, state, row, payment.payer)
    except ChannelRefused as refused:
        await _confirm_refusal(resources, account, row)
        raise PaymentRefused(f"the channel refused the payment: {refused.code}") from None
    except OutcomeUnknown as error:
        reason = error.detail or "unknown"
        log.warning("payment_create_unknown", order_no=row.order_no, out_trade_no=row.out_trade_no, reason=reason)
        return state
    if isinstance(after, Deferred):
        log.warning("payment_create_waits", order_no=row.order_no, account=account.config.name, reason=after.reason)
        return state
    return after


async def _confirm_refusal(resources: Resources, account: Account, row: Payment) -> None:
    """Query a refused payment: the refusal ends it once the channel does not know it."""
    leased = await pending.claim(resources.db, row.key, resources.settings.lease_s)
    state = await find_state(resources.db, row.order_no)
    refused = None if state is None else state.payment(row.key)
    if leased is not None and refused is not None:
        await query_now(resources, account, refused, by=Source.API, urgency=Urgency.FRESH, leased=leased)


def _to_create(state: OrderState, payment: PaymentRequest) -> Payment | None:
    """The newest payment of this request that is ours, open, not refused, and has no checkout yet."""
    rows = [
        row
        for row in state.payments
        if (row.channel_account, row.method, row.origin) == (payment.account, payment.method, Origin.OURS)
        and row.status is PaymentStatus.OPEN
        and row.checkout is None
        and row.refused_at is None
    ]
    return rows[-1] if rows and not state.order.is_resolved else None


async def _check_watch(resources: Resources, terms: PaymentTerms | None) -> None:
    """Check that a payment to be watched is not known here already, by any of its ids.

    Raises:
        NumberTaken: it is one of ours, or another order watches it.
    """
    if terms is None or terms.origin is not Origin.WATCHED:
        return
    ids = {terms.out_trade_no, terms.channel_reference or terms.out_trade_no}
    found = await find_payments_by_ids(resources.db, terms.account, ids)
    known = {payment.key for payment in found.values()}
    if known and PaymentKey(terms.account, terms.out_trade_no) not in known:
        raise NumberTaken("a payment with this channel_reference is already known at this account")


def _terms(payment: PaymentRequest, account: Account) -> PaymentTerms:
    """Terms of the payment, checked against the account's channel.

    Raises:
        InvalidRequest: its channel does not know the method, or cannot query the watched payment.
    """
    channel = account.channel
    if payment.method not in ("", *channel.methods):
        raise InvalidRequest(f"method is none of those of {account.config.channel}: {', '.join(channel.methods)}")
    if payment.watch is not None and payment.watch.channel_reference is None and channel.queries_by_reference:
        raise InvalidRequest(f"watch.channel_reference is missing: {account.config.channel} is queried by its own id")
    if payment.watch is not None and channel.watched_number.fullmatch(payment.watch.out_trade_no) is None:
        raise InvalidRequest(f"watch.out_trade_no has not the form of numbers at {account.config.channel}")
    if payment.watch is None:
        return PaymentTerms(account=payment.account, method=payment.method, out_trade_no=new_number())
    return PaymentTerms(
        account=payment.account,
        method=payment.method,
        out_trade_no=payment.watch.out_trade_no,
        origin=Origin.WATCHED,
        channel_reference=payment.watch.channel_reference,
        payable_until=payment.watch.payable_until,
    )


def new_number() -> str:
    """A number for the channel, unique for ever: 12 hex digits of milliseconds (so that they sort), 16 of chance.

    28 characters of [0-9a-f] fit every channel's rules: WeChat Pay takes 6 to 32, Alipay 64.
    """
    return f"{int(time.time() * 1000):012x}{token_bytes(8).hex()}"
