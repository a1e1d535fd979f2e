"""Disputes of a channel's payments, as the buyer, the bank or the channel opens and decides them. The ledger stays: a
dispute is a record of its own at every channel.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Literal

import msgspec

from simulator.kernel.ledger import Payment

DisputeKind = Literal["inquiry", "claim", "reversal", "refund"]
DisputeState = Literal["open", "under_review", "won", "lost", "closed"]


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """`sequence` counts its changes from 1."""

    dispute_id: str
    merchant_id: str
    out_trade_no: str
    kind: DisputeKind
    state: DisputeState
    amount: int
    currency: str
    opened_at: datetime
    changed_at: datetime
    sequence: int = 1
    reason: str = ""
    respond_by: datetime | None = None


class DisputeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new dispute, or with `dispute_id` the next state of a known one. `amount` None: the whole payment."""

    dispute_id: str = ""
    kind: DisputeKind = "claim"
    state: DisputeState = "open"
    amount: int | None = None
    reason: str = ""
    respond_by: datetime | None = None


def changed(known: Dispute | None, body: DisputeBody, payment: Payment, now: datetime) -> Dispute:
    """Return the dispute after the change."""
    seed = "\x1f".join((*payment.key, body.kind, body.dispute_id)).encode()
    return Dispute(
        dispute_id=body.dispute_id or blake2b(seed, digest_size=10).hexdigest(),
        merchant_id=payment.merchant_id,
        out_trade_no=payment.terms.out_trade_no,
        kind=body.kind,
        state=body.state,
        amount=payment.terms.amount if body.amount is None else body.amount,
        currency=payment.terms.currency,
        opened_at=now if known is None else known.opened_at,
        changed_at=now,
        sequence=1 if known is None else known.sequence + 1,
        reason=body.reason,
        respond_by=body.respond_by,
    )
