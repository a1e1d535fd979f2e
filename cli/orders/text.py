"""An order in words: what an operator reads, from state alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.output import instant, printable, span
from core.dispute import Dispute, is_withheld, unsettled
from core.money import decimal_text
from core.order import OrderState, Payment, PaymentStatus, Pending, PendingKind, Refund, public_status
from storage.postgres.cases import CaseRow
from storage.postgres.orders import TimelineEntry

COLUMNS = ("order", "placed", "status", "page says", "amount", "payments", "open cases")

Section = tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""A title, the columns, and the rows."""


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


def refund_question(state: OrderState, out_trade_no: str) -> str:
    """The question before money goes back."""
    payment = next((row for row in state.payments if row.out_trade_no == out_trade_no), None)
    amount = None if payment is None else payment.remaining_amount
    left = "" if payment is None or amount is None else f" {money(amount, payment.currency)}"
    return printable(f"give back{left} of payment {out_trade_no}, order {state.order.order_no}?")


def refund_line(state: OrderState, out_trade_no: str) -> str:
    """`refund r019…: 88.88 CNY of payment 019…, requested`."""
    refund = [row for row in state.refunds if row.key.out_trade_no == out_trade_no][-1]
    amount = money(refund.amount, refund.currency)
    return printable(f"refund {refund.refund_no}: {amount} of payment {out_trade_no}, {refund.status}")


def sections(
    state: OrderState, cases: Sequence[CaseRow], timeline: Sequence[TimelineEntry], public_url: str
) -> list[Section]:
    """All sections about one order."""
    return [
        ("order", ("what", "value"), _facts(state, public_url)),
        ("payments", _PAYMENT_COLUMNS, [_payment_row(payment) for payment in state.payments]),
        ("refunds", _REFUND_COLUMNS, [_refund_row(refund) for refund in state.refunds]),
        ("disputes", _DISPUTE_COLUMNS, [_dispute_row(dispute, state) for dispute in state.disputes]),
        ("scheduled", ("what", "payment", "attempt", "due", ""), _pending_rows(state)),
        ("open cases", ("id", "reason", "payment", "detail", "opened"), [_case_row(case) for case in cases]),
        ("timeline", ("at", "version", "what", "by", "payment", "detail"), [timeline_row(entry) for entry in timeline]),
    ]


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


_PAYMENT_COLUMNS = ("account", "number", "status", "method", "payable until", "paid at", "channel's number", "refunded")
_DISPUTE_COLUMNS = ("id", "payment", "kind", "state", "amount", "respond by", "reason", "outcome", "changed", "money")
_REFUND_COLUMNS = ("number", "payment", "amount", "why", "status", "requested", "definite", "last error")


def _facts(state: OrderState, public_url: str) -> list[tuple[str, object]]:
    order = state.order
    page_says = public_status(order, state.payments, state.disputes)
    facts: list[tuple[str, object]] = [
        ("number", order.order_no),
        ("status", f"{order.status} (its page says {page_says}), version {order.version}"),
        ("amount", money(order.amount, order.currency)),
        ("world", None if state.live is None else "live: real money" if state.live else "test: no real money"),
        ("subject", order.subject),
        ("placed", order.created_at),
        ("expires", order.expires_at),
        ("paid", order.paid_at),
        ("closed", order.closed_at),
        ("page", f"{public_url.rstrip('/')}/o/{order.page_token}"),
        ("notify_url", order.notify_url),
        ("metadata", ", ".join(f"{key}={value}" for key, value in order.metadata.items())),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def _payment_row(payment: Payment) -> Sequence[object]:
    refunded = _refunded(payment)
    notes = ["watched"] * (payment.origin == "watched") + ["unconfirmed"] * (payment.unconfirmed_since is not None)
    status = f"{payment.status} ({', '.join(notes)})" if notes else payment.status
    dates = (payment.payable_until, payment.paid_at)
    number = payment.channel_transaction_id
    return payment.channel_account, payment.out_trade_no, status, payment.method, *dates, number, refunded


def _refunded(payment: Payment) -> str:
    if payment.refunded_amount is None:
        return "an unknown sum"
    return money(payment.refunded_amount, payment.currency) if payment.refunded_amount else ""


def _dispute_row(dispute: Dispute, state: OrderState) -> Sequence[object]:
    payment = f"{dispute.channel_account} {dispute.out_trade_no}"
    amount = "" if dispute.amount is None or dispute.currency is None else money(dispute.amount, dispute.currency)
    withheld = "withheld" if dispute in unsettled(state.disputes, dispute.key) and dispute.takes_money else ""
    words = (dispute.reason, dispute.outcome)
    facts = (dispute.kind, dispute.state, amount, dispute.respond_by, *words, dispute.changed_at, withheld)
    return dispute.dispute_id, payment, *facts


def _refund_row(refund: Refund) -> Sequence[object]:
    payment = f"{refund.key.channel_account} {refund.key.out_trade_no}"
    dates = (refund.requested_at, refund.settled_at)
    amount = money(refund.amount, refund.currency)
    return refund.refund_no, payment, amount, refund.reason, refund.status, *dates, refund.last_error


def _pending_rows(state: OrderState) -> list[Sequence[object]]:
    return [
        (
            _what(state, row),
            row.key.out_trade_no if row.kind is PendingKind.QUERY else "",
            row.attempt,
            row.due_at,
            span((row.due_at - state.now).total_seconds()),
        )
        for row in sorted(state.pending, key=lambda row: row.due_at)
    ]


def _what(state: OrderState, row: Pending) -> str:
    payment = state.payment(row.key)
    if row.kind is PendingKind.DEADLINE:
        return "close unless paid"
    is_closed = payment is not None and payment.status is PaymentStatus.CLOSED
    return "ask again after the close" if is_closed else "ask the channel"


def _case_row(case: CaseRow) -> Sequence[object]:
    payment = f"{case.account} {case.out_trade_no}" if case.account else ""
    return case.id, case.reason, payment, case.detail, case.opened_at


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
