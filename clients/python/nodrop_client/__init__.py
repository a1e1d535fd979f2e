"""A typed client for merchants of nodrop: place orders, watch them, verify and deduplicate notifications."""

from nodrop_client.async_client import AsyncClient
from nodrop_client.client import Client
from nodrop_client.errors import (
    AnswerTooLarge,
    AnswerTooSlow,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NodropError,
    NotDefinite,
    NotFound,
    NotificationForged,
    NotificationRejected,
    NotificationStale,
    NotificationUnreadable,
    NumberTaken,
    OrderClosed,
    OrderConflict,
    OrderPaid,
    PaymentRefused,
    PaymentUnclear,
    Problem,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownAccount,
    UnreadableAnswer,
)
from nodrop_client.inbox import Change, Inbox, MemoryInbox, SqlInbox, mark
from nodrop_client.models import (
    Case,
    CasesQuery,
    Checkout,
    Dispute,
    DisputeState,
    NewOrder,
    NewPayment,
    OpenCase,
    Order,
    OrdersQuery,
    OrderStatus,
    PaidBy,
    Payer,
    Payment,
    PaymentStatus,
    PublicStatus,
    Refund,
    RefundStatus,
    TimelineEntry,
    Watch,
)
from nodrop_client.notifications import (
    Notification,
    NotificationData,
    NotificationType,
    NotifiedDispute,
    NotifiedPayment,
    NotifiedRefund,
    verify,
)
from nodrop_client.pauses import Retries

__all__ = [
    "AnswerTooLarge", "AnswerTooSlow", "AsyncClient", "Case", "CasesQuery", "Change", "Checkout", "Client", "Dispute",
    "DisputeState", "Forbidden", "Inbox", "InvalidRequest", "MemoryInbox", "NewOrder", "NewPayment", "NoAnswer",
    "NodropError", "NotDefinite", "NotFound", "Notification", "NotificationData", "NotificationForged",
    "NotificationRejected", "NotificationStale", "NotificationType", "NotificationUnreadable", "NotifiedDispute",
    "NotifiedPayment", "NotifiedRefund", "NumberTaken", "OpenCase", "Order", "OrderClosed", "OrderConflict",
    "OrderPaid", "OrderStatus", "OrdersQuery", "PaidBy", "Payer", "Payment", "PaymentRefused", "PaymentStatus",
    "PaymentUnclear", "Problem", "PublicStatus", "Refund", "RefundStatus", "Retries", "SqlInbox", "TimelineEntry",
    "TooManyRequests", "Unauthorized", "Unavailable", "UnknownAccount", "UnreadableAnswer", "Watch", "mark", "verify",
]  # fmt: skip
