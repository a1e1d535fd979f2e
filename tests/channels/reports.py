"""Channel-independent values that the conformance suite hands to its drivers."""

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
END = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
"""The end of an unpaid payment, where the message contains one."""

PAID_AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
TODAY = date(2026, 11, 23)

OFFLINE_URL = "http://127.0.0.1:9"
"""The account's address in offline tests; `Driver.preceding_response` serves what an adapter fetches from it."""


class Key(StrEnum):
    """Signing keys of an account. NEW and OLD verify; STRANGER, under the id of one of them, does not.

    Where both sides have keys, NEW and OLD are pairs: ours sign calls, the channel's sign everything else.
    """

    NEW = "new"
    OLD = "old"
    STRANGER = "stranger"


class PaymentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The channel's state of a payment, independent of the channel.

    `status` is unpaid, agreed (to be captured), paid, refunded or closed; any other text is sent unchanged. None in
    `currency`, `merchant`, `app` or `transaction` stands for the driver's value. A refunded payment was paid; a paid
    one was paid at PAID_AT.
    """

    status: str = "paid"
    number: str = NUMBER
    amount: int = AMOUNT
    currency: str | None = None
    merchant: str | None = None
    app: str | None = None
    transaction: str | None = None
    refunded: int = 0


UNKNOWN_SUM = -1
"""In `Reportable.refunded`: the message says that something was refunded and not how much."""


def _as_it_is(refunded: int) -> int | None:
    return refunded


class Reportable(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a `PaymentReport` that one kind of message contains: a query's response, or a callback.

    `never` names the fields (and "at") that no status contains, `unpaid_not` those that only a paid status contains.
    Where `merchant` or `app` is contained, another one is another account. `refunded` maps a refunded amount to the
    `refunded_amount` of the evidence, or to None for `Paid`; UNKNOWN_SUM stands for `Refunded` without an amount. `end`
    is the payment's end that an unpaid status contains. `listed_refund` is the channel's id of the refund, where it
    lists refunds and reversals alike.
    """

    statuses: frozenset[str] = frozenset({"unpaid", "paid", "closed", "refunded"})
    never: frozenset[str] = frozenset({"app"})
    unpaid_not: frozenset[str] = frozenset()
    refunded: Callable[[int], int | None] = _as_it_is
    end: datetime | None = None
    listed_refund: str = ""

    def includes(self, report: PaymentReport) -> bool:
        """Whether the message contains every field in which the report differs from the default."""
        if report.status not in self.statuses:
            return False
        differs = {name for name in ("number", "amount", "currency", "merchant", "app") if _differs(report, name)}
        omitted = self.never if report.status in ("paid", "refunded") else self.never | self.unpaid_not
        return not differs & omitted


def _differs(report: PaymentReport, name: str) -> bool:
    return bool(getattr(report, name) != getattr(PaymentReport(), name))


class CallbackRequest(NamedTuple):
    """A callback on the wire; header names are lower-case."""

    headers: dict[str, str]
    body: bytes


class Form(StrEnum):
    """Form of a callback's content; garbage is made to match it."""

    JSON = "json"
    FORM = "form"


class BadCredential(NamedTuple):
    """An invalid value of one credentials key; the error message contains `named`.

    A secret value contains the word `canary`, and the message must not.
    """

    key: str
    value: object
    named: str


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}
