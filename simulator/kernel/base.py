"""The seam between the simulated far side and a channel's wire format: one file per channel implements `Channel`.

A channel file knows addresses, signatures and shapes. It decides nothing: payments move in `far_side`, calls go wrong
in `calls`, callbacks are scheduled, spoilt and resent in `callbacks`, the same for every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from simulator.kernel.faults import CallKind
from simulator.kernel.ledger import Key, Payment, Refund
from simulator.kit.asgi import Request, Response

if TYPE_CHECKING:
    from simulator.kernel.simulation import FarSide


Name = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_\-]{1,64}\Z")]
Secret = Annotated[str, Meta(min_length=32, max_length=8192)]


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merchant's account at a channel. `name` is what nodrop calls it; `merchant_id` is unique among all channels.

    Of `keys` every one verifies and the first one signs, where a channel shares secrets; `wire` holds what else the
    channel's file keeps of the account, both sides' keys in PEM among it. `callback_url` is where a channel calls that
    is told so in its console and not with each payment.
    """

    name: Name
    merchant_id: Name
    keys: Annotated[dict[Name, Secret], Meta(max_length=8)] = {}
    channel: Name = "sandbox"
    callback_url: str = ""
    wire: dict[str, Any] = {}


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An account with keys made just now: the channel's side of it, and what the merchant writes into its TOML file."""

    account: Account
    credentials: dict[str, Any]


Accounts = Mapping[str, Account]
"""By merchant id."""


class EventType(StrEnum):
    """`PAYMENT_AGREED`: the buyer has done the own part and the money is not there: approved, or still under way."""

    PAYMENT_AGREED = "payment.agreed"
    PAYMENT_PAID = "payment.paid"
    REFUND_SUCCEEDED = "refund.succeeded"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something to call back about, with the payment as it was then, so that every resend has the same bytes."""

    callback_id: str
    type: EventType
    created_at: datetime
    payment: Payment
    refund: Refund | None = None

    @property
    def number(self) -> str:
        """What faults are drawn by."""
        return self.payment.terms.out_trade_no if self.refund is None else self.refund.refund_no

    @property
    def key(self) -> Key:
        return self.payment.key


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A callback on its way; header names are lower case."""

    headers: dict[str, str]
    body: bytes


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated call. `nth` counts calls of this kind about this number from 1."""

    account: Account
    request: Request
    now: datetime
    nth: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a channel. `number` finds the payment or refund asked about, before anything is verified.

    `when` tells operations with one address apart; the first one that takes the request answers it.
    """

    kind: CallKind
    method: str
    pattern: str
    number: Callable[[Request], str]
    handle: Callable[[FarSide, Asked], Response]
    when: Callable[[Request], bool] | None = None


class Channel(Protocol):
    """A channel's wire format: its calls, and how its callbacks look, are signed and are acknowledged."""

    name: str
    calls: tuple[Call, ...]
    resend_gaps_s: tuple[int, ...]
    acknowledge_within_s: float
    callbacks_expire: bool
    """Whether a callback holds only for minutes from its signing; otherwise an old one is as good as a new one."""

    needs_capture: bool
    """Whether the buyer only agrees, and the money is taken when the merchant asks for it."""

    def open_account(self, name: str, callback_url: str) -> Opened:
        """An account with fresh keys for both sides. `callback_url` is what a merchant enters in the console."""
        ...

    def rotated(self, account: Account) -> Opened:
        """The account with fresh keys before the old ones, which stay valid; and what the merchant configures then."""
        ...

    def claimed_merchant(self, request: Request) -> str:
        """Who the caller says it is, for the record of arrivals; nothing is verified yet."""
        ...

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        """Whose call it is, or the answer to somebody who is nobody."""
        ...

    def too_many(self, asked: Asked) -> Response:
        """The answer beyond the rate limit."""
        ...

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        """What is sent about the event, signed with the account's first key; the same body for the same event.

        None when the channel does not call back about such an event.
        """
        ...

    def stranger(self, account: Account) -> Account:
        """Somebody who knows everything about the account but its secrets: signs, and does not verify."""
        ...

    def altered(self, message: Message) -> Message:
        """The message with another body under the same signature."""
        ...

    def acknowledges(self, status: int, body: bytes) -> bool:
        """Whether this answer ends the resends. Compared strictly: what is almost an acknowledgement is none."""
        ...
