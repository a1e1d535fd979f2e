"""Evidence: a channel's verified statement about one payment. Only evidence moves a payment.

An adapter makes it from a callback or a query's response whose origin it has verified, and from nothing else. It
contains the channel's values and compares nothing: `core.lifecycle` compares amount, currency, account and number.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from core.dispute import DisputeKind, DisputeState
from core.order import in_utc
from core.sentences import Term


class Source(StrEnum):
    """Origin of the evidence or of the change; recorded with every event as `by`."""

    API = "api"
    CALLBACK = "callback"
    COMPENSATION = "compensation"
    QUERY = "query"
    REFRESH = "refresh"
    SWEEP = "sweep"
    CLOSE = "close"
    OPERATOR = "operator"
    UNDELIVERED = "undelivered"
    RECONCILIATION = "reconciliation"
    REFUND = "refund"


ID_CHARACTERS_MAX = 255
_ID = re.compile(rf"[^\x00-\x1f\x7f]{{1,{ID_CHARACTERS_MAX}}}")


def distinct_ids(*texts: str | None) -> tuple[str, ...]:
    """The texts that may be ids, in their order, each once; a longer one or one with control characters is none."""
    return tuple(dict.fromkeys(text for text in texts if text is not None and _ID.fullmatch(text)))


class _EvidenceFields(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Fields of every kind of evidence.

    `channel_account` is our name of the account that the evidence speaks of, or `other:<id>` when the channel names a
    merchant that is not the account's. `ids` are the object's other ids, the merchant's and the channel's own: any of
    them may be the one by which a payment is known here. `amount` is in minor units. None: not in the message.
    """

    channel_account: str
    out_trade_no: str
    ids: tuple[str, ...] = ()
    amount: int | None = None
    currency: str | None = None
    channel_transaction_id: str | None = None
    at: datetime | None = None

    __post_init__ = in_utc  # type: ignore[misc]  # a function is a method here

    @property
    def every_id(self) -> tuple[str, ...]:
        """Every id in the evidence, the number first."""
        return distinct_ids(self.out_trade_no, *self.ids, self.channel_transaction_id)


class Paid(_EvidenceFields, frozen=True, kw_only=True):
    """The channel has the money. `at` is the channel's time of payment.

    `shows_disputes`: this channel's answer shows money that a dispute takes as refunded, and as there once it is back.
    """

    amount: int
    currency: str
    channel_transaction_id: str
    shows_disputes: bool = False


class Refunded(_EvidenceFields, frozen=True, kw_only=True):
    """The channel had the money and has given some of it back: it *was* paid, which does not say that money is there.

    `refunded_amount` is the total so far; None: the channel does not tell it. `refunds` are single refunds by their
    number, where the channel tells those. `refund_numbers` are the channel's own numbers of single refunds, by ours.
    `shows_disputes`: as in `Paid`; some of it may be a dispute's.
    """

    amount: int
    currency: str
    channel_transaction_id: str
    refunded_amount: int | None
    refunds: dict[str, int] = {}
    refund_numbers: dict[str, str] = {}
    shows_disputes: bool = False


class Unpaid(_EvidenceFields, frozen=True, kw_only=True):
    """The channel knows the payment and does not have the money yet.

    `under_way`: the buyer has sent it by a slow method (a bank transfer, a review). It may take days; until it fails,
    the payment is not over, even after its time, and the buyer is not offered another way to pay.

    `payable_until` is the channel's own end for it, where its answer names one.
    """

    under_way: bool = False
    payable_until: datetime | None = None


class Approved(_EvidenceFields, frozen=True, kw_only=True):
    """The buyer has agreed, and the channel takes the money only on our capture: not paid yet."""


class Lapsed(_EvidenceFields, frozen=True, kw_only=True):
    """The channel has ended an approval that nobody captured in time, and has given back what it had set aside. `at` is
    the time of its message.
    """


class Closed(_EvidenceFields, frozen=True, kw_only=True):
    """The channel knows the payment, does not have the money and will no longer take it."""


class Missing(_EvidenceFields, frozen=True, kw_only=True):
    """The channel, verified, knows no such payment. Not a failure: it may not have been created *yet*."""


class Unclear(_EvidenceFields, frozen=True, kw_only=True):
    """Nothing is known: a time-out, a broken or unsigned response. `reason` is a short code for the timeline.

    `refund_no` is the number of a refund that a notice names without a total: the channel is queried about it.
    `channel_refund_no` is the channel's own number of that refund.
    """

    reason: str
    refund_no: str | None = None
    channel_refund_no: str | None = None


APPROVAL_HINT = "approval_not_wholly_signed"
"""Reason of `Unclear` evidence from a message about an approval whose signature does not cover all of it."""


COMBINED = "combined"
"""The reason of a message about several payments, each named in `ids`."""

UNREADABLE = "unreadable"
"""The reason of a genuine callback whose content could not be read."""


class Disputed(_EvidenceFields, frozen=True, kw_only=True):
    """A dispute about money that the channel has or had: it *was* paid. `core.dispute` explains the words.

    `state` None: only the id is proved, and the channel must be asked. `amount` is not set: what is disputed may be a
    part of the payment. `changed_at` is the channel's time of this state. `message_id` is the channel's id of the
    message that named it, by which a channel may show that message again.
    """

    dispute_id: str
    dispute_kind: DisputeKind
    state: DisputeState | None = None
    disputed_amount: int | None = None
    disputed_currency: str | None = None
    dispute_reason: str = ""
    outcome: str = ""
    respond_by: datetime | None = None
    opened_at: datetime | None = None
    changed_at: datetime | None = None
    message_id: str = ""


Evidence = Paid | Refunded | Unpaid | Approved | Lapsed | Closed | Missing | Unclear | Disputed
EvidenceKind = Literal["paid", "refunded", "unpaid", "approved", "lapsed", "closed", "missing", "unclear", "disputed"]


def hint_of(evidence: Evidence, account: str) -> Evidence:
    """The payment that a message names which is not wholly signed. Nothing else in it is compared or believed.

    That the buyer has approved stays in the reason: a capture may be tried then. The end of an approval is kept, and
    counts once a query bears it out. A dispute keeps its id and its message's, to be read.
    """
    if isinstance(evidence, Disputed):
        return Disputed(
            channel_account=account,
            out_trade_no="",
            dispute_id=evidence.dispute_id,
            dispute_kind=evidence.dispute_kind,
            message_id=evidence.message_id,
        )
    if isinstance(evidence, Lapsed):
        return Lapsed(
            channel_account=account, out_trade_no=evidence.out_trade_no, ids=evidence.every_id, at=evidence.at
        )
    reason = APPROVAL_HINT if isinstance(evidence, Approved) else "not_wholly_signed"
    number, ids = evidence.out_trade_no, evidence.every_id
    return Unclear(channel_account=account, out_trade_no=number, ids=ids, reason=reason, at=evidence.at)


def kind_of(evidence: Evidence) -> EvidenceKind:
    """Word for the evidence in the timeline, the logs and the metrics."""
    kind: EvidenceKind = evidence.__struct_config__.tag  # type: ignore[assignment]  # the tags are these words
    return kind


def kind_term(evidence: Evidence) -> Term:
    """The same word, for a sentence."""
    return Term("callbacks.kind_", kind_of(evidence))
