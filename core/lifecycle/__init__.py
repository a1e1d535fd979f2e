"""Decisions: from an order's state and new facts to what is committed and scheduled. All of them are pure.

    place, start_payment            the merchant places an order, or starts another payment of it
    on_created, on_create_refused   the channel's response to the creation of a payment
    on_callback, on_query           evidence, from the channel's own message or from a query
    with_notice, with_refund        the answer to a query, with sums that a refund notice or one refund tells
    named_payment, other_named      the payment that evidence is about, by any id in it
    plan_callback, callback_result, with_end  whether a callback is committed or queried, and when it is done
    on_unanswered                   a callback whose queries have had no answer
    on_late_accepted                an operator accepts money that came after close
    on_attached                     an operator attaches money that was unknown here
    on_erase, open_work             an operator erases personal texts once nothing is open
    on_left_payer                   an ended order that still has its payer
    on_refresh                      the payments that a refresh queries, closed ones too
    on_return, on_unpaid_return     the buyer comes back, and has not paid
    on_refund_requested             an operator gives back money, all of it or a part
    on_capture_refused              the channel's definite refusal to take the money of an approval
    on_refund                       the status of a refund at its channel, and the channel's own number of it
    with_refund_number              the same number from a refund notice
    on_dispute                      a channel takes money back, or may do so
    on_deadline, on_close_*         the order's time is over, or the merchant ends it

Rules that hold in all of them: only evidence moves a payment; amount, currency, account and number are compared on
every kind of evidence, and a mismatch opens a case and never pays; *paid wins*; money that has gone back pays nothing;
giving up is not evidence.
"""

from core.lifecycle.attaching import on_attached
from core.lifecycle.callbacks import on_callback
from core.lifecycle.capturing import Approval, Queried, is_new_approval, on_capture_refused
from core.lifecycle.closing import on_close_attempted, on_close_requested, on_deadline
from core.lifecycle.disputing import on_dispute, shows_other_money
from core.lifecycle.ending import is_definitely_unpaid
from core.lifecycle.erasing import on_erase, on_left_payer, open_work
from core.lifecycle.judging import (
    CallbackPlan,
    CallbackResult,
    callback_result,
    mismatch,
    on_query,
    plan_callback,
    with_end,
)
from core.lifecycle.naming import is_surely_named, named_payment, other_named
from core.lifecycle.paying import acceptable_payments, on_late_accepted
from core.lifecycle.rechecking import on_refresh
from core.lifecycle.refund_amounts import is_going_back, outside_amount, promised_amount, refundable_amount
from core.lifecycle.refund_numbers import with_refund_number
from core.lifecycle.refund_sums import with_notice, with_refund
from core.lifecycle.refunding import (
    RefundRequest,
    is_same_refund,
    known_refund,
    needs_approval,
    new_refund,
    on_refund,
    on_refund_requested,
    refund_number,
    refund_obstacle,
    refund_wait_s,
)
from core.lifecycle.returning import is_unpaid_return, on_return, on_unpaid_return
from core.lifecycle.rules import MISMATCHES, DoublePolicy, LatePolicy, OrderTerms, PaymentTerms, Rules
from core.lifecycle.starting import (
    is_checkout_over,
    on_create_refused,
    on_created,
    open_payment,
    other_terms,
    place,
    start_payment,
)
from core.lifecycle.trusting import Message, on_unanswered
from core.lifecycle.unpaid import is_free_of_money, is_verified_unpaid

__all__ = [
    "MISMATCHES",
    "Approval",
    "CallbackPlan",
    "CallbackResult",
    "DoublePolicy",
    "LatePolicy",
    "Message",
    "OrderTerms",
    "PaymentTerms",
    "Queried",
    "RefundRequest",
    "Rules",
    "acceptable_payments",
    "callback_result",
    "is_checkout_over",
    "is_definitely_unpaid",
    "is_free_of_money",
    "is_going_back",
    "is_new_approval",
    "is_same_refund",
    "is_surely_named",
    "is_unpaid_return",
    "is_verified_unpaid",
    "known_refund",
    "mismatch",
    "named_payment",
    "needs_approval",
    "new_refund",
    "on_attached",
    "on_callback",
    "on_capture_refused",
    "on_close_attempted",
    "on_close_requested",
    "on_create_refused",
    "on_created",
    "on_deadline",
    "on_dispute",
    "on_erase",
    "on_late_accepted",
    "on_left_payer",
    "on_query",
    "on_refresh",
    "on_refund",
    "on_refund_requested",
    "on_return",
    "on_unanswered",
    "on_unpaid_return",
    "open_payment",
    "open_work",
    "other_named",
    "other_terms",
    "outside_amount",
    "place",
    "plan_callback",
    "promised_amount",
    "refund_number",
    "refund_obstacle",
    "refund_wait_s",
    "refundable_amount",
    "shows_other_money",
    "start_payment",
    "with_end",
    "with_notice",
    "with_refund",
    "with_refund_number",
]
