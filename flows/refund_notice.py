"""A refund that a notice or a row of a statement names: the channel's own number of it, and its sum where the query of
the payment tells no total.
"""

from __future__ import annotations

from channels.base import TellsRefunds
from core.admission import CallKind, Urgency
from core.evidence import Evidence, Paid, Refunded, Unclear
from core.lifecycle import with_refund, with_refund_number
from core.order import Payment
from flows.channel_call import Deferred, call_channel
from runtime.accounts import Account
from runtime.resources import Resources


async def with_named_refund(
    resources: Resources, account: Account, payment: Payment, urgency: Urgency, answer: Evidence, notice: Unclear
) -> Evidence | Deferred:
    """The answer to the query of a payment, with the number of the refund that the notice names, and with its sum.

    Raises:
        ChannelError: the refund could not be queried, or the channel refused that.
    """
    channel, refund_no = account.channel, notice.refund_no
    if refund_no is None or not isinstance(channel, TellsRefunds) or not isinstance(answer, Paid | Refunded):
        return with_refund_number(answer, notice)
    query = channel.query_refunded
    amount = await call_channel(resources, account, CallKind.QUERY_REFUND, urgency, query, payment, refund_no)
    if isinstance(amount, Deferred):
        return amount
    return with_refund_number(answer if amount is None else with_refund(answer, refund_no, amount), notice)
