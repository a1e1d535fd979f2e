"""The decisions: from an order's state and what was learnt to what is to be committed and scheduled. All of them pure.

    place, start_payment          the merchant wants an order, or another attempt to pay it
    on_created, on_create_refused the channel answered the creation of a payment
    on_callback, on_query         evidence, from the channel's own message or from its answer
    on_late_accepted              an operator accepts money that came after close
    on_refresh                    somebody looks: is there anything to ask?
    on_refund_requested           an operator gives back money that did not pay the order
    on_refund                     what the channel said of a refund
    on_deadline, on_close_*       the order's time is over, or the merchant ends it

Rules that hold in all of them: only evidence moves a payment; amount, currency, account and number are compared on
every kind of evidence, and a mismatch opens a case and never pays; *paid wins*; giving up is not evidence.
"""

from core.lifecycle.closing import on_close_attempted, on_close_requested, on_deadline
from core.lifecycle.judging import (
    is_definitely_unpaid,
    mismatch,
    on_callback,
    on_late_accepted,
    on_query,
    on_refresh,
)
from core.lifecycle.refunding import is_going_back, new_refund, on_refund, on_refund_requested, refund_number
from core.lifecycle.rules import DoublePolicy, LatePolicy, OrderTerms, PaymentTerms, Rules
from core.lifecycle.starting import on_create_refused, on_created, place, start_payment

__all__ = [
    "DoublePolicy",
    "LatePolicy",
    "OrderTerms",
    "PaymentTerms",
    "Rules",
    "is_definitely_unpaid",
    "is_going_back",
    "mismatch",
    "new_refund",
    "on_callback",
    "on_close_attempted",
    "on_close_requested",
    "on_create_refused",
    "on_created",
    "on_deadline",
    "on_late_accepted",
    "on_query",
    "on_refresh",
    "on_refund",
    "on_refund_requested",
    "place",
    "refund_number",
    "start_payment",
]
