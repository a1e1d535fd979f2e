"""PayPal's disputes and reversals. Their events only name them: the dispute itself is read, and a reversal in PayPal's
own copy of its event, for the refund as which it is booked looks like any other.

https://developer.paypal.com/docs/api/customer-disputes/v1/ ; in the stage of an inquiry buyer and merchant talk to each
other, and later PayPal or the bank decides about money that is withheld.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from channels.kit.signed_message import read_json
from channels.paypal.wire import DISPUTE_EVENTS, REVERSAL_EVENT, Event, Id, Instant, Money, OwnAccount, Payee
from core.dispute import DisputeKind, DisputeState
from core.errors import ChannelUnreadable
from core.evidence import Disputed

_Word = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Z_]{1,64}\Z")]
_DisputeId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z\-]{1,255}\Z")]

_STATES: Mapping[str, DisputeState] = MappingProxyType(
    {
        "OPEN": DisputeState.OPEN,
        "WAITING_FOR_SELLER_RESPONSE": DisputeState.OPEN,
        "WAITING_FOR_BUYER_RESPONSE": DisputeState.UNDER_REVIEW,
        "UNDER_REVIEW": DisputeState.UNDER_REVIEW,
        "OTHER": DisputeState.UNDER_REVIEW,
    }
)
_WON = ("RESOLVED_SELLER_FAVOUR", "CANCELED_BY_BUYER", "DENIED")
"""Any other outcome does not say that the merchant has the money."""


class DisputeNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The resource of an event about a dispute, as far as it is used."""

    dispute_id: _DisputeId


class _Transaction(msgspec.Struct, frozen=True, kw_only=True):
    seller_transaction_id: Id | None = None
    seller: Payee = Payee()


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    outcome_code: _Word = "NONE"


class Dispute(DisputeNotice, frozen=True, kw_only=True):
    create_time: Instant
    update_time: Instant | None = None
    status: Literal[
        "OPEN", "WAITING_FOR_BUYER_RESPONSE", "WAITING_FOR_SELLER_RESPONSE", "UNDER_REVIEW", "RESOLVED", "OTHER"
    ]
    disputed_transactions: tuple[_Transaction, ...] = ()
    dispute_amount: Money | None = None
    dispute_life_cycle_stage: _Word = ""
    dispute_outcome: _Outcome = _Outcome()
    reason: _Word = "OTHER"
    seller_response_due_date: Instant | None = None


class _Link(msgspec.Struct, frozen=True, kw_only=True):
    href: str
    rel: str


class Reversal(msgspec.Struct, frozen=True, kw_only=True):
    """The refund as which PayPal books the reversal of a capture; a link leads up to the capture."""

    id: Id
    amount: Money | None = None
    create_time: Instant | None = None
    links: tuple[_Link, ...] = ()
    payee: Payee = Payee()

    @property
    def capture_id(self) -> str | None:
        paths = [urlsplit(link.href).path for link in self.links if link.rel == "up"]
        return next((path.rpartition("/")[2] for path in paths if "/captures/" in path), None)


def disputing_evidence(event: Event, own: OwnAccount) -> Disputed | None:
    """Evidence that only names a dispute or a reversal, for the event's signature covers no more than a checksum; None
    for other events.
    """
    if event.event_type in DISPUTE_EVENTS:
        kind, dispute_id = DisputeKind.CLAIM, read_json(bytes(event.resource), DisputeNotice).dispute_id
    elif event.event_type == REVERSAL_EVENT:
        kind, dispute_id = DisputeKind.REVERSAL, read_json(bytes(event.resource), Reversal).id
    else:
        return None
    return Disputed(
        channel_account=own.account, out_trade_no="", dispute_id=dispute_id, dispute_kind=kind, message_id=event.id
    )


def dispute_evidence(dispute: Dispute, own: OwnAccount) -> tuple[Disputed, ...]:
    """Evidence of a dispute that was read from PayPal, for each of its transactions."""
    outcome = dispute.dispute_outcome.outcome_code if dispute.status == "RESOLVED" else ""
    state = _STATES.get(dispute.status)
    if state is None:
        state = DisputeState.WON if outcome in _WON else DisputeState.LOST
    is_talk = dispute.dispute_life_cycle_stage == "INQUIRY" and state is not DisputeState.LOST
    numbers = [(one.seller_transaction_id, one.seller) for one in dispute.disputed_transactions]
    return tuple(
        Disputed(
            channel_account=own.name_for(seller),
            out_trade_no=capture_id,
            channel_transaction_id=capture_id,
            dispute_id=dispute.dispute_id,
            dispute_kind=DisputeKind.INQUIRY if is_talk else DisputeKind.CLAIM,
            state=state,
            disputed_amount=None if dispute.dispute_amount is None else dispute.dispute_amount.minor,
            disputed_currency=None if dispute.dispute_amount is None else dispute.dispute_amount.currency_code,
            dispute_reason=dispute.reason,
            outcome=outcome,
            respond_by=dispute.seller_response_due_date,
            opened_at=dispute.create_time,
            changed_at=dispute.update_time or dispute.create_time,
        )
        for capture_id, seller in numbers
        if capture_id is not None
    )


def reversal_evidence(event: Event, dispute_id: str, own: OwnAccount) -> tuple[Disputed, ...]:
    """Evidence of a reversal in PayPal's own copy of its event: the money is gone. Empty if the copy is about anything
    else: the callback, whose signature is a checksum, may name any event and any refund.
    """
    if event.event_type != REVERSAL_EVENT:
        return ()
    reversal = read_json(bytes(event.resource), Reversal)
    if reversal.id != dispute_id:
        return ()
    if reversal.capture_id is None:
        raise ChannelUnreadable("reversal_without_capture")
    evidence = Disputed(
        channel_account=own.name_for(reversal.payee),
        out_trade_no=reversal.capture_id,
        channel_transaction_id=reversal.capture_id,
        dispute_id=reversal.id,
        dispute_kind=DisputeKind.REVERSAL,
        state=DisputeState.LOST,
        disputed_amount=None if reversal.amount is None else reversal.amount.minor,
        disputed_currency=None if reversal.amount is None else reversal.amount.currency_code,
        outcome="reversed",
        changed_at=reversal.create_time or event.create_time,
    )
    return (evidence,)
