"""Alipay's trades in query responses and callbacks, translated into evidence."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from channels.alipay.wire import read_time
from core.errors import ChannelUnreadable, InvalidRequest
from core.evidence import Closed, Evidence, Paid, Refunded, Unclear, Unpaid
from core.money import AMOUNT_MAX, is_currency, minor_units

CURRENCY = "CNY"

ID = r"[0-9A-Za-z_\-|*.:]{1,64}"
Id = Annotated[str, msgspec.Meta(pattern=rf"\A{ID}\Z")]
Number = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,255}\Z")]
"""A merchant's number of a trade: also of another system, in whatever form that one uses."""

_State = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][A-Z_]{1,63}\Z")]


_STATES = frozenset({"WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED"})


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """The relevant fields of a query's response and of a callback; amounts are yuan as text.

    A query has `send_pay_date`, a callback `gmt_payment`. `refund_fee` is the total refunded so far, and only
    callbacks have it: after a partial refund a query has TRADE_SUCCESS with the whole amount, and after a full one
    TRADE_CLOSED.
    https://opendocs.alipay.com/open/02ekfh (query), https://opendocs.alipay.com/open/270/105902 (callback)
    """

    out_trade_no: Number
    trade_status: _State
    total_amount: str
    trade_no: Id | None = None
    trans_currency: str = CURRENCY
    send_pay_date: str | None = None
    gmt_payment: str | None = None
    gmt_refund: str | None = None
    refund_fee: str = "0"
    app_id: Id | None = None
    seller_id: Id | None = None


def evidence_of(trade: Trade, channel_account: str) -> Evidence:
    """Evidence of the trade, compared with nothing.

    TRADE_FINISHED is paid like TRADE_SUCCESS, but can no longer be refunded. TRADE_CLOSED has two meanings: closed
    without payment, or paid and fully refunded, which only the times and the sum of a paid trade show. Other products
    have states of their own (TRADE_PENDING, WAIT_SELLER_SEND_GOODS), which prove nothing here.

    Raises:
        ChannelUnreadable: an amount, a time or a currency is malformed, or a paid trade has no transaction number.
    """
    paid_at = _time(trade.send_pay_date or trade.gmt_payment)
    amount, given_back = _amount(trade.total_amount, trade), _amount(trade.refund_fee, trade)
    common: dict[str, Any] = {
        "channel_account": channel_account,
        "out_trade_no": trade.out_trade_no,
        "amount": amount,
        "currency": trade.trans_currency,
        "channel_transaction_id": trade.trade_no,
        "at": paid_at,
    }
    if trade.trade_status not in _STATES:
        return Unclear(**common, reason="trade_status")
    if trade.trade_status == "WAIT_BUYER_PAY":
        return Unpaid(**common)
    if trade.trade_status == "TRADE_CLOSED":
        if paid_at is None and _time(trade.gmt_refund) is None and given_back == 0:
            return Closed(**common)
        given_back = given_back or amount
    if trade.trade_no is None:
        raise ChannelUnreadable("paid_without_transaction")
    return Refunded(**common, refunded_amount=given_back) if given_back else Paid(**common)


def _amount(text: str, trade: Trade) -> int:
    if not is_currency(trade.trans_currency):
        raise ChannelUnreadable("currency")
    try:
        amount = minor_units(text, trade.trans_currency)
    except InvalidRequest:
        raise ChannelUnreadable("amount") from None
    if amount > AMOUNT_MAX:
        raise ChannelUnreadable("amount")
    return amount


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else read_time(text)
    except ValueError:
        raise ChannelUnreadable("time") from None
