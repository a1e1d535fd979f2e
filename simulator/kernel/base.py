"""Accounts, events and the interface of a simulated channel: one package per channel implements `Channel`.

A channel's package knows addresses, signatures and shapes of bodies. It decides nothing: payments move in `simulation`,
calls fail in `dispatch`, and callbacks are scheduled, altered and resent in `callbacks`, the same for every channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from simulator.kernel.disputes import Dispute
from simulator.kernel.ledger import Key, Payment, Refund

Name = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_\-]{1,64}\Z")]
Secret = Annotated[str, Meta(min_length=32, max_length=8192)]


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merchant's account at a channel. `name` is nodrop's name for it; `merchant_id` is unique among all channels.

    `keys` are shared secrets: each of them verifies, the first one signs. `wire` holds the channel's own data of the
    account, including the keys of both sides in PEM. `callback_url` is the address of callbacks at a channel where a
    merchant configures it once and does not send it with each payment.
    """

    name: Name
    merchant_id: Name
    keys: Annotated[dict[Name, Secret], Meta(max_length=8)] = {}
    channel: Name = "sandbox"
    callback_url: str = ""
    wire: dict[str, Any] = {}


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An account with new keys: the channel's side of it, and the credentials for the merchant's TOML file."""

    account: Account
    credentials: dict[str, Any]


Accounts = Mapping[str, Account]
"""By merchant id."""


class EventType(StrEnum):
    """`PAYMENT_AGREED`: the buyer has approved the payment, and the money has not arrived yet. `APPROVAL_REVERSED`: the
    channel has ended that approval, because nobody captured in time.
    """

    PAYMENT_AGREED = "payment.agreed"
    APPROVAL_REVERSED = "approval.reversed"
    PAYMENT_PAID = "payment.paid"
    REFUND_SUCCEEDED = "refund.succeeded"
    DISPUTE_CHANGED = "dispute.changed"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The subject of a callback, with the payment as it was then: every resend has the same bytes."""

    callback_id: str
    type: EventType
    created_at: datetime
    payment: Payment
    refund: Refund | None = None
    dispute: Dispute | None = None

    @property
    def number(self) -> str:
        """The number by which faults are drawn: the dispute's, the refund's, or the payment's."""
        if self.dispute is not None:
            return self.dispute.dispute_id
        return self.payment.terms.out_trade_no if self.refund is None else self.refund.refund_no

    @property
    def key(self) -> Key:
        return self.payment.key


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A signed callback; header names are lower case."""

    headers: dict[str, str]
    body: bytes


class Channel(Protocol):
    """A channel's wire format: its calls, and how its callbacks look, are signed and are acknowledged."""

    name: str
    resend_gaps_s: tuple[int, ...]
    acknowledge_within_s: float
    callbacks_expire: bool
    """Whether a callback is valid for minutes only after it was signed; otherwise it is valid at any age."""

    needs_capture: bool
    """Whether the buyer only approves, and the merchant takes the money with a call of its own."""

    def open_account(self, name: str, callback_url: str) -> Opened:
        """Return an account with new keys for both sides. `callback_url` is what a merchant configures once."""
        ...

    def rotated(self, account: Account) -> Opened:
        """Return the account with new keys before the old ones, which stay valid, and the new credentials."""
        ...

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        """Return the callback of the event, signed with the account's first key: the same body for the same event.

        None if the channel sends no callback for such an event.
        """
        ...

    def elsewhere(self, number: str, account: Account, now: datetime) -> dict[str, Message]:
        """Return signed callbacks that the account gets because of the merchant's other systems, by what they are.

        `sale`: paid under this number, which nodrop did not make. `other_form`: money in a form or state that nodrop
        does not use. `unreadable`: money against the protocol. `no_money`, `other_world`: as they say.
        """
        ...

    def stranger(self, account: Account) -> Account:
        """Return the account with other secrets: its signatures do not verify."""
        ...

    def altered(self, message: Message) -> Message:
        """Return the message with another body under the same signature."""
        ...

    def acknowledges(self, status: int, body: bytes) -> bool:
        """Return whether this response ends the resends. The comparison is strict, as the channels' is."""
        ...
