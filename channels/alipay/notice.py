"""Alipay's callbacks: what one is about, then its trade.

Besides trades, an application gets messages of other products: contracts, authorizations, and the newer ones with
`msg_method` and `biz_content` (https://opendocs.alipay.com/common/02km9f). Other systems may sell with the same
application, so a number can have any form.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from channels.alipay.messages import COMPLAINT, DEPOSIT_BACK, MESSAGE_FIELDS, Message
from channels.alipay.trade import Trade
from channels.kit.signed_message import read_json
from channels.kit.unreadable import clean_ids
from core.errors import ChannelUnreadable

_TRADE_NOTICE = "trade_status_sync"
_MONEY_MESSAGES = ("alipay.trade.", COMPLAINT)
_CHARSETS = {"gbk": "gb18030", "gb2312": "gb18030", "gb18030": "gb18030"}

FIELDS = tuple(dict.fromkeys(("notify_type", *MESSAGE_FIELDS, *Trade.__struct_fields__)))
"""The fields of a callback that are read."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine callback, its fields as texts in the callback's own charset. A field that is not in it is left out."""

    fields: dict[str, str]

    @property
    def id(self) -> str:
        """Alipay's id of the message, the same in every resend; empty if it has none."""
        id_ = clean_ids(self.fields.get("notify_id"))
        return id_[0] if id_ else ""

    @property
    def is_about_money(self) -> bool:
        return self.is_message or (self.fields.get("notify_type", _TRADE_NOTICE) == _TRADE_NOTICE and not self._method)

    @property
    def is_message(self) -> bool:
        """Whether it is a newer message about a trade or a complaint, whose content is JSON."""
        return self._method.startswith(_MONEY_MESSAGES)

    @property
    def names_refund(self) -> bool:
        return "refund_fee" in self.fields or "gmt_refund" in self.fields

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its trade that can be read."""
        fields = self._content if self.is_message else self.fields
        return clean_ids(fields.get("out_trade_no"), fields.get("trade_no"))

    def trade(self) -> Trade:
        """Its trade.

        Raises:
            ChannelUnreadable: a field is missing or malformed.
        """
        # Without a merchant's number the channel's own is the number.
        known = {name: self.fields[name] for name in Trade.__struct_fields__ if self.fields.get(name)}
        try:
            return msgspec.convert({"out_trade_no": known.get("trade_no", ""), **known}, Trade)
        except msgspec.ValidationError:
            raise ChannelUnreadable("callback") from None

    def message(self) -> Message | None:
        """The message about a complaint or a refund to a card; None: about something else.

        Raises:
            ChannelUnreadable: a field is missing or malformed.
        """
        if self._method not in (COMPLAINT, DEPOSIT_BACK):
            return None
        try:
            return msgspec.convert({name: self.fields.get(name) for name in MESSAGE_FIELDS}, Message)
        except msgspec.ValidationError:
            raise ChannelUnreadable("message") from None

    @property
    def _method(self) -> str:
        return self.fields.get("msg_method", "")

    @property
    def _content(self) -> dict[str, object]:
        try:
            return read_json(self.fields.get("biz_content", "").encode(), dict[str, object])
        except ChannelUnreadable:
            return {}


def read_notice(form: Mapping[bytes, bytes]) -> Notice:
    """The notice in a form whose signature was verified."""
    charset = _CHARSETS.get(form.get(b"charset", b"").decode("latin-1").lower(), "utf-8")
    fields = {name: form[name.encode()].decode(charset, "replace") for name in FIELDS if name.encode() in form}
    return Notice(fields={name: text for name, text in fields.items() if "\ufffd" not in text})
