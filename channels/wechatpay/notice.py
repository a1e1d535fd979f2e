"""WeChat Pay's callbacks: what one is about, then its sealed content.

One merchant number serves several products and systems. Combined payments (合单) name several orders, partners'
payments (服务商) name two merchants, and the payment score has orders of its own:
https://pay.weixin.qq.com/doc/v3/merchant/4012237246, https://pay.weixin.qq.com/doc/v3/partner/4012085801
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from channels.kit.signed_message import read_json
from channels.kit.unreadable import clean_ids
from channels.wechatpay.complaints import COMPLAINT_EVENTS
from channels.wechatpay.keys import Sealed
from core.evidence import Unclear

_MONEY_TYPES = ("TRANSACTION.", "REFUND.", "PAYSCORE.USER_PAID", *COMPLAINT_EVENTS)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine callback. What it is about stands outside of what is sealed."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{1,128}\Z")]
    event_type: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    create_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    @property
    def is_about_money(self) -> bool:
        return self.event_type.startswith(_MONEY_TYPES)


class SealedEnvelope(Envelope, frozen=True, kw_only=True):
    """The same with its content."""

    resource_type: Literal["encrypt-resource"]
    resource: Sealed


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The ids in an unsealed content of any product. None of them is checked for its form."""

    mchid: Any = None
    sp_mchid: Any = None
    sub_mchid: Any = None
    combine_mchid: Any = None
    out_trade_no: Any = None
    out_refund_no: Any = None
    refund_id: Any = None
    transaction_id: Any = None
    combine_out_trade_no: Any = None
    out_order_no: Any = None
    sub_orders: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether it is about one payment of one merchant, the form that nodrop creates."""
        return self.out_trade_no is not None and self.sp_mchid is None

    @property
    def is_combined(self) -> bool:
        return self.combine_out_trade_no is not None

    @property
    def ids(self) -> tuple[str, ...]:
        subs = self._subs
        numbers = (self.out_trade_no, self.combine_out_trade_no, self.out_order_no)
        of_subs = (sub.get(name) for sub in subs for name in ("out_trade_no", "transaction_id"))
        return clean_ids(*numbers, self.transaction_id, *of_subs)

    def question(self, *, account: str, mchid: str, reason: str) -> Unclear | None:
        """The question about the payments that it names; None: it names none."""
        if not self.ids:
            return None
        number, *others = self.ids
        merchants = clean_ids(self.mchid, self.sp_mchid, self.sub_mchid, self.combine_mchid, *self._sub_merchants)
        named = account if mchid in merchants or not merchants else f"other:{merchants[0]}"
        return Unclear(
            channel_account=named,
            out_trade_no=number,
            ids=tuple(others),
            reason=reason,
            refund_no=next(iter(clean_ids(self.out_refund_no)), None),
            channel_refund_no=next(iter(clean_ids(self.refund_id)), None),
        )

    @property
    def _subs(self) -> list[dict[str, object]]:
        subs = self.sub_orders if isinstance(self.sub_orders, list) else []
        return [sub for sub in subs if isinstance(sub, dict)]

    @property
    def _sub_merchants(self) -> list[object]:
        return [sub.get("mchid") for sub in self._subs]


def read_content(plain: bytes) -> Content:
    """The ids in an unsealed content. Raises ChannelUnreadable: it is no JSON object."""
    return read_json(plain, Content)
