"""An order in words: what an operator reads, from state alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.output import instant, printable
from core.dispute import is_withheld
from core.money import decimal_text
from core.order import OrderState, Refund, public_status
from storage.postgres.orders import TimelineEntry
from storage.postgres.refund_approvals import Approval

COLUMNS = ("order", "placed", "status", "page says", "amount", "payments", "open cases")


def order_row(state: OrderState) -> Sequence[object]:
    """An order in a list of them."""
    order = state.order
    payments = ", ".join(f"{payment.channel_account} {payment.status}" for payment in state.payments)
    cases = ", ".join(sorted(reason for _, reason in state.open_cases))
    says = public_status(order, state.payments, state.disputes)
    return order.order_no, order.created_at, order.status, says, money(order.amount, order.currency), payments, cases


def headline(state: OrderState) -> str:
    """`order 2026-1123-0001: paid 88.88 CNY by main 019…, version 4`."""
    order = state.order
    by = f" by {order.paid_by.channel_account} {order.paid_by.out_trade_no}" if order.paid_by else ""
    amount = money(order.amount, order.currency)
    doubt = ", its money is DISPUTED" if order.paid_by and is_withheld(state.disputes, order.paid_by) else ""
    test = ", TEST money" if state.live is False else ""
    return printable(f"order {order.order_no}: {order.status}{by}, {amount}, version {order.version}{doubt}{test}")


def refund_line(refund: Refund) -> str:
    """`refund r019…: 88.88 CNY of payment 019…, requested`."""
    amount = money(refund.amount, refund.currency)
    there = f" as {refund.channel_refund_no} at the channel" if refund.channel_refund_no else ""
    of_payment = f"{amount} of payment {refund.key.out_trade_no}"
    return printable(f"refund {refund.refund_no}: {of_payment}, {refund.status}{there}")


def approval_line(approval: Approval) -> str:
    """`approval 7: 888.00 CNY of payment 019…, waits for a second operator until 2026-03-04 12:00:00Z`."""
    amount = money(approval.amount, approval.currency)
    waits = f"waits for a second operator until {instant(approval.expires_at)}"
    state = waits if approval.is_waiting else approval.decision or "expired"
    return printable(f"approval {approval.id}: {amount} of payment {approval.out_trade_no}, {state}")


def timeline_row(entry: TimelineEntry) -> Sequence[str]:
    """One line of the history; without a version it was only seen."""
    version = "-" if entry.version is None else str(entry.version)
    payment = f"{entry.account} {entry.out_trade_no}" if entry.account else "-"
    detail = ", ".join(part for part in (_evidence(entry.evidence), entry.note) if part)
    by = f"{entry.by} {entry.api_key}" if entry.api_key else entry.by
    return tuple(map(printable, (instant(entry.at), version, entry.kind, by, payment, detail or "-")))


def money(amount: int, currency: str) -> str:
    """`88.88 CNY`."""
    return f"{decimal_text(amount, currency)} {currency}"


def _evidence(evidence: dict[str, Any] | None) -> str:
    """The evidence in a few words."""
    if not evidence:
        return ""
    words = [f"channel says {evidence.get('kind')}"]
    if evidence.get("amount") is not None and evidence.get("currency"):
        words.append(money(int(evidence["amount"]), str(evidence["currency"])))
    if evidence.get("channel_transaction_id"):
        words.append(f"as {evidence['channel_transaction_id']}")
    return " ".join(words)
