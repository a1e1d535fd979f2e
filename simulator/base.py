"""The seam between the simulated far side and a channel's wire format: one file per channel implements `Channel`.

A channel file knows addresses, signatures and shapes. It decides nothing: payments move in `far_side`, calls go wrong
in `calls`, callbacks are scheduled, spoilt and resent in `callbacks`, the same for every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
from msgspec import Meta

from simulator.asgi import Request, Response
from simulator.faults import CallKind
from simulator.ledger import Key, Payment, Refund

if TYPE_CHECKING:
    from simulator.far_side import FarSide


Name = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_\-]{1,64}\Z")]
Secret = Annotated[str, Meta(min_length=32, max_length=8192)]


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merchant's account at a channel. Every key verifies, the first one signs. `name` is what nodrop calls it."""

    name: Name
    merchant_id: Name
    keys: Annotated[dict[Name, Secret], Meta(min_length=1, max_length=8)]
    channel: Name = "sandbox"


Accounts = Mapping[str, Account]
"""By merchant id."""


class EventType(StrEnum):
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


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated call. `nth` counts calls of this kind about this number from 1."""

    account: Account
    request: Request
    now: datetime
    nth: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a channel. `number` finds the payment or refund asked about, before anything is verified."""

    kind: CallKind
    method: str
    pattern: str
    number: Callable[[Request], str]
    handle: Callable[[FarSide, Asked], Response]


class Channel(Protocol):
    """A channel's wire format: its calls, and how its callbacks look, are signed and are acknowledged."""

    name: str
    calls: tuple[Call, ...]
    resend_gaps_s: tuple[int, ...]
    acknowledge_within_s: float

    def claimed_merchant(self, request: Request) -> str:
        """Who the caller says it is, for the record of arrivals; nothing is verified yet."""
        ...

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        """Whose call it is, or the answer to somebody who is nobody."""
        ...

    def too_many(self, asked: Asked) -> Response:
        """The answer beyond the rate limit."""
        ...

    def render(self, event: Event, pay_url: str) -> bytes:
        """The body of a callback: the same bytes for the same event."""
        ...

    def sign(self, event: Event, body: bytes, account: Account, now: datetime) -> dict[str, str]:
        """The headers of a callback, signed with the account's first key."""
        ...

    def acknowledges(self, status: int, body: bytes) -> bool:
        """Whether this answer ends the resends. Compared strictly: what is almost an acknowledgement is none."""
        ...
