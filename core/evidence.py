"""What a channel told us about one payment, verified: the only thing that moves a payment.

An adapter makes evidence from a callback or a query answer whose origin it has verified, and from nothing else. It says
what the channel said and compares nothing: `core.lifecycle` compares amount, currency, account and number with ours.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec


class Source(StrEnum):
    """Who brought the evidence or asked for the change; recorded with every event as `by`."""

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


class _EvidenceFields(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """What every kind of evidence may carry.

    `channel_account` is our name of the account that the evidence speaks of, or `other:<id>` when the channel names a
    merchant that is not the account's. `amount` is in minor units. None means: the channel did not say.
    """

    channel_account: str
    out_trade_no: str
    amount: int | None = None
    currency: str | None = None
    channel_transaction_id: str | None = None
    at: datetime | None = None


class Paid(_EvidenceFields, frozen=True, kw_only=True):
    """The channel has the money. `at` is when the channel says it was paid."""

    amount: int
    currency: str
    channel_transaction_id: str


class Refunded(_EvidenceFields, frozen=True, kw_only=True):
    """The channel had the money and has given back `refunded_amount` of it: it *was* paid."""

    amount: int
    currency: str
    channel_transaction_id: str
    refunded_amount: int


class Unpaid(_EvidenceFields, frozen=True, kw_only=True):
    """The channel knows the payment and does not have the money yet.

    `under_way`: the buyer has sent it by a slow method (a bank's transfer, a review). It may take days, and until it is
    told to have failed the payment is not over, whatever its time, and nobody is asked to pay another way.
    """

    under_way: bool = False


class Approved(_EvidenceFields, frozen=True, kw_only=True):
    """The buyer has agreed, and the channel takes the money only when it is asked to: not paid, and to be captured."""


class Closed(_EvidenceFields, frozen=True, kw_only=True):
    """The channel knows the payment, does not have the money and will not take it any more."""


class Missing(_EvidenceFields, frozen=True, kw_only=True):
    """The channel says, verified, that it knows no such payment. Not a failure: it may not have been created *yet*."""


class Unclear(_EvidenceFields, frozen=True, kw_only=True):
    """Nothing was learnt: a time-out, a broken or unsigned answer. `reason` is a short code for the timeline."""

    reason: str


Evidence = Paid | Refunded | Unpaid | Approved | Closed | Missing | Unclear
EvidenceKind = Literal["paid", "refunded", "unpaid", "approved", "closed", "missing", "unclear"]


def kind_of(evidence: Evidence) -> EvidenceKind:
    """The one word for the timeline, the logs and the metrics."""
    kind: EvidenceKind = evidence.__struct_config__.tag  # type: ignore[assignment]  # the tags are these words
    return kind
