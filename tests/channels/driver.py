"""What the conformance suite asks of a channel's far side. A further channel adds one driver, and passes every test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from channels.base import Acknowledgement
from core.account import AccountConfig
from core.order import Payment, PaymentStatus
from simulator.base import Account
from tests.channels.wire import Answered, Asked

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"
AMOUNT = 8888
CURRENCY = "CNY"
TRANSACTION = "4200000000202611230000000001"
PAID_AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


class Key(StrEnum):
    """Signing keys of an account. Both of its own verify; the stranger's, under the name of one of them, does not."""

    NEW = "new"
    OLD = "old"
    STRANGER = "stranger"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the channel says of a payment, in no channel's words. `merchant` empty: the account's own."""

    status: str = "paid"
    number: str = NUMBER
    amount: int = AMOUNT
    currency: str = CURRENCY
    merchant: str = ""
    transaction: str = TRANSACTION
    refunded: int = 0


class Sent(NamedTuple):
    """A callback on the wire; header names are lower-case."""

    headers: dict[str, str]
    body: bytes


class Driver(Protocol):
    """Plays the channel: signs as it does, and says whatever a test wants to have said."""

    channel: str
    merchant_id: str
    tolerance_s: int
    acknowledgement: Acknowledgement
    signature_headers: tuple[str, ...]
    """Of a callback; taking one away must end it."""

    answers_are_bound: bool
    """Whether the signature of an answer covers the question, so that it does not verify for another one."""

    statement: bytes
    """Two rows: NUMBER paid by TRANSACTION at PAID_AT, and 1000 of it refunded as `R-000001`, a second later."""

    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        """Our side of the account, with these keys (both when none is named), the first of which signs."""
        ...

    def far_account(self) -> Account:
        """The simulator's side of it."""
        ...

    def render(self, said: Said) -> bytes:
        """The body of an answer to a query."""
        ...

    def render_callback(self, said: Said, notification_id: str) -> bytes:
        """The body of a callback."""
        ...

    def render_refusal(self, code: str) -> bytes:
        """The body of an answer that refuses."""
        ...

    def sign_answer(
        self, asked: Asked, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> Answered:
        """As the channel answers this question. `at` is when it says that it signed, now unless told."""
        ...

    def sign_callback(
        self, body: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW, merchant: str = ""
    ) -> Sent:
        """As the channel sends it."""
        ...

    def missing(self, asked: Asked) -> Answered:
        """The verified answer that there is no such payment."""
        ...


def payment(number: str = NUMBER, *, account: str = "main", payable_until: datetime | None = None) -> Payment:
    """Our row of it."""
    return Payment(
        channel_account=account,
        out_trade_no=number,
        order_no="A-1001",
        attempt_no=1,
        amount=AMOUNT,
        currency=CURRENCY,
        status=PaymentStatus.OPEN,
        payable_until=payable_until or datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
        created_at=datetime(2026, 11, 23, 3, 0, tzinfo=UTC),
    )


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


TODAY = date(2026, 11, 23)
