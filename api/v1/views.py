"""An order's state as /v1 shows it."""

from __future__ import annotations

import msgspec

from api.v1.schemas import (
    ApprovalView,
    CheckoutView,
    DisputeView,
    OpenCase,
    OrderView,
    PaidBy,
    PaymentView,
    RefundView,
)
from core.dispute import Dispute, unsettled
from core.order import OrderState, Payment, PaymentStatus, Refund, public_status
from storage.postgres.refund_approvals import Approval


def view_order(state: OrderState, public_url: str) -> OrderView:
    order = state.order
    return OrderView(
        order_no=order.order_no,
        status=order.status,
        public_status=public_status(order, state.payments, state.disputes),
        version=order.version,
        amount=order.amount,
        currency=order.currency,
        subject=order.subject,
        order_page=f"{public_url.rstrip('/')}/o/{order.page_token}",
        created_at=order.created_at,
        expires_at=order.expires_at,
        handed_off_at=order.handed_off_at,
        paid_at=order.paid_at,
        closed_at=order.closed_at,
        paid_by=None if order.paid_by is None else PaidBy(account=order.paid_by[0], out_trade_no=order.paid_by[1]),
        notify_url=order.notify_url,
        return_url=order.return_url,
        metadata=order.metadata,
        accounts=order.accounts,
        payments=[_view_payment(payment) for payment in state.payments],
        refunds=[view_refund(refund) for refund in state.refunds],
        disputes=[_view_dispute(dispute, state) for dispute in state.disputes],
        live=state.live,
        open_cases=[
            OpenCase(reason=reason, account=key[0] if key else None, out_trade_no=key[1] if key else None)
            for key, reason in sorted(state.open_cases, key=str)
        ],
    )


def _view_payment(payment: Payment) -> PaymentView:
    checkout = payment.checkout
    return PaymentView(
        out_trade_no=payment.out_trade_no,
        account=payment.channel_account,
        method=payment.method,
        attempt_no=payment.attempt_no,
        status=payment.status,
        origin=payment.origin,
        amount=payment.amount,
        currency=payment.currency,
        checkout=None
        if checkout is None
        else CheckoutView(kind=checkout.kind, value=checkout.value, ends_at=payment.checkout_ends_at),
        channel_reference=payment.channel_reference,
        channel_transaction_id=payment.channel_transaction_id,
        payable_until=payment.payable_until,
        paid_at=payment.paid_at,
        confirmed=payment.unconfirmed_since is None if payment.status is PaymentStatus.PAID else None,
        refunded_amount=payment.refunded_amount,
        remaining_amount=payment.remaining_amount,
        live=payment.live,
    )


def view_refund(refund: Refund) -> RefundView:
    return RefundView(
        refund_no=refund.refund_no,
        channel_refund_no=refund.channel_refund_no,
        account=refund.key.channel_account,
        out_trade_no=refund.key.out_trade_no,
        amount=refund.amount,
        currency=refund.currency,
        reason=refund.reason,
        status=refund.status,
        requested_at=refund.requested_at,
        settled_at=refund.settled_at,
        key=refund.request_key or None,
    )


def view_approval(approval: Approval) -> ApprovalView:
    return msgspec.convert(approval, ApprovalView, from_attributes=True)


def _view_dispute(dispute: Dispute, state: OrderState) -> DisputeView:
    is_left = dispute in unsettled(state.disputes, dispute.key)
    return DisputeView(
        dispute_id=dispute.dispute_id,
        account=dispute.channel_account,
        out_trade_no=dispute.out_trade_no,
        kind=dispute.kind,
        state=dispute.state,
        withheld=is_left and dispute.takes_money,
        amount=dispute.amount,
        currency=dispute.currency,
        reason=dispute.reason,
        outcome=dispute.outcome,
        respond_by=dispute.respond_by,
        opened_at=dispute.opened_at,
        changed_at=dispute.changed_at,
    )
