"""Orders, payments, evidence and states for the tests of the decisions. Every default is an ordinary one."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from core.decision import Decision
from core.dispute import Dispute, DisputeKind, DisputeState
from core.evidence import Closed, Disputed, Evidence, Missing, Paid, Refunded, Unclear, Unpaid
from core.lifecycle import Rules
from core.order import (
    CaseReason,
    Order,
    OrderState,
    OrderStatus,
    Payment,
    PaymentKey,
    PaymentStatus,
    Pending,
    PendingKind,
    Refund,
    RefundReason,
    RefundStatus,
    deadline_key,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EXPIRES_AT = NOW + timedelta(minutes=30)
RULES = Rules()
MARGIN = timedelta(seconds=RULES.payable_margin_s)

ALIPAY = PaymentKey("alipay", "alipay-000001")
WECHAT = PaymentKey("wechat", "wechat-000002")
DEADLINE = deadline_key("A-1")

Cases = frozenset[tuple[PaymentKey | None, CaseReason]]

_ORDER = Order(
    order_no="A-1",
    amount=8888,
    currency="CNY",
    subject="A pot of tea",
    status=OrderStatus.PAYING,
    version=3,
    page_token="page-token",
    created_at=NOW - timedelta(minutes=1),
    expires_at=EXPIRES_AT,
    handed_off_at=NOW - timedelta(minutes=1),
    notify_url="https://shop.test/hook",
)


def an_order(**changes: Any) -> Order:
    """88.88 CNY, paying."""
    return replace(_ORDER, **changes)


def a_payment(key: PaymentKey = ALIPAY, **changes: Any) -> Payment:
    """Open, ours, of the order above."""
    return replace(
        Payment(
            channel_account=key.channel_account,
            out_trade_no=key.out_trade_no,
            order_no="A-1",
            attempt_no=1,
            amount=8888,
            currency="CNY",
            status=PaymentStatus.OPEN,
            payable_until=EXPIRES_AT,
            created_at=NOW - timedelta(minutes=1),
        ),
        **changes,
    )


def paid_payment(key: PaymentKey = ALIPAY, **changes: Any) -> Payment:
    """Paid, with transaction t-1."""
    fields = {"status": PaymentStatus.PAID, "channel_transaction_id": "t-1", "paid_at": NOW} | changes
    return a_payment(key, **fields)


def a_row(key: PaymentKey, **changes: Any) -> Pending:
    """Pending row of the second query of a payment, or of the first attempt of a deadline."""
    is_deadline = key == DEADLINE
    return replace(
        Pending(
            key=key,
            kind=PendingKind.DEADLINE if is_deadline else PendingKind.QUERY,
            order_no="A-1",
            attempt=1 if is_deadline else 2,
            arm_no=7,
            due_at=EXPIRES_AT if is_deadline else NOW,
        ),
        **changes,
    )


def a_refund(key: PaymentKey = ALIPAY, **changes: Any) -> Refund:
    """Requested, of the whole amount."""
    return replace(
        Refund(
            refund_no=f"r{key.out_trade_no}",
            key=key,
            order_no="A-1",
            amount=8888,
            currency="CNY",
            reason=RefundReason.LATE,
            status=RefundStatus.REQUESTED,
            requested_at=NOW,
        ),
        **changes,
    )


def a_dispute(key: PaymentKey = ALIPAY, **changes: Any) -> Dispute:
    """An open claim about the whole amount."""
    return replace(
        Dispute(
            dispute_id="d-1",
            channel_account=key.channel_account,
            out_trade_no=key.out_trade_no,
            order_no="A-1",
            kind=DisputeKind.CLAIM,
            state=DisputeState.OPEN,
            amount=8888,
            currency="CNY",
            opened_at=NOW,
            changed_at=NOW,
        ),
        **changes,
    )


def a_state(
    order: Order,
    *payments: Payment,
    cases: Cases = frozenset(),
    refunds: tuple[Refund, ...] = (),
    disputes: tuple[Dispute, ...] = (),
    now: datetime = NOW,
) -> OrderState:
    """State with its pending rows: one for each open payment, and one for the deadline of an open order."""
    rows = [a_row(payment.key) for payment in payments if payment.status is PaymentStatus.OPEN]
    rows += [] if order.is_resolved else [a_row(DEADLINE)]
    return OrderState(
        order=order,
        now=now,
        payments=payments,
        pending=tuple(rows),
        refunds=refunds,
        disputes=disputes,
        open_cases=cases,
    )


def paid_order(key: PaymentKey = ALIPAY, **changes: Any) -> Order:
    fields = {"status": OrderStatus.PAID, "paid_by": key, "paid_at": NOW} | changes
    return an_order(**fields)


def closed_order(**changes: Any) -> Order:
    fields = {"status": OrderStatus.CLOSED, "closed_at": NOW, "expires_at": NOW - timedelta(minutes=1)} | changes
    return an_order(**fields)


# -- evidence of each kind, of the payment above unless changed --------------------------------------------------------


def _fields(key: PaymentKey, changes: dict[str, Any], **own: Any) -> dict[str, Any]:
    return {"channel_account": key.channel_account, "out_trade_no": key.out_trade_no} | own | changes


def paid(key: PaymentKey = ALIPAY, **changes: Any) -> Paid:
    return Paid(**_fields(key, changes, amount=8888, currency="CNY", channel_transaction_id="t-1"))


def refunded(key: PaymentKey = ALIPAY, **changes: Any) -> Refunded:
    return Refunded(
        **_fields(key, changes, amount=8888, currency="CNY", channel_transaction_id="t-1", refunded_amount=100)
    )


def unpaid(key: PaymentKey = ALIPAY, **changes: Any) -> Unpaid:
    return Unpaid(**_fields(key, changes))


def closed(key: PaymentKey = ALIPAY, **changes: Any) -> Closed:
    return Closed(**_fields(key, changes))


def missing(key: PaymentKey = ALIPAY, **changes: Any) -> Missing:
    return Missing(**_fields(key, changes))


def unclear(key: PaymentKey = ALIPAY, **changes: Any) -> Unclear:
    return Unclear(**_fields(key, changes, reason="timeout"))


def disputed(key: PaymentKey = ALIPAY, **changes: Any) -> Disputed:
    return Disputed(
        **_fields(
            key,
            changes,
            dispute_id="d-1",
            dispute_kind=DisputeKind.CLAIM,
            state=DisputeState.OPEN,
            disputed_amount=8888,
            disputed_currency="CNY",
            changed_at=NOW,
        )
    )


EVIDENCE_KINDS = (paid, refunded, unpaid, closed, missing, unclear)
WITH_MONEY = (paid, refunded)
WITHOUT_MONEY: tuple[Evidence, ...] = (unpaid(), closed(), missing())


# -- parts of a decision -----------------------------------------------------------------------------------------------


def case_reasons(decision: Decision) -> list[CaseReason]:
    return [] if decision.change is None else [case.reason for case in decision.change.cases]


def order_after(decision: Decision) -> Order:
    assert decision.change is not None
    return decision.change.order
