"""The channels' side of the model: what really happened to the money, and what a channel truthfully says of it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from core.evidence import Closed, Evidence, Missing, Paid, Refunded, Unpaid
from core.order import Payment, PaymentKey

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
class Ledger:
    """All channels together."""

    entries: dict[PaymentKey, Entry] = field(default_factory=dict)

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
