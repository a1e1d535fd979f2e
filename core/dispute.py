"""Disputes: a channel takes the money of a payment back, threatens to, or could not give a refund to the buyer.

A dispute only moves forward: `advanced` compares what is known with what a channel says now, and late messages change
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec


class DisputeKind(StrEnum):
    """inquiry: a question of the buyer or the bank; no money moves. claim: the money is withheld until it is decided.
    reversal: the channel has taken the money back. refund: a refund that did not reach the buyer.
    """

    INQUIRY = "inquiry"
    CLAIM = "claim"
    REVERSAL = "reversal"
    REFUND = "refund"


class DisputeState(StrEnum):
    """open: the merchant may answer. under_review: the channel decides. won, lost: decided for or against the merchant.
    closed: ended without a decision about money.
    """

    OPEN = "open"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"

    @property
    def is_final(self) -> bool:
        return self in (DisputeState.WON, DisputeState.LOST, DisputeState.CLOSED)


_KIND_RANKS = {DisputeKind.INQUIRY: 0, DisputeKind.CLAIM: 1, DisputeKind.REVERSAL: 1, DisputeKind.REFUND: 1}
_STATE_RANKS = {DisputeState.OPEN: 0, DisputeState.UNDER_REVIEW: 1}
_FINAL_RANK = 2


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """One dispute of one payment, as the channel last showed it.

    `dispute_id` is the channel's. `amount` is in minor units of `currency`; None: the channel does not say. `reason`
    and `outcome` are the channel's words. `changed_at` is the channel's time of this state.
    """

    dispute_id: str
    channel_account: str
    out_trade_no: str
    order_no: str
    kind: DisputeKind
    state: DisputeState
    opened_at: datetime
    changed_at: datetime
    amount: int | None = None
    currency: str | None = None
    reason: str = ""
    outcome: str = ""
    respond_by: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Account and number of its payment; equal to the `PaymentKey`."""
        return self.channel_account, self.out_trade_no

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do: the money is the merchant's."""
        return self.state in (DisputeState.WON, DisputeState.CLOSED)

    @property
    def takes_money(self) -> bool:
        """Whether it withholds money of the payment while it is not settled."""
        return self.kind in (DisputeKind.CLAIM, DisputeKind.REVERSAL)

    @property
    def rank(self) -> tuple[int, int]:
        """Place on the way forward: an inquiry becomes a claim, an open one is decided."""
        return _KIND_RANKS[self.kind], _STATE_RANKS.get(self.state, _FINAL_RANK)


def advanced(known: Dispute | None, seen: Dispute) -> Dispute | None:
    """The dispute after a message that shows it as `seen`; None if the message says nothing new.

    A state only moves forward. Among equals the newer message counts: a decision is rarely changed, and a new date to
    answer by is a new message.
    """
    if known is None:
        return seen
    is_newer = seen.changed_at > known.changed_at
    if seen.rank < known.rank or (seen.rank == known.rank and not is_newer):
        return None
    merged = msgspec.structs.replace(
        seen,
        opened_at=min(known.opened_at, seen.opened_at),
        changed_at=max(known.changed_at, seen.changed_at),
        amount=known.amount if seen.amount is None else seen.amount,
        currency=known.currency if seen.amount is None else seen.currency,
        reason=seen.reason or known.reason,
        respond_by=seen.respond_by or known.respond_by,
    )
    return None if merged == msgspec.structs.replace(known, changed_at=merged.changed_at) else merged


def unsettled(disputes: Iterable[Dispute], key: tuple[str, str]) -> tuple[Dispute, ...]:
    """Disputes of this payment that are not over, or are lost.

    PayPal reverses the money of a claim and sends no message when it comes back: a claim that is won restores what was
    reversed before. An inquiry that is won, or a refund that reached the buyer after all, restores nothing.
    """
    of_payment = [dispute for dispute in disputes if dispute.key == key]
    won = [dispute for dispute in of_payment if dispute.state is DisputeState.WON and dispute.takes_money]
    won_at = max((dispute.changed_at for dispute in won), default=None)
    return tuple(
        dispute
        for dispute in of_payment
        if not dispute.is_settled
        and (dispute.kind is not DisputeKind.REVERSAL or won_at is None or dispute.changed_at > won_at)
    )


def is_withheld(disputes: Iterable[Dispute], key: tuple[str, str]) -> bool:
    """Whether money of this payment is not there because of a dispute."""
    return any(dispute.takes_money for dispute in unsettled(disputes, key))


def taken_amount(disputes: Iterable[Dispute], key: tuple[str, str]) -> int:
    """The most that disputes have ever taken of this payment: a claim and the reversal of its money are the same."""
    sums = dict.fromkeys(DisputeKind, 0)
    for dispute in disputes:
        if dispute.key == key:
            sums[dispute.kind] += dispute.amount or 0
    return max(sums[DisputeKind.CLAIM], sums[DisputeKind.REVERSAL])
