"""Alipay's messages to the application's gateway address (应用网关): complaints of buyers, and refunds to bank cards.

They are signed like callbacks, and have `msg_method` and `biz_content` instead of a trade's fields.
https://opendocs.alipay.com/open/02ekfv (depositback), https://opendocs.alipay.com/open/028sor (complaints): the message
of a complaint holds only its id, and `alipay.merchant.tradecomplain.query` its details. A complaint moves no money.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from channels.alipay.trade import CURRENCY, Id
from channels.alipay.wire import read_time
from channels.kit.signed_message import read_json
from core.dispute import DisputeKind, DisputeState
from core.errors import ChannelUnreadable, InvalidRequest
from core.evidence import Disputed, Evidence
from core.money import minor_units

COMPLAINT = "alipay.merchant.tradecomplain.changed"
DEPOSIT_BACK = "alipay.trade.refund.depositback.completed"
COMPLAINT_QUERY = "alipay.merchant.tradecomplain.query"

_STATES: Mapping[str, DisputeState] = MappingProxyType(
    {
        "MERCHANT_PROCESSING": DisputeState.OPEN,
        "MERCHANT_FEEDBACK_OVERTIME": DisputeState.OPEN,
        "MERCHANT_FEEDBACKED": DisputeState.UNDER_REVIEW,
        "PLATFORM_PROCESSING": DisputeState.UNDER_REVIEW,
        "PLATFORM_FINISH": DisputeState.CLOSED,
        "FINISHED": DisputeState.CLOSED,
        "CANCELLED": DisputeState.CLOSED,
        "CLOSED": DisputeState.CLOSED,
    }
)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    notify_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,128}\Z")]
    msg_method: str
    app_id: Id
    utc_timestamp: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{10,13}\Z")]
    biz_content: str

    @property
    def sent_at(self) -> datetime:
        """Milliseconds since 1970."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(self.utc_timestamp))


MESSAGE_FIELDS = Message.__struct_fields__


class _ComplaintNotice(msgspec.Struct, frozen=True, kw_only=True):
    complain_event_id: Id


class Complaint(_ComplaintNotice, frozen=True, kw_only=True):
    status: str
    merchant_order_no: Id | None = None
    trade_no: Id | None = None
    trade_amount: str | None = None
    gmt_create: str | None = None
    gmt_modified: str | None = None


class _DepositBack(msgspec.Struct, frozen=True, kw_only=True):
    """S: the bank has the money. F: the card did not take it, and it went to the buyer's Alipay balance."""

    trade_no: Id
    out_trade_no: Id
    out_request_no: Id
    dback_status: Literal["S", "F"]
    dback_amount: str | None = None


def message_evidence(message: Message, account: str) -> Evidence | None:
    """Evidence of a message whose signature is verified; None if it is about neither complaints nor refunds."""
    body = message.biz_content.encode()
    if message.msg_method == COMPLAINT:
        complaint_id = read_json(body, _ComplaintNotice).complain_event_id
        return Disputed(
            channel_account=account, out_trade_no="", dispute_id=complaint_id, dispute_kind=DisputeKind.INQUIRY
        )
    if message.msg_method != DEPOSIT_BACK:
        return None
    back = read_json(body, _DepositBack)
    return Disputed(
        channel_account=account,
        out_trade_no=back.out_trade_no,
        channel_transaction_id=back.trade_no,
        dispute_id=back.out_request_no,
        dispute_kind=DisputeKind.REFUND,
        state=DisputeState.CLOSED,
        disputed_amount=_amount(back.dback_amount),
        disputed_currency=None if back.dback_amount is None else CURRENCY,
        outcome="paid to the card" if back.dback_status == "S" else "paid to the Alipay balance",
        changed_at=message.sent_at,
    )


def complaint_evidence(complaint: Complaint, account: str) -> Disputed:
    """Evidence of a complaint that was read from Alipay. A status that is not known leaves it open."""
    state = _STATES.get(complaint.status, DisputeState.OPEN)
    return Disputed(
        channel_account=account,
        out_trade_no=complaint.merchant_order_no or complaint.trade_no or "",
        channel_transaction_id=complaint.trade_no,
        dispute_id=complaint.complain_event_id,
        dispute_kind=DisputeKind.INQUIRY,
        state=state,
        disputed_amount=_amount(complaint.trade_amount),
        disputed_currency=None if complaint.trade_amount is None else CURRENCY,
        outcome=complaint.status if state.is_final else "",
        opened_at=_time(complaint.gmt_create),
        changed_at=_time(complaint.gmt_modified or complaint.gmt_create),
    )


def _amount(yuan: str | None) -> int | None:
    try:
        return None if yuan is None else minor_units(yuan, CURRENCY)
    except InvalidRequest:
        raise ChannelUnreadable("amount") from None


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else read_time(text)
    except ValueError:
        raise ChannelUnreadable("time") from None
