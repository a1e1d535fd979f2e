"""Ask a channel about a number that nodrop does not know, and attach its money to an order.

A buyer complains and has a number: the merchant's number of the payment or the channel's own. The channel says what it
stands for; an operator names the order; the payment is inserted through the door, and one more query moves it, by the
same checks as any other evidence.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import NoReturn

from msgspec import Struct

from channels.base import NO_REFERENCE, FindsNumbers
from core.acts import Line, Preview, check_reason
from core.admission import CallKind, Urgency
from core.decision import Outcome
from core.errors import ChannelError, InvalidRequest, NotFound, NotPossible, NumberTaken, PreviewOutdated
from core.evidence import Evidence, Missing, Source, Unclear
from core.lifecycle import PaymentTerms, named_payment, on_attached
from core.order import OWN_NUMBER, OrderState, Origin, Payment, PaymentStatus
from core.previews import attach_preview, evidence_line
from core.sentences import Sentence
from flows.ask import query_now
from flows.channel_call import Deferred, call_channel
from flows.choice import is_other_world
from flows.commit import commit_decision
from flows.watched import is_named_beside
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_now, find_state
from storage.postgres.payments import find_payments_by_ids

NO_CURRENCY = "XXX"
"""The code of ISO 4217 for no currency: that of money which nobody has seen yet."""

NUMBER_MAX = 255


class Lookup(Struct, frozen=True, kw_only=True):
    """Answer of a channel about a number. `known`: the payment that it is of, where nodrop knows it after all.

    `out_trade_no` and `reference` are those by which the payment would be known here, `origin` whose it is.
    """

    account: str
    number: str
    evidence: Evidence
    out_trade_no: str
    reference: str | None
    origin: Origin
    known: Payment | None
    is_known_beside: bool

    @property
    def line(self) -> Line:
        return evidence_line(self.account, self.number, self.evidence)


async def look_up(resources: Resources, account_name: str, number: str) -> Lookup:
    """Ask the account's channel about a number: the merchant's of a payment, the channel's own, or one of a refund, as
    far as the channel finds payments by them.

    Raises:
        UnknownAccount: there is no such account, or it does not open.
        InvalidRequest: it is no number.
        NotPossible: at this channel no payment has a number of this form.
    """
    number = number.strip()
    if not number or len(number) > NUMBER_MAX or not number.isprintable():
        raise InvalidRequest(Sentence("number: 1 to {max} characters on one line", max=NUMBER_MAX))
    account = await resources.accounts.get(account_name)
    named, evidence = await _query_by_any(resources, account, number, await find_now(resources.db))
    found = await find_payments_by_ids(resources.db, account_name, {number, named})
    if not isinstance(evidence, Unclear):
        found |= await find_payments_by_ids(resources.db, account_name, evidence.every_id)
    own = next((id_ for id_ in (named, *evidence.every_id) if OWN_NUMBER.fullmatch(id_)), None)
    return Lookup(
        account=account_name,
        number=number,
        evidence=evidence,
        out_trade_no=own or named,
        reference=named if account.channel.queries_by_reference else None,
        origin=Origin.WATCHED if own is None else Origin.OURS,
        known=named_payment((number, named, *evidence.every_id), found),
        is_known_beside=not found and await is_named_beside(resources, account, evidence),
    )


async def preview_attach(resources: Resources, order_no: str, account_name: str, number: str) -> tuple[Lookup, Preview]:
    """The channel's answer about the number, and the preview of attaching its money to this order.

    Raises as `look_up`, and NotFound.
    """
    state = await _find(resources, order_no)
    lookup = await look_up(resources, account_name, number)
    return lookup, await _preview(resources, state, lookup)


async def attach_payment(
    resources: Resources,
    order_no: str,
    account_name: str,
    number: str,
    *,
    by: str,
    reason: str,
    expected_version: int | None = None,
) -> OrderState:
    """Attach the money of this number to the order; the order as it is then. To do it twice changes nothing more.

    Raises:
        NotFound: there is no such order.
        NotPossible: the channel shows no money that agrees with the order, or it is known here already.
        PreviewOutdated: the order has moved on since `expected_version`.
        InvalidRequest, UnknownAccount: about the number, the account or the reason.
    """
    check_reason(reason)
    state = await _find(resources, order_no)
    lookup = await look_up(resources, account_name, number)
    account = await resources.accounts.get(account_name)
    if lookup.known is not None and lookup.known.order_no == order_no:
        return state
    preview = await _preview(resources, state, lookup)
    if preview.refusal is not None:
        raise NotPossible(preview.refusal)
    terms = PaymentTerms(
        account=account_name,
        out_trade_no=lookup.out_trade_no,
        origin=lookup.origin,
        channel_reference=lookup.reference,
        longest_window=account.channel.longest_window,
        live=account.config.live,
    )
    decide = partial(on_attached, terms=terms, rules=account.rules, by_name=by, expected_version=expected_version)
    try:
        committed = await commit_decision(resources, order_no, decide, known=state)
    except NumberTaken:  # somebody else has attached it since it was looked at
        raise NotPossible(await _taken(resources, account_name, lookup)) from None
    after = committed.state_after or state
    if committed.decision.outcome is Outcome.MOVED:
        raise PreviewOutdated(await _preview(resources, after, lookup))
    return await _query(resources, account, after, lookup)


# -- in parts ----------------------------------------------------------------------------------------------------------


async def _find(resources: Resources, order_no: str) -> OrderState:
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    return state


async def _query_by_any(resources: Resources, account: Account, number: str, now: datetime) -> tuple[str, Evidence]:
    """The number by which the payment is queried, and the evidence about it.

    Raises:
        NotPossible: at this channel no payment has a number of this form.
    """
    channel, evidence = account.channel, None
    if channel.watched_number.fullmatch(number) is not None:
        evidence = await _ask(resources, account, _probe(account, number, now))
    is_clear = evidence is not None and not isinstance(evidence, Missing) and not _is_of_other_form(evidence)
    if is_clear or not isinstance(channel, FindsNumbers):
        return number, evidence or _wrong_number(account)
    named = await _find_number(resources, account, channel, number, now)
    if isinstance(named, Unclear):
        # A number that the channel knows under no other name: what it said of it at first still counts.
        return number, evidence if isinstance(evidence, Missing) and _is_of_other_form(named) else named
    if named is None:
        return number, evidence if isinstance(evidence, Missing) else _missing(account, number)
    if channel.watched_number.fullmatch(named) is None:
        _wrong_number(account)
    return named, await _ask(resources, account, _probe(account, named, now))


def _wrong_number(account: Account) -> NoReturn:
    raise NotPossible(Line("attach.wrong_number", {"channel": account.config.channel}))


def _missing(account: Account, number: str) -> Missing:
    return Missing(channel_account=account.config.name, out_trade_no=number)


def _is_of_other_form(evidence: Evidence) -> bool:
    """Whether nothing was asked, because the number is none by which the channel is queried."""
    return isinstance(evidence, Unclear) and evidence.reason == NO_REFERENCE


async def _find_number(
    resources: Resources, account: Account, channel: FindsNumbers, number: str, now: datetime
) -> str | Unclear | None:
    """The number that its payment is queried by; None: verified, the channel does not know it."""
    probe = _probe(account, number, now)
    try:
        found = await call_channel(resources, account, CallKind.QUERY, Urgency.REFRESH, channel.find_number, number)
    except ChannelError as error:
        return _unclear(probe, error.detail or type(error).__name__)
    return _unclear(probe, found.reason) if isinstance(found, Deferred) else found


def _probe(account: Account, number: str, now: datetime) -> Payment:
    """A payment that is not here, to ask about."""
    return Payment(
        channel_account=account.config.name,
        out_trade_no=number,
        order_no="",
        attempt_no=1,
        amount=1,
        currency=NO_CURRENCY,
        status=PaymentStatus.OPEN,
        payable_until=now,
        created_at=now,
        origin=Origin.WATCHED,
        channel_reference=number if account.channel.queries_by_reference else None,
        live=account.config.live,
    )


async def _ask(resources: Resources, account: Account, probe: Payment) -> Evidence:
    """The evidence about a payment that is not here; no clear answer is `Unclear`."""
    try:
        answer = await call_channel(
            resources, account, CallKind.QUERY, Urgency.REFRESH, account.channel.query_payment, probe
        )
    except ChannelError as error:
        answer = _unclear(probe, error.detail or type(error).__name__)
    return _unclear(probe, answer.reason) if isinstance(answer, Deferred) else answer


def _unclear(probe: Payment, reason: str) -> Unclear:
    return Unclear(channel_account=probe.channel_account, out_trade_no=probe.out_trade_no, reason=reason)


async def _preview(resources: Resources, state: OrderState, lookup: Lookup) -> Preview:
    account = await resources.accounts.get(lookup.account)
    return attach_preview(
        state,
        lookup.evidence,
        account=lookup.account,
        number=lookup.number,
        origin=lookup.origin,
        is_other_world=await is_other_world(resources, state, account),
        policy=account.rules.late_policy,
        known=lookup.known,
        is_known_beside=lookup.is_known_beside,
    )


async def _taken(resources: Resources, account_name: str, lookup: Lookup) -> Line:
    found = await find_payments_by_ids(resources.db, account_name, [lookup.out_trade_no, lookup.number])
    known = named_payment((lookup.out_trade_no, lookup.number), found)
    figures = {"order_no": "" if known is None else known.order_no, "out_trade_no": lookup.out_trade_no}
    return Line("attach.is_known", figures)


async def _query(resources: Resources, account: Account, state: OrderState, lookup: Lookup) -> OrderState:
    """Query the payment that is here now: only that moves it. Without an answer its pending row asks on."""
    payment = next(row for row in state.payments if row.key == (lookup.account, lookup.out_trade_no))
    leased = await pending.claim(resources.db, payment.key, resources.settings.lease_s)
    if leased is not None:
        await query_now(
            resources, account, payment, by=Source.OPERATOR, urgency=Urgency.FRESH, leased=leased, known=state
        )
    return await find_state(resources.db, state.order.order_no) or state
