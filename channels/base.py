"""What every channel can do for us.

An adapter speaks one channel's protocol for one account: it signs, sends, verifies and translates into evidence. It
decides nothing, stores nothing and never retries: `flows` does the first two, the delay queue the third.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, tzinfo
from enum import StrEnum
from typing import IO, Literal, Protocol

import msgspec

from channels.transport import Response
from core.evidence import Evidence
from core.order import Checkout, Payment


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """What some methods must be told of who pays. It is passed through to the channel and stored nowhere."""

    openid: str | None = None
    client_ip: str | None = None


NO_PAYER = Payer()
"""Nothing is known of the payer."""


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to create a payment besides its row. `callback_url` is our own address for this account."""

    payment: Payment
    subject: str
    callback_url: str
    return_url: str
    payer: Payer = NO_PAYER


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """What the channel returned for a new payment. `payable_until` None: what we asked for holds."""

    checkout: Checkout
    channel_reference: str | None = None
    payable_until: datetime | None = None


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """A verified callback. `notification_id` is the channel's own id of the message, the same in every resend.

    `evidence` None: it is genuine and concerns no payment (a payout, a customer): acknowledged, and that is all.
    """

    notification_id: str
    evidence: Evidence | None


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
    """One row of a channel's statement, of any channel: money that came, or money that was given back.

    `line` counts from 1, where the statement has lines. `amount` is in minor units and never negative; of a payment it
    is what the user was to pay, coupons included, as in the evidence. `out_trade_no` is empty where the channel did not
    keep our number; then `channel_transaction_id` finds the payment. `refund_no` is empty for a payment, and for a
    refund that was not ours.
    """

    line: int
    kind: Literal["payment", "refund"]
    out_trade_no: str
    channel_transaction_id: str
    refund_no: str = ""
    amount: int
    currency: str
    at: datetime


class MalformedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be read; the others still count. `reason` is a short code and holds nothing of the row."""

    line: int
    reason: str


class Channel(Protocol):
    """One account at one channel. Every method takes at most the transport's total deadline.

    Raises, where a channel is called:
        ChannelUnavailable, ChannelUnreadable: the outcome is unknown, only a query may follow.
        ChannelRefused: the channel understood and said no; definite.
    """

    methods: tuple[str, ...]
    """The ways to pay that it knows, in the channel's words; the first one is meant by a payment whose method is ""."""

    queries_by_reference: bool
    """Whether it is asked by its own id (`channel_reference`), so that before creation there is nothing to ask by."""

    statement_zone: tzinfo
    """Whose calendar the days of its statements are."""

    async def create_payment(self, create: Create) -> Created:
        """Create it, with our number as the idempotency key: asking twice creates once.

        Raises, besides:
            InvalidRequest: the method needs something of the payer that was not given; nothing was sent.
        """
        ...

    async def query_payment(self, payment: Payment) -> Evidence:
        """Ask about it. Returns verified evidence only; what could not be verified is raised as ChannelUnreadable."""
        ...

    def read_answer(self, payment: Payment, response: Response, *, received_at: datetime) -> Evidence:
        """The second half of `query_payment`: verify and read an answer to the query for this payment.

        Raises:
            ChannelUnreadable: it does not verify, or is not what the protocol says.
            ChannelRefused: the channel refused to answer, which says nothing about money.
        """
        ...

    async def capture_payment(self, payment: Payment) -> None:
        """Take the money of a payment whose evidence is `Approved`; what came of it is told by the next query alone.

        A channel that takes the money by itself does nothing.
        """
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

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        """Prove that the raw bytes come from the channel, and only then read them. Header names are lower-case.

        Freshness is judged against `received_at`, so a callback that was parked is not stale when it is read later.

        Raises:
            CallbackForged: the signature does not verify, or there is none.
            CallbackStale: it verifies, but its time is outside the channel's tolerance.
            ChannelUnreadable: it is genuine, and its content is not what the protocol says.
            ChannelUnavailable: what it is to be verified with cannot be fetched now; the channel must send it again.
        """
        ...

    def acknowledge(self) -> Acknowledgement:
        """The channel's own words for: received, do not send again."""
        ...

    async def fetch_undelivered(self) -> tuple[Evidence, ...]:
        """What the channel knows that it could not call back about, newest first: one more net, where it has one."""
        ...

    async def keep_current(self) -> None:
        """Renew what must be fresh before it is needed (certificates). Called every minute, never by a request."""
        ...

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        """Write the channel's statement of one day, as it comes, to a file; days are those of `statement_zone`.

        Raises, besides:
            ChannelRefused: with `code` "no_statement" when there is none for this day, because nothing happened.
        """
        ...

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementRow | MalformedRow]:
        """Its rows, one at a time and in memory that does not grow with their number.

        Raises:
            ChannelUnreadable: the statement as a whole is not of the channel's form.
        """
        ...
