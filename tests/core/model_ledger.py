"""The channels' side of the model: what really happened to the money, and what a channel truthfully says of it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from core.evidence import Closed, Evidence, Missing, Paid, Refunded, Unpaid
from core.order import Payment, PaymentKey, RefundStatus

LAG_S_MAX = 299
"""Channels see their own payments late, yet within the margin that the decisions allow them (300 s)."""


@dataclass
class Entry:
    """One payment as its channel knows it. What it says of itself is what was asked for, unless it went wrong."""

    key: PaymentKey
    amount: int
    currency: str
    payable_until: datetime
    says: PaymentKey
    """Whose it says it is: `key`, unless it was created for another merchant or under another number."""
    seen_from: datetime
    is_closed: bool = False
    transaction: str | None = None
    told_from: datetime | None = None
    refunded: int = 0
    came_late: bool = False
    """The money came although the channel had said that none would."""

    @property
    def has_money(self) -> bool:
        return self.transaction is not None

    def is_as_asked(self, payment: Payment) -> bool:
        return (self.says, self.amount, self.currency) == (payment.key, payment.amount, payment.currency)


@dataclass
class GivenBack:
    """A refund as its channel knows it. `succeeds` is what becomes of it, whenever it becomes definite."""

    key: PaymentKey
    amount: int
    succeeds: bool
    status: RefundStatus = RefundStatus.PROCESSING


@dataclass
class Ledger:
    """All channels together."""

    entries: dict[PaymentKey, Entry] = field(default_factory=dict)
    refunds: dict[str, GivenBack] = field(default_factory=dict)

    def can_take_money(self, key: PaymentKey, now: datetime) -> bool:
        entry = self.entries.get(key)
        return entry is not None and not entry.is_closed and not entry.has_money and now < entry.payable_until

    def pay(self, key: PaymentKey, transaction: str, now: datetime, lag_s: int = 0) -> None:
        entry = self.entries[key]
        entry.came_late = not self.can_take_money(key, now)
        entry.transaction, entry.told_from = transaction, now + timedelta(seconds=lag_s)

    def close(self, key: PaymentKey) -> None:
        entry = self.entries.get(key)
        if entry is not None and not entry.has_money:
            entry.is_closed = True

    def give_back_outside(self, key: PaymentKey, amount: int) -> None:
        """Somebody refunds it at the channel, as far as that has not promised the money to us already."""
        entry = self.entries[key]
        entry.refunded = max(entry.refunded, min(amount, entry.amount - self._promised(key)))

    def refund(self, refund_no: str, key: PaymentKey, amount: int, *, succeeds: bool) -> RefundStatus | None:
        """Asked twice with the same number it is the same refund. None: refused, and no such refund is known."""
        known, entry = self.refunds.get(refund_no), self.entries[key]
        if known is not None:
            assert (known.key, known.amount) == (key, amount), "another refund under the same number"
            return known.status
        if entry.refunded + self._promised(key) + amount > entry.amount:
            return None
        self.refunds[refund_no] = GivenBack(key, amount, succeeds)
        return RefundStatus.PROCESSING

    def settle(self, refund_no: str) -> None:
        """It becomes definite."""
        refund = self.refunds.get(refund_no)
        if refund is not None and refund.status is RefundStatus.PROCESSING:
            refund.status = RefundStatus.SUCCEEDED if refund.succeeds else RefundStatus.FAILED
            self.entries[refund.key].refunded += refund.amount if refund.succeeds else 0

    def given_back_by_us(self, key: PaymentKey) -> int:
        ours = (refund for refund in self.refunds.values() if refund.key == key)
        return sum(refund.amount for refund in ours if refund.status is RefundStatus.SUCCEEDED)

    def _promised(self, key: PaymentKey) -> int:
        ours = (refund for refund in self.refunds.values() if refund.key == key)
        return sum(refund.amount for refund in ours if refund.status is RefundStatus.PROCESSING)

    def evidence(self, key: PaymentKey, now: datetime) -> Evidence:
        """What the channel says when it is asked now."""
        entry = self.entries.get(key)
        if entry is None or now < entry.seen_from:
            return Missing(channel_account=key.channel_account, out_trade_no=key.out_trade_no)
        common: dict[str, Any] = {
            "channel_account": entry.says.channel_account,
            "out_trade_no": entry.says.out_trade_no,
            "amount": entry.amount,
            "currency": entry.currency,
        }
        if entry.transaction is not None and entry.told_from is not None and entry.told_from <= now:
            common |= {"channel_transaction_id": entry.transaction, "at": entry.told_from}
            return Refunded(**common, refunded_amount=entry.refunded) if entry.refunded else Paid(**common)
        return Closed(**common) if entry.is_closed and not entry.has_money else Unpaid(**common)
