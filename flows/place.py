"""Place an order and start its payments: arm before you call.

The pending row is committed before the channel creates the payment, so whatever happens between the two, the delayed
query knows of it. A replay of the request whose checkout is still empty creates again: our number is the channel's
idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from secrets import token_bytes, token_urlsafe

from msgspec import Struct

from channels.base import Channel
from core import lifecycle
from core.admission import Urgency
from core.checkout import NO_PAYER, Payer
from core.decision import Decision, Outcome
from core.errors import (
    InvalidRequest,
    NotFound,
    NumberTaken,
    OrderClosed,
    OrderConflict,
    OrderPaid,
    PaymentUnclear,
    UnknownAccount,
)
from core.evidence import Source
from core.lifecycle import OrderTerms, PaymentTerms, Queried, place
from core.lifecycle.capturing import NOTHING_QUERIED
from core.order import OrderState, Origin, PaymentKey
from flows.ask import NoLease, QueryResult, query_now, wait_for_lease
from flows.capture import capture_if_due
from flows.checkout import create_checkout, renew_checkout
from flows.choice import check_choice, is_other_world
from flows.close import close_payment
from flows.commit import commit_decision, commit_new
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.door.transition import Committed
from storage.postgres.orders import find_now, find_state
from storage.postgres.payments import find_payments_by_ids


class Watch(Struct, frozen=True, kw_only=True):
    """A payment created elsewhere: its number, what to query by if not by that, and until when it can be paid."""

    out_trade_no: str
    channel_reference: str | None = None
    payable_until: datetime | None = None


class PaymentRequest(Struct, frozen=True, kw_only=True):
    """A request for a payment. Of `payer`, what the method needs is kept while the payment is open.

    `urgency` of the channel's calls: the merchant's have a share of the account's rate.
    """

    account: str
    method: str = ""
    payer: Payer = NO_PAYER
    watch: Watch | None = None
    urgency: Urgency = Urgency.FRESH


class Placed(Struct, frozen=True, kw_only=True):
    """The order as it is now, and whether it is new."""

    state: OrderState
    outcome: Outcome


async def place_order(
    resources: Resources,
    order: OrderTerms,
    payment: PaymentRequest | None,
    *,
    expires_in_s: float | None,
    payer: Payer = NO_PAYER,
) -> Placed:
    """Place the order, or find it: the order number is the idempotency key. `payer` is the one of the order's page.

    Raises:
        OrderConflict: there is an order with this number and other terms.
        InvalidRequest, UnknownAccount, NumberTaken, PaymentRefused: about the payment.
        PaymentUnclear: the checkout of the order's payment has ended, and there is no other one yet.
    """
    await check_choice(resources, order.accounts or (), order.currency)
    account = None if payment is None else await resources.accounts.get_enabled(payment.account)
    now = resources.clock.of_postgres() or await find_now(resources.db)
    terms = None if payment is None or account is None else _terms(payment, account, now)
    await _check_watch(resources, terms)
    expires_at = now + timedelta(seconds=expires_in_s or resources.settings.order_expires_s)
    rules = resources.rules if account is None else account.rules
    page_token = token_urlsafe(16)

    def decide(state: OrderState | None) -> Decision:
        return place(order, terms, state, rules, now=now, expires_at=expires_at, page_token=page_token, payer=payer)

    committed = await commit_new(resources, order.order_no, decide)
    outcome, state = committed.decision.outcome, committed.state_after
    if outcome is Outcome.OTHER_TERMS and state is not None:
        names = ", ".join(lifecycle.other_terms(state, order, terms))
        raise OrderConflict(f"order {order.order_no} exists with other terms: {names}")
    if state is not None and account is not None and terms is not None:
        is_repeated = outcome is Outcome.SAME and _is_checkout_over(state, terms)
        state = await (_restart if is_repeated else create_checkout)(resources, state, account, terms)
    if state is None:
        raise NotFound
    return Placed(state=state, outcome=outcome)


async def start_payment(resources: Resources, order_no: str, payment: PaymentRequest) -> Placed:
    """Start another payment of an order. Earlier ones are queried first, so that nobody pays twice.

    Raises:
        NotFound, OrderPaid, OrderClosed: the order cannot be paid this way.
        PaymentUnclear: an earlier payment may have the money, and its channel gives no clear result; or its checkout
            has ended, and it can still be paid.
        InvalidRequest, UnknownAccount, NumberTaken, PaymentRefused: about the payment; one that moves test money is
            not started for an order about real money, nor the reverse.
    """
    account = await resources.accounts.get_enabled(payment.account)
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(f"order {order_no}")
    terms = _terms(payment, account, state.now)
    if not state.order.is_resolved and await is_other_world(resources, state, account):
        raise _other_world(terms)
    await _check_watch(resources, terms)
    return await _start(resources, state, account, terms, payment.urgency)


async def _start(
    resources: Resources, state: OrderState, account: Account, terms: PaymentTerms, urgency: Urgency = Urgency.FRESH
) -> Placed:
    """Query the earlier payments, then decide. A checkout that has ended is renewed under the same number, or its
    payment is closed, and only then a new number is taken.
    """
    unclear, queried = await _query_earlier(resources, state, urgency)
    decide = partial(lifecycle.start_payment, terms=terms, rules=account.rules, unclear=unclear, queried=queried)
    committed = await _commit_start(resources, state.order.order_no, terms, decide)
    if committed.decision.outcome is Outcome.CHECKOUT_ENDED and committed.state is not None:
        [key] = committed.decision.close
        ended = committed.state.payment(key)
        assert ended is not None, "the decision names an open payment"
        renewed = await renew_checkout(resources, account, committed.state, ended, terms, urgency)
        if renewed is not None:
            return Placed(state=renewed, outcome=Outcome.REUSED)
        await close_payment(resources, account, ended)
        committed = await _commit_start(resources, state.order.order_no, terms, decide)
    if committed.decision.outcome is Outcome.CHECKOUT_ENDED or committed.state_after is None:
        raise PaymentUnclear(f"order {state.order.order_no} has a payment that can still be paid, without a checkout")
    after = await create_checkout(resources, committed.state_after, account, terms, urgency)
    return Placed(state=after, outcome=committed.decision.outcome)


async def _restart(resources: Resources, state: OrderState, account: Account, terms: PaymentTerms) -> OrderState:
    """The same order once more, whose checkout has ended: with a usable one, unless the order is over meanwhile."""
    try:
        return (await _start(resources, state, account, terms)).state
    except (OrderPaid, OrderClosed):
        return await find_state(resources.db, state.order.order_no) or state


async def _commit_start(
    resources: Resources, order_no: str, terms: PaymentTerms, decide: Callable[[OrderState], Decision]
) -> Committed:
    """Commit the decision. Raises as `start_payment`."""
    committed = await commit_decision(resources, order_no, decide)
    match committed.decision.outcome:
        case Outcome.ALREADY_PAID:
            raise OrderPaid(f"order {order_no} is paid")
        case Outcome.ALREADY_CLOSED:
            raise OrderClosed(f"order {order_no} has ended")
        case Outcome.OTHER_WORLD:
            raise _other_world(terms)
        case Outcome.UNCLEAR:
            raise PaymentUnclear(f"order {order_no} has a payment that may have been paid")
    return committed


def _other_world(terms: PaymentTerms) -> InvalidRequest:
    kinds = ("real", "test") if terms.live else ("test", "real")
    return InvalidRequest("account: it moves {} money, and the order is about {} money".format(*kinds))


async def _query_earlier(
    resources: Resources, state: OrderState, urgency: Urgency
) -> tuple[tuple[PaymentKey, ...], Queried]:
    """Query every open payment. Returns those that the channel does not call unpaid, and the others."""
    unclear, queried = [], {}
    for payment in state.open_payments():
        try:
            account = await resources.accounts.get(payment.channel_account)
        except UnknownAccount:  # removed, or its credentials do not open: nobody can be asked
            unclear.append(payment.key)
            continue
        leased = await wait_for_lease(resources, payment.key, resources.settings.callback_confirm_s)
        if isinstance(leased, NoLease):
            unclear.append(payment.key)
            continue
        result = await query_now(
            resources, account, payment, by=Source.API, urgency=urgency, leased=leased, approval=NOTHING_QUERIED
        )
        if isinstance(result, QueryResult):
            result = await capture_if_due(resources, account, result, by=Source.API, urgency=urgency)
        if isinstance(result, QueryResult) and lifecycle.is_verified_unpaid(result.payment, result.evidence):
            queried[payment.key] = result.payment.capture_requested_at
        else:
            unclear.append(payment.key)
    return tuple(unclear), queried


def _is_checkout_over(state: OrderState, terms: PaymentTerms) -> bool:
    row = None if state.order.is_resolved else lifecycle.open_payment(state, terms)
    return row is not None and lifecycle.is_checkout_over(row, terms.payer, state.now)


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


def _terms(payment: PaymentRequest, account: Account, now: datetime) -> PaymentTerms:
    """Terms of the payment, checked against the account's channel.

    Raises:
        InvalidRequest: its channel does not know the method, or cannot query the watched payment; or the method needs
            something of the payer that is missing.
    """
    channel, live = account.channel, account.config.live
    if payment.method not in ("", *channel.methods):
        raise InvalidRequest(f"method is none of those of {account.config.channel}: {', '.join(channel.methods)}")
    if payment.watch is not None and payment.watch.channel_reference is None and channel.queries_by_reference:
        raise InvalidRequest(f"watch.channel_reference is missing: {account.config.channel} is queried by its own id")
    if payment.watch is not None and channel.watched_number.fullmatch(payment.watch.out_trade_no) is None:
        raise InvalidRequest(f"watch.out_trade_no has not the form of numbers at {account.config.channel}")
    if payment.watch is None:
        return PaymentTerms(
            account=payment.account,
            method=payment.method,
            out_trade_no=new_number(now),
            payer=_payer(payment, channel),
            live=live,
        )
    return PaymentTerms(
        account=payment.account,
        method=payment.method,
        out_trade_no=payment.watch.out_trade_no,
        origin=Origin.WATCHED,
        channel_reference=payment.watch.channel_reference,
        payable_until=payment.watch.payable_until,
        longest_window=channel.longest_window,
        live=live,
    )


def _payer(payment: PaymentRequest, channel: Channel) -> Payer:
    """The part of the payer that the checkout will belong to. Without it nothing is written and nothing sent."""
    method = payment.method or channel.methods[0]
    field = channel.checkouts.payer_fields.get(method)
    if field is not None and not getattr(payment.payer, field):
        raise InvalidRequest(f"{method} needs payer.{field}")
    return channel.checkouts.payer_of(method, payment.payer)


def new_number(now: datetime) -> str:
    """A number for the channel, unique for ever: 12 hex digits of milliseconds (so that they sort), 16 of chance.

    28 characters of [0-9a-f] (`core.order.OWN_NUMBER`) fit every channel's rules: WeChat Pay takes 6 to 32, Alipay 64.
    """
    return f"{int(now.timestamp() * 1000):012x}{token_bytes(8).hex()}"
