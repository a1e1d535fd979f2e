"""Stripe's objects, as far as they are read, and their evidence.

Only a PaymentIntent that succeeded is money: a decline takes it back to `requires_payment_method`, and a session
that is `complete` may be waiting for a bank. https://docs.stripe.com/payments/paymentintents/lifecycle
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from channels.base import ChannelRefund, RefundState
from channels.kit.signed_message import read_json
from channels.stripe.money import from_stripe
from core.errors import ChannelUnreadable
from core.evidence import Closed, Evidence, Paid, Refunded, Unclear, Unpaid, distinct_ids
from core.money import AMOUNT_MAX
from core.order import OUT_TRADE_NO

Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,255}\Z")]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_]{1,64}\Z")]
_Currency = Annotated[str, msgspec.Meta(pattern=r"\A[a-z]{3}\Z")]
_Minor = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Since 1970, up to the last second that a datetime holds."""

_UNDER_WAY = ("processing", "requires_capture")
"""The buyer has nothing left to do. `requires_action` is not among them: the buyer may abandon the bank's check, and we
cancel such a PaymentIntent at the deadline."""


class _Object(msgspec.Struct, frozen=True, kw_only=True):
    id: Id
    metadata: dict[str, str] | None = None

    @property
    def numbers(self) -> tuple[str, ...]:
        """The merchant's numbers of it: ours, or those of whoever made it elsewhere."""
        return distinct_ids((self.metadata or {}).get("out_trade_no"))

    @property
    def related(self) -> tuple[str, ...]:
        """Stripe's ids of the objects around it."""
        return ()

    @property
    def ids(self) -> tuple[str, ...]:
        return distinct_ids(*self.numbers, *self.related, self.id)


class Charge(_Object, frozen=True, kw_only=True):
    """One movement of money towards us; a PaymentIntent has a charge for each attempt, and the latest one counts.

    It may be an authorisation only. Released, it counts as fully *refunded* up to 2025-03-31, although it was never
    money: https://docs.stripe.com/changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow
    """

    object: Literal["charge"]
    livemode: bool
    amount: _Minor
    amount_captured: _Minor | None = None
    amount_refunded: _Minor
    is_captured: bool = msgspec.field(name="captured", default=True)
    currency: _Currency
    created: Seconds
    payment_intent: Id | None = None

    @property
    def related(self) -> tuple[str, ...]:
        return distinct_ids(self.payment_intent)

    @property
    def captured(self) -> int:
        """Captured amount, which may be less than the authorised one."""
        if not self.is_captured:
            return 0
        return self.amount if self.amount_captured is None else self.amount_captured


class Intent(_Object, frozen=True, kw_only=True):
    """A payment. `latest_charge` is an id unless the request expands it; in events it is always an id."""

    object: Literal["payment_intent"]
    livemode: bool
    amount: _Minor
    amount_received: _Minor = 0
    currency: _Currency
    status: Literal[
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "processing",
        "requires_capture",
        "canceled",
        "succeeded",
    ]
    latest_charge: Charge | Id | None = None
    client_secret: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,512}\Z")] | None = None

    @property
    def is_folded(self) -> bool:
        """Whether it has money, and an id in the place of its charge: only the charge shows what was refunded."""
        return self.status == "succeeded" and isinstance(self.latest_charge, str)

    @property
    def related(self) -> tuple[str, ...]:
        charge = self.latest_charge
        return distinct_ids(charge.id if isinstance(charge, Charge) else charge)


class Session(_Object, frozen=True, kw_only=True):
    """A visit to Stripe's pay page. Its PaymentIntent exists once the buyer begins to pay.

    `mode` is not `payment` for other uses of the account: subscriptions, saved cards.
    """

    object: Literal["checkout.session"]
    livemode: bool
    mode: _Word = "payment"
    amount_total: _Minor | None = None
    currency: _Currency | None = None
    status: Literal["open", "complete", "expired"] | None = None
    payment_status: Literal["paid", "unpaid", "no_payment_required"]
    payment_intent: Intent | Id | None = None
    client_reference_id: str | None = None
    url: str | None = None
    expires_at: Seconds

    @property
    def numbers(self) -> tuple[str, ...]:
        """As of any object; sessions made elsewhere often have the number in `client_reference_id`."""
        return distinct_ids(*super().numbers, self.client_reference_id)

    @property
    def related(self) -> tuple[str, ...]:
        intent = self.payment_intent
        return intent.ids if isinstance(intent, Intent) else distinct_ids(intent)

    @property
    def is_folded(self) -> bool:
        """Whether an id stands in the place of its payment or charge: an expired session may still have money under
        way, and money may have gone back.
        """
        intent = self.payment_intent
        return intent.is_folded if isinstance(intent, Intent) else intent is not None


