"""What every channel can do for us.

An adapter speaks one channel's protocol for one account: it signs, sends, verifies and translates into evidence. It
decides nothing, stores nothing and never retries: `flows` does the first two, the delay queue the third.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from core.evidence import Evidence
from core.order import Checkout, Payment


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """What the channel returned for a new payment. `payable_until` None: what we asked for holds."""

    checkout: Checkout
    channel_reference: str | None = None
    payable_until: datetime | None = None


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to create a payment besides its row. `callback_url` is our own address for this account."""

    payment: Payment
    subject: str
    callback_url: str
    return_url: str


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """A verified callback. `notification_id` is the channel's own id of the message, the same in every resend."""

    notification_id: str
    evidence: Evidence


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes by which a channel knows that it need not send again."""

    status: int
    content_type: str
    body: bytes


class RefundState(StrEnum):
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class StatementRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a channel's statement, of any channel. `kind` is payment or refund; amounts in minor units."""

    kind: str
    out_trade_no: str
    channel_transaction_id: str
    refund_no: str
    amount: int
    currency: str
    at: datetime


class Channel(Protocol):
    """One account at one channel. Every method takes at most the transport's total deadline.

    Raises, all but `acknowledge`:
        ChannelUnavailable, ChannelUnreadable: the outcome is unknown, only a query may follow.
        ChannelRefused: the channel understood and said no; definite.
    """

    async def create_payment(self, create: Create) -> Created:
        """Create it, with our number as the idempotency key: asking twice creates once."""
        ...

    async def query_payment(self, payment: Payment) -> Evidence:
        """Ask about it. Returns verified evidence only; what could not be verified is raised as ChannelUnreadable."""
        ...

    async def close_payment(self, payment: Payment) -> None:
        """Ask the channel to take no money for it any more. What came of it is told by the next query alone."""
        ...

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> RefundState:
        """Ask to give back `amount` minor units, with `refund_no` as the idempotency key."""
        ...

    async def query_refund(self, payment: Payment, refund_no: str) -> RefundState | None:
        """How a refund stands; None when the channel, verified, knows no such refund."""
        ...

    def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        """Prove that the raw bytes come from the channel, and only then read them. Header names are lower-case.

        Freshness is judged against `received_at`, so a callback that was parked is not stale when it is read later.

        Raises:
            CallbackForged: the signature does not verify, or there is none.
            CallbackStale: it verifies, but its time is outside the channel's tolerance.
            ChannelUnreadable: it is genuine, and its content is not what the protocol says.
        """
        ...

    def acknowledge(self) -> Acknowledgement:
        """The channel's own words for: received, do not send again."""
        ...

    async def fetch_statement(self, day: date) -> bytes:
        """The channel's statement of one day, as it comes."""
        ...

    def parse_statement(self, statement: bytes) -> Iterator[StatementRow]:
        """Its rows, one at a time.

        Raises:
            ChannelUnreadable: the statement as a whole is not of the channel's form.
        """
        ...
