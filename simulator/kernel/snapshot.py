"""Snapshot of the ledger for the control API and the oracle: frozen, complete, without secrets."""

from __future__ import annotations

from datetime import datetime

import msgspec

from simulator.kernel.deliveries import AcknowledgedCallback, Tally
from simulator.kernel.ledger import Payment, PaymentStatus, Refund, RefundStatus, Total
from simulator.kernel.simulation import Simulation


class LedgerPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment with its account's name and the counts of its callbacks. `is_payable`: the buyer can pay it now, and
    its money needs no capture.
    """

    account: str
    merchant_id: str
    out_trade_no: str
    amount: int
    currency: str
    status: PaymentStatus
    transaction_id: str | None = None
    subject: str = ""
    refunded_amount: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    settled_late: bool = False
    callback_url: str = ""
    return_url: str | None = None
    pay_url: str = ""
    is_payable: bool = False
    callbacks: Tally = msgspec.field(default_factory=Tally)


class LedgerRefund(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    merchant_id: str
    refund_no: str
    out_trade_no: str
    amount: int
    currency: str
    status: RefundStatus
    refunded_at: datetime | None = None
    in_console: bool = False


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All payments and refunds. `payments_total` counts all payments if only some are included."""

    taken_at: datetime
    payments: tuple[LedgerPayment, ...] = ()
    payments_total: int = 0
    refunds: tuple[LedgerRefund, ...] = ()
    totals: tuple[Total, ...] = ()
    acknowledged: tuple[AcknowledgedCallback, ...] = ()


def take(simulation: Simulation, offset: int = 0, limit: int | None = None) -> LedgerSnapshot:
    """Return the ledger now; `offset` and `limit` choose payments, oldest first, and nothing else."""
    now = simulation.now()
    payments = list(simulation.ledger.payments(now))
    shown = payments[offset:] if limit is None else payments[offset : offset + limit]
    return LedgerSnapshot(
        taken_at=now,
        payments=tuple(_payment(simulation, payment) for payment in shown),
        payments_total=len(payments),
        refunds=tuple(_refund(simulation, refund) for refund in simulation.ledger.refunds()),
        totals=tuple(simulation.ledger.totals()),
        acknowledged=tuple(simulation.sender.acknowledged),
    )


def _payment(simulation: Simulation, payment: Payment) -> LedgerPayment:
    terms = payment.terms
    return LedgerPayment(
        account=simulation.accounts[payment.merchant_id].name,
        merchant_id=payment.merchant_id,
        out_trade_no=terms.out_trade_no,
        amount=terms.amount,
        currency=terms.currency,
        status=payment.status,
        transaction_id=payment.transaction_id,
        subject=terms.subject,
        refunded_amount=payment.refunded_amount,
        created_at=payment.created_at,
        expires_at=terms.expires_at,
        paid_at=payment.paid_at,
        closed_at=payment.closed_at,
        settled_late=payment.settled_late,
        callback_url=terms.callback_url,
        return_url=terms.return_url,
        pay_url=simulation.pay_url(payment),
        is_payable=_is_payable(simulation, payment),
        callbacks=simulation.sender.tallies.get(payment.key) or Tally(),
    )


def _is_payable(simulation: Simulation, payment: Payment) -> bool:
    channel = simulation.channels[simulation.accounts[payment.merchant_id].channel]
    has_link = payment.link_ends_at is None or simulation.now() < payment.link_ends_at
    return payment.status is PaymentStatus.UNPAID and has_link and not channel.needs_capture


def _refund(simulation: Simulation, refund: Refund) -> LedgerRefund:
    return LedgerRefund(
        account=simulation.accounts[refund.merchant_id].name,
        merchant_id=refund.merchant_id,
        refund_no=refund.refund_no,
        out_trade_no=refund.out_trade_no,
        amount=refund.amount,
        currency=refund.currency,
        status=refund.status,
        refunded_at=refund.refunded_at,
        in_console=refund.in_console,
    )