class SessionIds(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of a session, whatever else it is."""

    id: Id
    client_reference_id: str | None = None
    metadata: dict[str, str] | None = None


class Refund(_Object, frozen=True, kw_only=True):
    object: Literal["refund"]
    amount: _Minor
    currency: _Currency
    status: Literal["pending", "requires_action", "succeeded", "failed", "canceled"] | None = None
    payment_intent: Id | None = None
    charge: Id | None = None
    failure_reason: _Word | None = None

    @property
    def related(self) -> tuple[str, ...]:
        return distinct_ids(self.payment_intent, self.charge)

    @property
    def refund_no(self) -> str:
        """Empty for a refund that is not ours."""
        number = (self.metadata or {}).get("refund_no", "")
        return number if OUT_TRADE_NO.fullmatch(number) else ""

    @property
    def state(self) -> RefundState:
        match self.status:
            case "succeeded":
                return RefundState.SUCCEEDED
            case "pending" | "requires_action":
                return RefundState.PROCESSING
            case "failed" | "canceled":
                return RefundState.FAILED
        raise ChannelUnreadable("refund_status")

    @property
    def as_channel_has_it(self) -> ChannelRefund:
        return ChannelRefund(state=self.state, channel_refund_no=self.id)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list; its items are decoded one by one."""

    object: Literal["list"]
    data: list[msgspec.Raw]
    has_more: bool


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """Any item of a list; the next page starts after its id."""

    id: Id


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook endpoint: https://docs.stripe.com/api/webhook_endpoints/object ."""

    url: str
    status: Literal["enabled", "disabled"]
    enabled_events: tuple[str, ...]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """`type` is the class of the error; `code` is more exact, where there is one."""

    type: _Word
    code: _Word | None = None

    @property
    def code_or_type(self) -> str:
        return self.code or self.type


class _Errors(msgspec.Struct, frozen=True, kw_only=True):
    error: Refusal


def read_refusal(body: bytes) -> Refusal:
    """Parse an error of Stripe.

    Raises:
        ChannelUnreadable: not Stripe's: a router or a proxy in between can send a 404 as well.
    """
    return read_json(body, _Errors).error


def intent_evidence(intent: Intent, *, account: str, number: str, at: datetime | None = None) -> Evidence:
    """Evidence of a PaymentIntent. `at` is the time of payment if its charge is not expanded.

    A decline leaves `requires_payment_method`, which does not end it: the buyer may try another card.
    """
    currency = intent.currency.upper()
    common: dict[str, Any] = {"channel_account": account, "out_trade_no": number, "currency": currency}
    common["ids"] = intent.ids
    if intent.status != "succeeded":
        common["amount"] = from_stripe(intent.amount, currency)
        is_over = intent.status == "canceled"
        return Closed(**common) if is_over else Unpaid(**common, under_way=intent.status in _UNDER_WAY)
    charge = intent.latest_charge if isinstance(intent.latest_charge, Charge) else None
    common |= {
        "amount": from_stripe(intent.amount_received, currency),
        "channel_transaction_id": intent.id,
        "at": at if charge is None else instant(charge.created),
    }
    if charge is None or charge.amount_refunded == 0:
        return Paid(**common)
    return Refunded(**common, refunded_amount=from_stripe(charge.amount_refunded, currency))


def session_evidence(session: Session, *, account: str, number: str, at: datetime | None = None) -> Evidence:
    """Evidence of a session, or of its expanded PaymentIntent where that is more definite."""
    intent = session.payment_intent
    if isinstance(intent, Intent) and (intent.status == "succeeded" or _is_over(session, intent)):
        return replace(intent_evidence(intent, account=account, number=number, at=at), ids=session.ids)
    currency = None if session.currency is None else session.currency.upper()
    common: dict[str, Any] = {
        "channel_account": account,
        "out_trade_no": number,
        "ids": session.ids,
        "currency": currency,
        "amount": None
        if session.amount_total is None or currency is None
        else from_stripe(session.amount_total, currency),
    }
    if session.payment_status == "paid":
        if not isinstance(intent, str) or common["amount"] is None:
            raise ChannelUnreadable("paid_without_transaction")
        return Paid(**common, channel_transaction_id=intent, at=at)
    # An expired session with a payment that was begun may still bring money.
    is_idle = not isinstance(intent, Intent) or intent.status == "requires_payment_method"
    if session.status == "expired" and is_idle:
        return Closed(**common)
    return Unpaid(**common, under_way=_is_under_way(session), payable_until=instant(session.expires_at))


def charge_evidence(charge: Charge, *, account: str, number: str) -> Evidence:
    """Evidence of a refunded charge. Without a captured amount it is `Unclear` and only starts a query."""
    if charge.captured == 0:
        return Unclear(channel_account=account, out_trade_no=number, ids=charge.ids, reason="not_captured")
    currency = charge.currency.upper()
    return Refunded(
        channel_account=account,
        out_trade_no=number,
        ids=charge.ids,
        amount=from_stripe(charge.captured, currency),
        currency=currency,
        channel_transaction_id=charge.payment_intent or charge.id,
        refunded_amount=from_stripe(charge.amount_refunded, currency),
        at=instant(charge.created),
    )


def session_ids(session: SessionIds) -> tuple[str, ...]:
    """Every id that a payment of this session may be known by."""
    numbers = ((session.metadata or {}).get("out_trade_no"), session.client_reference_id)
    return (session.id, *filter(None, numbers))


def instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _is_under_way(session: Session) -> bool:
    """Whether money may still come. A session is complete once the buyer has done everything on the page; then a bank
    or a voucher's counter finishes the payment, until it fails and needs another method. A session without a required
    payment waits for none.
    """
    intent, is_complete = session.payment_intent, session.status == "complete"
    if isinstance(intent, Intent):
        return intent.status in _UNDER_WAY or (is_complete and intent.status != "requires_payment_method")
    return is_complete and session.payment_status == "unpaid"


def _is_over(session: Session, intent: Intent) -> bool:
    """Whether the intent is cancelled in a session where no other payment can begin."""
    return intent.status == "canceled" and session.status != "open"
