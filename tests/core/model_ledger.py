"""A model of the channels' ledger: the real state of the money, and the evidence that a channel gives of it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from core.evidence import Closed, Evidence, Missing, Paid, Refunded, Unpaid
from core.order import Payment, PaymentKey, RefundStatus

LAG_S_MAX = 299
"""Channels show their own payments late, but within the margin of the decisions (300 s)."""

WITHOUT_TOTAL = "wechat"
"""This channel's evidence says that something was refunded, and not how much."""


@dataclass
class Entry:
    """One payment at its channel. Amount, currency and number are as requested unless a fault changed them."""

    key: PaymentKey
    amount: int
    currency: str
    payable_until: datetime
    reported_key: PaymentKey
    """Key in its evidence: `key`, unless it was created for another merchant or under another number."""
    visible_from: datetime
    is_closed: bool = False
    transaction: str | None = None
    paid_visible_from: datetime | None = None
    refunded: int = 0
    paid_late: bool = False
    """The money arrived after the channel had excluded that."""

    @property
    def has_money(self) -> bool:
        return self.transaction is not None

    def matches(self, payment: Payment) -> bool:
        return (self.reported_key, self.amount, self.currency) == (payment.key, payment.amount, payment.currency)


@dataclass
class LedgerRefund:
    """A refund at its channel. `succeeds` is its result once it is definite."""

    key: PaymentKey
    amount: int
    succeeds: bool
    status: RefundStatus = RefundStatus.PROCESSING


@dataclass
class Ledger:
    """Ledger of all channels."""

    entries: dict[PaymentKey, Entry] = field(default_factory=dict)
    refunds: dict[str, LedgerRefund] = field(default_factory=dict)

    def can_take_money(self, key: PaymentKey, now: datetime) -> bool:
        entry = self.entries.get(key)
        return entry is not None and not entry.is_closed and not entry.has_money and now < entry.payable_until

    def pay(self, key: PaymentKey, transaction: str, now: datetime, lag_s: int = 0) -> None:
        entry = self.entries[key]
        entry.paid_late = not self.can_take_money(key, now)
        entry.transaction, entry.paid_visible_from = transaction, now + timedelta(seconds=lag_s)

    def close(self, key: PaymentKey) -> None:
        entry = self.entries.get(key)
        if entry is not None and not entry.has_money:
            entry.is_closed = True

    def refund_outside(self, key: PaymentKey, amount: int) -> None:
        """Refund at the channel itself, up to the amount that no refund of nodrop is processing."""
        entry = self.entries[key]
        entry.refunded = max(entry.refunded, min(amount, entry.amount - self._processing_amount(key)))

    def refund(self, refund_no: str, key: PaymentKey, amount: int, *, succeeds: bool) -> RefundStatus | None:
        """Make a refund once for each number. None: refused, and the channel knows no such refund."""
        existing, entry = self.refunds.get(refund_no), self.entries[key]
        if existing is not None:
            assert (existing.key, existing.amount) == (key, amount), "another refund under the same number"
            return existing.status
        if entry.refunded + self._processing_amount(key) + amount > entry.amount:
            return None
        self.refunds[refund_no] = LedgerRefund(key, amount, succeeds)
        return RefundStatus.PROCESSING

    def settle(self, refund_no: str) -> None:
        """Make a refund definite."""
        refund = self.refunds.get(refund_no)
        if refund is not None and refund.status is RefundStatus.PROCESSING:
            refund.status = RefundStatus.SUCCEEDED if refund.succeeds else RefundStatus.FAILED
            self.entries[refund.key].refunded += refund.amount if refund.succeeds else 0

    def amount_refunded_by_nodrop(self, key: PaymentKey) -> int:
        refunds = (refund for refund in self.refunds.values() if refund.key == key)
        return sum(refund.amount for refund in refunds if refund.status is RefundStatus.SUCCEEDED)

    def amount_refunded_outside(self, key: PaymentKey) -> int:
        return self.entries[key].refunded - self.amount_refunded_by_nodrop(key)

    def _processing_amount(self, key: PaymentKey) -> int:
        refunds = (refund for refund in self.refunds.values() if refund.key == key)
        return sum(refund.amount for refund in refunds if refund.status is RefundStatus.PROCESSING)

    def evidence(self, key: PaymentKey, now: datetime) -> Evidence:
        """Evidence that a query gives now."""
        entry = self.entries.get(key)
        if entry is None or now < entry.visible_from:
            return Missing(channel_account=key.channel_account, out_trade_no=key.out_trade_no)
        common: dict[str, Any] = {
            "channel_account": entry.reported_key.channel_account,
            "out_trade_no": entry.reported_key.out_trade_no,
            "amount": entry.amount,
            "currency": entry.currency,
        }
        if entry.transaction is not None and entry.paid_visible_from is not None and entry.paid_visible_from <= now:
            common |= {"channel_transaction_id": entry.transaction, "at": entry.paid_visible_from}
            if not entry.refunded:
                return Paid(**common)
            tells_total = key.channel_account != WITHOUT_TOTAL
            return Refunded(**common, refunded_amount=entry.refunded if tells_total else None)
        return Closed(**common) if entry.is_closed and not entry.has_money else Unpaid(**common)
