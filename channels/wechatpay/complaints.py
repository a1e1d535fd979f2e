"""WeChat Pay's complaints of buyers (消费者投诉), and its notices of refunds that did not reach the buyer.

https://pay.weixin.qq.com/doc/v3/merchant/4012289719 ; the notice of a complaint holds only its id, and its details are
fetched: https://pay.weixin.qq.com/doc/v3/merchant/4012533431 . A complaint moves no money.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from channels.wechatpay.bodies import CURRENCY
from core.dispute import DisputeKind, DisputeState
from core.evidence import Disputed
from core.money import AMOUNT_MAX

COMPLAINT_EVENTS = ("COMPLAINT.CREATE", "COMPLAINT.STATE_CHANGE")
REFUND_FAILURES = ("REFUND.ABNORMAL", "REFUND.CLOSED")
"""ABNORMAL: the buyer's card is closed, and a person pays out by hand. CLOSED: the refund is over without effect."""

_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-|*@.]{1,64}\Z")]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Minor = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]

_STATES: Mapping[str, DisputeState] = MappingProxyType(
    {
        "PENDING": DisputeState.OPEN,
        "PROCESSING": DisputeState.UNDER_REVIEW,
        "PROCESSED": DisputeState.CLOSED,
    }
)


class ComplaintNotice(msgspec.Struct, frozen=True, kw_only=True):
    complaint_id: _Id


class _ComplaintOrder(msgspec.Struct, frozen=True, kw_only=True):
    transaction_id: _Id
    out_trade_no: _Id
    amount: _Minor | None = None


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    complaint_id: _Id
    complaint_time: _Instant
    complaint_state: Literal["PENDING", "PROCESSING", "PROCESSED"]
    complainted_mchid: _Id | None = None
    complaint_order_info: tuple[_ComplaintOrder, ...] = ()
    problem_type: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Z_]{0,64}\Z")] = ""


class _RefundAmount(msgspec.Struct, frozen=True, kw_only=True):
    refund: _Minor


class RefundFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed content of a notice about a refund that did not succeed."""

    mchid: _Id
    out_trade_no: _Id
    transaction_id: _Id | None = None
    refund_id: _Id
    refund_status: Literal["ABNORMAL", "CLOSED"]
    amount: _RefundAmount


def unread_complaint(notice: ComplaintNotice, *, account: str) -> Disputed:
    """Evidence that only names a complaint."""
    return Disputed(
        channel_account=account, out_trade_no="", dispute_id=notice.complaint_id, dispute_kind=DisputeKind.INQUIRY
    )


def complaint_evidence(complaint: Complaint, *, account: str, mchid: str, at: datetime) -> tuple[Disputed, ...]:
    """Evidence of a complaint, for each of its orders. It has no time of its last change: `at` is when it was read."""
    named = complaint.complainted_mchid
    state = _STATES[complaint.complaint_state]
    return tuple(
        Disputed(
            channel_account=account if named in (None, mchid) else f"other:{named}",
            out_trade_no=order.out_trade_no,
            channel_transaction_id=order.transaction_id,
            dispute_id=complaint.complaint_id,
            dispute_kind=DisputeKind.INQUIRY,
            state=state,
            disputed_amount=order.amount,
            disputed_currency=None if order.amount is None else CURRENCY,
            dispute_reason=complaint.problem_type,
            outcome=complaint.complaint_state if state.is_final else "",
            opened_at=complaint.complaint_time,
            changed_at=at,
        )
        for order in complaint.complaint_order_info
    )


def refund_failure_evidence(failure: RefundFailure, *, account: str, mchid: str, at: datetime | None) -> Disputed:
    return Disputed(
        channel_account=account if failure.mchid == mchid else f"other:{failure.mchid}",
        out_trade_no=failure.out_trade_no,
        channel_transaction_id=failure.transaction_id,
        dispute_id=failure.refund_id,
        dispute_kind=DisputeKind.REFUND,
        state=DisputeState.LOST,
        disputed_amount=failure.amount.refund,
        disputed_currency=CURRENCY,
        outcome=failure.refund_status,
        changed_at=at,
    )
