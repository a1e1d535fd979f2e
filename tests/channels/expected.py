"""The evidence that an adapter must return for a report, as far as the message contains it."""

from __future__ import annotations

from typing import Any

from core.evidence import Approved, Closed, Evidence, Paid, Refunded, Unpaid
from tests.channels.driver import Driver
from tests.channels.reports import PAID_AT, UNKNOWN_SUM, PaymentReport, Reportable

_WITHOUT_MONEY: dict[str, type[Approved | Closed]] = {"agreed": Approved, "closed": Closed}


def expected(driver: Driver, report: PaymentReport, reportable: Reportable) -> Evidence:
    """The whole evidence but for its other ids. An unpaid payment has neither the channel's number nor a time."""
    omitted = reportable.never if report.status in ("paid", "refunded") else reportable.never | reportable.unpaid_not
    common: dict[str, Any] = {"channel_account": "main", "out_trade_no": report.number}
    if "amount" not in omitted:
        common["amount"] = report.amount
    if "currency" not in omitted or "amount" in common:
        common["currency"] = report.currency or driver.currency
    if report.status == "unpaid":
        return Unpaid(**common, payable_until=reportable.end)
    if report.status in _WITHOUT_MONEY:
        return _WITHOUT_MONEY[report.status](**common)
    common["channel_transaction_id"] = driver.transaction if report.transaction is None else report.transaction
    common["at"] = None if "at" in omitted else PAID_AT
    refunded = reportable.refunded(report.refunded) if report.status == "refunded" else None
    common["shows_disputes"] = bool(reportable.listed_refund)
    if refunded is None:
        return Paid(**common)
    refunds = {reportable.listed_refund: refunded} if reportable.listed_refund else {}
    return Refunded(**common, refunded_amount=None if refunded == UNKNOWN_SUM else refunded, refunds=refunds)
