"""What channels say and send, in no channel's words: the values between the conformance suite and its drivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"
OTHER_NUMBER = NUMBER[:-1] + "9"
AMOUNT = 8888
"""In minor units of the driver's currency, which has two decimal places."""

REFUND_NO = "R-000001"
PAID_AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
TODAY = date(2026, 11, 23)

OFFLINE_URL = "http://127.0.0.1:9"
"""The account's address in tests that need no wire. What an adapter fetches from there, `Driver.aside` answers."""


class Key(StrEnum):
    """Signing keys of an account. Both of its own verify; the stranger's, under the name of one of them, does not.

    Where two sides have keys of their own, NEW and OLD are a pair of each: ours for calls, the channel's for the rest.
    """

    NEW = "new"
    OLD = "old"
    STRANGER = "stranger"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the channel says of a payment, in no channel's words.

    `status` is unpaid, agreed (to be captured), paid, refunded or closed; any other text is told as it is. `currency`,
    `merchant`, `app` and `transaction` None: the driver's own. A payment that is refunded has been paid; what is paid
    was paid at PAID_AT.
    """

    status: str = "paid"
    number: str = NUMBER
    amount: int = AMOUNT
    currency: str | None = None
    merchant: str | None = None
    app: str | None = None
    transaction: str | None = None
    refunded: int = 0


def _as_it_is(refunded: int) -> int | None:
    return refunded


class Tells(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel is able to tell in one place: in the answer to a query, or in a callback.

    `statuses` can be told there. `never` names the fields of `Said` (and "at") that are not told whatever the status,
    `unpaid_not` those that are told only when there is money. `merchant` and `app` in neither of them: another one is
    another account. `refunded` maps an amount given back to the `refunded_amount` of the evidence, None to `Paid`.
    """

    statuses: frozenset[str] = frozenset({"unpaid", "paid", "closed", "refunded"})
    never: frozenset[str] = frozenset({"app"})
    unpaid_not: frozenset[str] = frozenset()
    refunded: Callable[[int], int | None] = _as_it_is

    def can_tell(self, said: Said) -> bool:
        """Whether all in which it differs from the payment as it should be can be told here."""
        if said.status not in self.statuses:
            return False
        differs = {name for name in ("number", "amount", "currency", "merchant", "app") if _differs(said, name)}
        untold = self.never if said.status in ("paid", "refunded") else self.never | self.unpaid_not
        return not differs & untold


def _differs(said: Said, name: str) -> bool:
    return bool(getattr(said, name) != getattr(Said(), name))


class Sent(NamedTuple):
    """A callback on the wire; header names are lower-case."""

    headers: dict[str, str]
    body: bytes


class Form(StrEnum):
    """In what form the content of a callback is: garbage is made to match."""

    JSON = "json"
    FORM = "form"


class Wrong(NamedTuple):
    """A value under `key` of the credentials that no account can be opened with; the message has `named` in it.

    A value that is secret has the word `canary` in it, and the message must not.
    """

    key: str
    value: object
    named: str


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}
