"""The channel Protocol: the interface between payment channels and the rest of nodrop.

An adapter speaks one channel's protocol for one account: it signs, sends, verifies and translates into evidence. It
decides nothing, stores nothing and never retries: `flows` does the first two, the delay queue the third. What only some
channels can do is a small Protocol of its own, `ReadsResponses`, `ResolvesRows`, `FindsNumbers`, `ListsUndelivered` and
`TellsRefunds`: callers use `isinstance`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import IO, Literal, Protocol, runtime_checkable

import msgspec

from channels.transport import Response
from core.checkout import NO_PAYER, CheckoutRules, Payer
from core.evidence import Disputed, Evidence
from core.order import Checkout, Payment


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a new payment besides its row. `callback_url` is our own address for this account."""

    payment: Payment
    subject: str
    callback_url: str
    return_url: str
    payer: Payer = NO_PAYER


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """The channel's result for a new payment. `payable_until` None: the requested end holds.

    `checkout_ends_at` None: the checkout works until then too.
    """

    checkout: Checkout
    channel_reference: str | None = None
    payable_until: datetime | None = None
    checkout_ends_at: datetime | None = None


class Ignored(StrEnum):
    """Reason why a genuine callback has no evidence: it is about no money of a payment (a payout, a customer), or about
    money of the other world (test money at a live account, or the reverse).
    """

    NO_MONEY = "no_money"
    OTHER_WORLD = "other_world"


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine callback: its signature holds and is fresh. `notification_id` is the channel's own id of the message,
    the same in every resend.

    `evidence` None: it is counted and acknowledged, and nothing else; `ignored` says why. `unreadable`: it is about
    money and its content is not what the protocol says; a short code, and `Unclear` evidence with the ids that could
    be read (`out_trade_no` is empty if there are none).
    `is_hint`: the signature does not cover the whole body, so anybody may have written the rest; or what it says of the
    money is not plain. It leads to a query of the payment that it names, and has no other effect.
    """

    notification_id: str
    evidence: Evidence | None
    is_hint: bool = False
    ignored: Ignored = Ignored.NO_MONEY
    unreadable: str = ""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """The exact response that stops a channel from sending a callback again."""

    status: int
    content_type: str
    body: bytes


class RefundState(StrEnum):
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class ChannelRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund as its channel has it. `channel_refund_no` is the channel's own number of it, which a buyer, a bank or
    the channel's support holds; None: the answer has none, or the channel gives none.
    """

    state: RefundState
    channel_refund_no: str | None = None


class StatementRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of any channel's statement: a payment or a refund.

    `line` counts from 1, where the statement has lines. `amount` is in minor units and never negative; for a payment it
    is the full price, coupons included, as in the evidence. `out_trade_no` is empty where the channel did not keep our
    number; `ids` are the other ids in the row that a payment may be known by. `refund_no` is empty for a payment and
    for a refund that was not ours; `channel_refund_no` is the channel's own number of a refund, empty where the
    statement has none. `fee` is what the channel keeps for the row, in minor units of `fee_currency` (the row's own, if
    it is empty): negative where it gives back, None where the statement has none that can be read.
    """

    line: int
    kind: Literal["payment", "refund"]
    out_trade_no: str
    channel_transaction_id: str
    refund_no: str = ""
    channel_refund_no: str = ""
    amount: int
    currency: str
    at: datetime
    ids: tuple[str, ...] = ()
    fee: int | None = None
    fee_currency: str = ""

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Every id in the row that a payment may be known by, the most exact first."""
        return tuple(dict.fromkeys(filter(None, (self.out_trade_no, self.channel_transaction_id, *self.ids))))


class MalformedRow(msgspec.Struct, frozen=True, kw_only=True):
    """An unreadable row; the others still count. `reason` is a short code and contains nothing of the row.

    `ids` are the numbers and ids that could be read: a row that names no payment known here is another system's.
    """

    line: int
    reason: str
    ids: tuple[str, ...] = ()


class StatedTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A count or sum that a statement states about its own rows, beside the same of the rows that could be read.

    `name` is the statement's word for it. `stated` None: it cannot be read. Sums are in minor units.
    """

    name: str
    stated: int | None
    read: int


StatementItem = StatementRow | MalformedRow | StatedTotal


class Channel(Protocol):
    """One account at one channel. Every method takes at most the transport's total deadline.

    Methods that call the channel raise:
        ChannelUnavailable, ChannelUnreadable: the outcome is unknown, only a query may follow.
        ChannelRefused: the channel understood the request and refused it; definite.
    """

    methods: tuple[str, ...]
    """Payment methods, in the channel's words. The first one is the default of a payment whose method is ""."""

    callback_headers: tuple[str, ...]
    """Lower-case names of the headers that `verify_callback` reads: no other header of a callback is stored."""

    queries_by_reference: bool
    """Whether queries use the channel's own id (`channel_reference`); then nothing can be queried before creation."""

    watched_number: re.Pattern[str]
    """Form of the numbers that merchants give to their payments at this channel: those of watched payments."""

    longest_window: timedelta | None
    """The longest time in which a payment made elsewhere can take money, counted from when its watch begins. None: the
    channel's answers name an end, or none is known beforehand."""

    statement_zone: tzinfo
    """Time zone of the statements' days."""

    statement_format: str
    """Statement files that `parse_statement` reads, in words for a person whose file was refused."""

    checkouts: CheckoutRules
    """The end of this channel's checkouts, and whose they are."""

    async def create_payment(self, create: Create) -> Created:
        """Create the payment, with our number as the idempotency key: two calls create one payment.

        Where `checkouts.renews`, a later call with identical terms returns a fresh checkout of the same payment.

        Raises, besides:
            InvalidRequest: the method needs details of the payer that are missing; nothing was sent.
        """
        ...

    async def query_payment(self, payment: Payment) -> Evidence:
        """Query the payment. Returns verified evidence only; an unverified response raises ChannelUnreadable."""
        ...

    async def capture_payment(self, payment: Payment) -> None:
        """Take the money of a payment whose evidence is `Approved`; only the next query shows the outcome.

        A channel that takes the money by itself does nothing.

        Raises, besides:
            CaptureDeclined: this approval brings no money; the buyer must act before the next request.
        """
        ...

    async def close_payment(self, payment: Payment) -> None:
        """Stop the channel from taking money for the payment. Only the next query shows the outcome."""
        ...

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> ChannelRefund:
        """Request a refund of `amount` minor units, with `refund_no` as the idempotency key."""
        ...

    async def query_refund(self, payment: Payment, refund_no: str) -> ChannelRefund | None:
        """The refund with this number; None when the channel, verified, knows no such refund."""
        ...

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        """Verify that the raw bytes come from the channel, and only then read them. Header names are lower-case.

        Freshness is judged against `received_at`, so a callback that was parked is not stale when it is read later.
        A genuine callback is first asked whether it is about money of this account's world, then read whole; numbers
        of any form are taken, because other systems may sell at the same account. One that cannot be read is returned
        too (`Callback.unreadable`), because it must be stored.

        Raises:
            CallbackForged: the signature does not verify, or there is none.
            CallbackStale: it verifies, but its time is outside the channel's tolerance.
            ChannelUnavailable: the key or certificate to verify with cannot be fetched now; the channel must resend.
        """
        ...

    def acknowledge(self) -> Acknowledgement:
        """The response that the channel takes as: received, do not send again."""
        ...

    async def keep_current(self) -> None:
        """Renew certificates and tokens before they are needed. Called every minute, never by a request."""
        ...

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        """Write the channel's raw statement of one day to a file; days are those of `statement_zone`.

        Raises, besides:
            ChannelRefused: with `code` "no_statement" when the day has none, because nothing happened.
        """
        ...

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementItem]:
        """Rows of a statement, one at a time, then the totals that it states; memory does not grow with the rows.

        Raises:
            ChannelUnreadable: the statement as a whole is not of the channel's form.
        """
        ...


@runtime_checkable
class ReadsResponses(Protocol):
    """A channel whose query responses can be verified without the request, as `nodrop explain answer` does."""

    def read_response(self, payment: Payment, response: Response, *, received_at: datetime) -> Evidence:
        """Verify and read a response to the query for this payment: the second half of `query_payment`.

        Raises:
            ChannelUnreadable: it does not verify, or is not what the protocol says.
            ChannelRefused: the channel refused the query, which says nothing about money.
        """
        ...

    def status_of(self, body: bytes) -> int:
        """HTTP status that the channel sends with such a body, for a body that was stored without it."""
        ...


@runtime_checkable
class ResolvesRows(Protocol):
    """A channel whose statement rows may lack the id by which a payment is queried."""

    async def resolve_row(self, row: StatementRow) -> tuple[str, ...]:
        """Further ids of the row's payment, from the channel; none where it knows no more. Raises as `Channel`."""
        ...


NO_REFERENCE = "no_channel_reference"
"""Code of a query that was not sent: the channel is queried by an id of its own, and this is none."""


@runtime_checkable
class FindsNumbers(Protocol):
    """A channel that says of which payment another number is: its own number of the money, or one of a refund."""

    async def find_number(self, number: str) -> str | None:
        """Number of that payment, or its id at a channel that is queried by one: `query_payment` takes it then.

        None: verified, the channel knows no such number. Raises as `Channel`.
        """
        ...


@runtime_checkable
class ListsUndelivered(Protocol):
    """A channel that lists the callbacks it could not deliver."""

    async def fetch_undelivered(self) -> tuple[Evidence, ...]:
        """Evidence of undelivered callbacks, newest first. Raises as `Channel`."""
        ...


@runtime_checkable
class TellsRefunds(Protocol):
    """A channel whose answer to a query has no total of the refunds, and which tells each of them by its number."""

    async def query_refunded(self, payment: Payment, refund_no: str) -> int | None:
        """Minor units that a refund of this payment, made by anybody, has given back; None unless it has succeeded."""
        ...


@runtime_checkable
class LimitsRefunds(Protocol):
    """A channel that takes only some amounts in some currencies, as parts of a payment may not be."""

    def check_refund(self, amount: int, currency: str) -> None:
        """Check an amount in minor units before a refund is requested.

        Raises:
            InvalidRequest: the channel has no number for it.
        """
        ...


@runtime_checkable
class SpacesRefunds(Protocol):
    """A channel that takes the refunds of one payment only some time apart."""

    refund_gap_s: float


@runtime_checkable
class QueriesDisputes(Protocol):
    """A channel whose messages about disputes prove only an id, so that the dispute itself is queried."""

    async def query_dispute(self, dispute: Disputed) -> tuple[Disputed, ...]:
        """The dispute as it is now, once for each payment that it is about; none, if the channel knows no such dispute.

        `dispute` has the id and the kind of the message. Raises as `Channel`.
        """
        ...


@runtime_checkable
class ListsSubscribed(Protocol):
    """A channel that sends only the events that its endpoint is subscribed to, and shows which those are."""

    events: tuple[str, ...]
    """Every event that nodrop reads."""

    async def fetch_subscribed(self, callback_url: str) -> frozenset[str] | None:
        """Events that are sent to this address, `*` for all; None if nothing is. Raises as `Channel`."""
        ...
