"""Bodies of WeChat Pay's messages, and the evidence of a transaction. The caller has verified them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from channels.base import ChannelRefund, RefundState
from channels.kit.signed_message import read_json
from channels.transport import Response
from channels.wechatpay.keys import Sealed
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.evidence import Closed, Evidence, Paid, Refunded, Unclear, Unpaid, distinct_ids
from core.money import AMOUNT_MAX

CURRENCY = "CNY"
"""The currency of every Chinese merchant number, and of an amount that names none."""

NOT_EXIST = "ORDER_NOT_EXIST"
NO_REFUND = "RESOURCE_NOT_EXISTS"
NO_STATEMENT = "NO_STATEMENT_EXIST"

# Of https://pay.weixin.qq.com/doc/v3/merchant/4012791877 and its sisters. No error is signed, so only the codes here
# are definite: nothing was created, and the same request would be refused again. ORDERPAID and OUT_TRADE_NO_USED are
# left out on purpose: something exists under our number, and a query shows what.
_DEFINITE = frozenset(
    {
        "ACCOUNT_ERROR",
        "APPID_MCHID_NOT_MATCH",
        "INVALID_REQUEST",
        "MCH_NOT_EXISTS",
        "NO_AUTH",
        "NOT_ENOUGH",
        "OPENID_MISMATCH",
        "ORDER_CLOSED",
        "PARAM_ERROR",
        "RESOURCE_NOT_EXISTS",
        "RULE_LIMIT",
        "TRADE_ERROR",
        "USER_ACCOUNT_ABNORMAL",
    }
)
_RETRYABLE = frozenset(
    {
        "BANK_ERROR",
        "BIZERR_NEED_RETRY",
        "FREQUENCY_LIMITED",
        "FREQUENCY_LIMIT_EXCEED",
        "RATELIMIT_EXCEEDED",
        "STATEMENT_CREATING",
        "SYSTEM_ERROR",
    }
)
_OLDER_SPELLINGS = {
    "ACCOUNTERROR": "ACCOUNT_ERROR",
    "BANKERROR": "BANK_ERROR",
    "NOAUTH": "NO_AUTH",
    "NOTENOUGH": "NOT_ENOUGH",
    "ORDERCLOSED": "ORDER_CLOSED",
    "ORDERNOTEXIST": NOT_EXIST,
    "RULELIMIT": "RULE_LIMIT",
}
"""https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter3_4_2.shtml has these, the current pages the newer spelling."""

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)

Number = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,255}\Z")]
"""A merchant's number of a payment: also of another system, in whatever form that one uses."""

_State = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][A-Z_]{1,63}\Z")]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-|*@.]{1,64}\Z")]
_Currency = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
_Minor = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """`total` is the order's amount. `payer_total`, the rest after coupons, is not read."""

    total: _Minor
    currency: _Currency = CURRENCY


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A payment in a query's response and in a callback; an unpaid one has no transaction id and perhaps no amount."""

    appid: _Id
    mchid: _Id
    out_trade_no: Number
    trade_state: _State
    transaction_id: str | None = None
    success_time: str | None = None
    amount: Amount | None = None


class RefundAmount(msgspec.Struct, frozen=True, kw_only=True):
    refund: _Minor


class RefundBody(msgspec.Struct, frozen=True, kw_only=True):
    """A refund; `refund_id` is WeChat Pay's own number: https://pay.weixin.qq.com/doc/v3/merchant/4012791865"""

    out_refund_no: _Id
    out_trade_no: _Id
    status: Literal["SUCCESS", "PROCESSING", "CLOSED", "ABNORMAL"]
    amount: RefundAmount
    refund_id: _Id | None = None

    @property
    def as_channel_has_it(self) -> ChannelRefund:
        return ChannelRefund(state=REFUND_STATES[self.status], channel_refund_no=self.refund_id)


class SealedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    serial_no: _Id
    encrypt_certificate: Sealed


class CertificateList(msgspec.Struct, frozen=True, kw_only=True):
    data: Annotated[list[SealedCertificate], msgspec.Meta(min_length=1, max_length=32)]


class NativeBody(msgspec.Struct, frozen=True, kw_only=True):
    code_url: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{1,2048}\Z")]


