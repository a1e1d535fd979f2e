"""Arguments of the decisions besides the state: the merchant's terms, and the rules in force."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from core.backoff import Backoff
from core.checkout import NO_PAYER, CheckoutRules, Payer
from core.order import CaseReason, Origin


class LatePolicy(StrEnum):
    """Effect on the *order* when money arrives after close. The payment is paid and the case open either way."""

    ACCEPT = "accept"
    FLAG = "flag"
    REFUND = "refund"


class DoublePolicy(StrEnum):
    """Effect on the *money* when a second payment of one order is paid. The case is open either way."""

    FLAG = "flag"
    REFUND = "refund"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in force: the back-off and the margin of the deployment, the policies of the account, the checkouts of
    its channel.

    `payable_margin_s` is how long after `payable_until` a channel may still report money. `unanswered_s` is how long
    queries of a payment must have had no answer before its callback alone pays.
    """

    backoff: Backoff = Backoff()
    payable_margin_s: float = 300.0
    unanswered_s: float = 30.0
    late_policy: LatePolicy = LatePolicy.ACCEPT
    double_policy: DoublePolicy = DoublePolicy.FLAG
    checkouts: CheckoutRules = CheckoutRules()


MISMATCHES = frozenset(
    {
        CaseReason.AMOUNT_MISMATCH,
        CaseReason.CURRENCY_MISMATCH,
        CaseReason.ACCOUNT_MISMATCH,
        CaseReason.NUMBER_MISMATCH,
        CaseReason.NUMBER_REUSED,
        CaseReason.TRANSACTION_CLAIMED_TWICE,
    }
)
"""Cases that put the evidence about an order in doubt: nothing is captured or refunded while one of them is open."""


class OrderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """The merchant's terms of an order. Two requests with equal terms are the same order."""

    order_no: str
    amount: int
    currency: str
    subject: str
    notify_url: str | None = None
    return_url: str | None = None
    metadata: dict[str, str] = {}
    accounts: tuple[str, ...] | None = None


class PaymentTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Terms of a payment. A watched payment brings its number, and may bring its channel reference and its end.

    `payer` is the one that the checkout of the method belongs to. `longest_window` is how long its channel takes money
    for a payment made elsewhere; None: no end is known beforehand.
    """

    account: str
    method: str = ""
    out_trade_no: str
    origin: Origin = Origin.OURS
    channel_reference: str | None = None
    payable_until: datetime | None = None
    payer: Payer = NO_PAYER
    longest_window: timedelta | None = None
    live: bool | None = None
