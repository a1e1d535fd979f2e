"""What an adapter must make of what the channel said, as far as the channel is able to say it."""

from __future__ import annotations

from typing import Any

from core.evidence import Approved, Closed, Evidence, Paid, Refunded, Unpaid
from tests.channels.driver import PAID_AT, Driver, Said, Tells

_WITHOUT_MONEY: dict[str, type[Unpaid | Approved | Closed]] = {
    "unpaid": Unpaid,
    "agreed": Approved,
    "closed": Closed,
}


def expected(driver: Driver, said: Said, tells: Tells) -> Evidence:
    """The evidence, whole. Of a payment without money the channel's number and the time are left out."""
    untold = tells.never if said.status in ("paid", "refunded") else tells.never | tells.unpaid_not
    common: dict[str, Any] = {"channel_account": "main", "out_trade_no": said.number}
    if "amount" not in untold:
        common["amount"] = said.amount
    if "currency" not in untold or "amount" in common:
        common["currency"] = said.currency or driver.currency
    if said.status in _WITHOUT_MONEY:
        return _WITHOUT_MONEY[said.status](**common)
    common["channel_transaction_id"] = driver.transaction if said.transaction is None else said.transaction
    common["at"] = None if "at" in untold else PAID_AT
    refunded = tells.refunded(said.refunded) if said.status == "refunded" else None
    return Paid(**common) if refunded is None else Refunded(**common, refunded_amount=refunded)