class H5Body(msgspec.Struct, frozen=True, kw_only=True):
    h5_url: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{1,2048}\Z")]


class JsapiBody(msgspec.Struct, frozen=True, kw_only=True):
    prepay_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,64}\Z")]


class BillBody(msgspec.Struct, frozen=True, kw_only=True):
    hash_type: Literal["SHA1"]
    hash_value: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Fa-f]{40}\Z")]
    download_url: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{1,2048}\Z")]


REFUND_STATES = {
    "SUCCESS": RefundState.SUCCEEDED,
    "PROCESSING": RefundState.PROCESSING,
    "CLOSED": RefundState.FAILED,
    # The user's card is closed: a person must pay the refund out by hand in the console.
    "ABNORMAL": RefundState.FAILED,
}


def evidence_of(transaction: Transaction, *, account: str, appid: str, mchid: str) -> Evidence:
    """Evidence of the transaction; only its account is compared. States of other products (ACCEPT) prove nothing here.

    Raises:
        ChannelUnreadable: it is paid, but without transaction id, time or amount.
    """
    common: dict[str, Any] = {
        "channel_account": _account(transaction, account, appid, mchid),
        "out_trade_no": transaction.out_trade_no,
        "ids": distinct_ids(transaction.out_trade_no, transaction.transaction_id),
        "amount": None if transaction.amount is None else transaction.amount.total,
        "currency": None if transaction.amount is None else transaction.amount.currency,
    }
    match transaction.trade_state:
        case "NOTPAY" | "USERPAYING" | "PAYERROR":
            return Unpaid(**common)
        case "CLOSED" | "REVOKED":
            return Closed(**common)
        case "SUCCESS" | "REFUND":
            return _money_evidence(transaction, common)
    return Unclear(**common, reason="trade_state")


def _money_evidence(transaction: Transaction, common: dict[str, Any]) -> Evidence:
    if transaction.amount is None:
        raise ChannelUnreadable("paid_without_amount")
    try:
        common["channel_transaction_id"] = msgspec.convert(transaction.transaction_id, _Id)
        common["at"] = msgspec.convert(transaction.success_time, _Instant)
    except msgspec.ValidationError:
        raise ChannelUnreadable("paid_without_transaction") from None
    if transaction.trade_state == "SUCCESS":
        return Paid(**common)
    # Paid, and all or a part was refunded. The channel has the amount of each refund by its number, and no total.
    return Refunded(**common, refunded_amount=None)


def _account(transaction: Transaction, account: str, appid: str, mchid: str) -> str:
    if transaction.mchid != mchid:
        return f"other:{transaction.mchid}"
    return account if transaction.appid == appid else f"other:{transaction.appid}"


# -- errors ------------------------------------------------------------------------------------------------------------


class _ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    code: str


def error_code(response: Response) -> str:
    """The code of an error, which is not signed: https://pay.weixin.qq.com/doc/v3/merchant/4013053420.

    Raises:
        ChannelUnreadable: another form than the channel's errors; a router in between may have sent it.
    """
    code = read_json(response.body, _ErrorBody).code
    if _CODE.fullmatch(code) is None:
        raise ChannelUnreadable("error_code")
    return _OLDER_SPELLINGS.get(code, code)


def refusal(code: str) -> ChannelRefused | ChannelUnavailable | ChannelUnreadable:
    """The error to raise for a refused operation."""
    if code in _RETRYABLE:
        return ChannelUnavailable(f"refused_{code}")
    return ChannelRefused(code) if code in _DEFINITE else ChannelUnreadable(f"refused_{code}")


def query_error(code: str) -> ChannelUnavailable | ChannelUnreadable:
    """The error to raise for a refused query, which says nothing about money."""
    return ChannelUnavailable(f"refused_{code}") if code in _RETRYABLE else ChannelUnreadable(f"refused_{code}")


def status_of(body: bytes) -> int:
    """HTTP status that the channel sends with such a body."""
    try:
        code = msgspec.json.decode(body, type=_ErrorBody).code
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 200
    return 404 if _OLDER_SPELLINGS.get(code, code) == NOT_EXIST else 400
