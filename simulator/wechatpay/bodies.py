"""Bodies of WeChat Pay (API v3).

Written from the channel's documentation only; it shares nothing with the adapter that it checks.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from cryptography import x509
from msgspec import Meta

from simulator.kernel.base import Account
from simulator.kernel.faults import draw
from simulator.kernel.ledger import Payment, PaymentStatus, Refund, RefundStatus
from simulator.wechatpay.wire import keys_of, sealed

BEIJING = timezone(timedelta(hours=8))
AMOUNT_MAX = 10**10

_COUPON_SHARE = 0.25
"""Share of buyers with a coupon: they pay less than the amount of the order, which the shop gets in full."""


# -- requests ----------------------------------------------------------------------------------------------------------


class Amount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    total: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
    currency: str = "CNY"


class Payer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    openid: Annotated[str, Meta(min_length=1, max_length=128)]


class H5Info(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[str, Meta(min_length=1)]
    app_name: str = ""
    app_url: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payer_client_ip: Annotated[str, Meta(min_length=1, max_length=45)]
    device_id: str = ""
    store_info: Any = None
    h5_info: H5Info | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    appid: str
    mchid: str
    description: Annotated[str, Meta(min_length=1, max_length=127)]
    out_trade_no: str
    notify_url: Annotated[str, Meta(max_length=255)]
    amount: Amount
    time_expire: Annotated[datetime, Meta(tz=True)] | None = None
    attach: Annotated[str, Meta(max_length=128)] = ""
    goods_tag: str = ""
    support_fapiao: bool = False
    detail: Any = None
    settle_info: Any = None
    scene_info: Scene | None = None
    payer: Payer | None = None


class CloseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mchid: str


class RefundAmount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refund: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
    total: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
    currency: str


class RefundOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`notify_url` is accepted, as libraries send it, and never called: only refunds in the console have callbacks."""

    out_refund_no: str
    amount: RefundAmount
    out_trade_no: str | None = None
    transaction_id: str | None = None
    reason: Annotated[str, Meta(max_length=80)] = ""
    notify_url: str = ""


# -- responses and callbacks -------------------------------------------------------------------------------------------

_STATES = {
    PaymentStatus.UNPAID: ("NOTPAY", "订单未支付"),
    PaymentStatus.PAID: ("SUCCESS", "支付成功"),
    PaymentStatus.CLOSED: ("CLOSED", "订单已关闭"),
    PaymentStatus.REFUNDED: ("REFUND", "转入退款"),
}
_REFUND_STATES = {
    RefundStatus.PROCESSING: "PROCESSING",
    RefundStatus.SUCCEEDED: "SUCCESS",
    RefundStatus.FAILED: "CLOSED",
}


def transaction(payment: Payment, account: Account) -> dict[str, Any]:
    """Return the payment in queries and callbacks; it does not show refunds."""
    state, description = _STATES[payment.status]
    fields: dict[str, Any] = {
        "appid": keys_of(account).appid,
        "mchid": payment.merchant_id,
        "out_trade_no": payment.terms.out_trade_no,
        "trade_state": state,
        "trade_state_desc": description,
        "attach": "",
        "payer": {},
        "amount": {"total": payment.terms.amount, "currency": "CNY"},
    }
    if not payment.status.was_paid or payment.paid_at is None:
        return fields
    return fields | {
        "transaction_id": payment.transaction_id,
        "trade_type": "NATIVE",
        "bank_type": "OTHERS",
        "success_time": rfc3339(payment.paid_at),
        "payer": {"openid": "openid-of-a-simulated-buyer"},
        "amount": _paid_amount(payment),
    }


def _paid_amount(payment: Payment) -> dict[str, Any]:
    total = payment.terms.amount
    has_coupon = draw(0, "coupon", payment.terms.out_trade_no) < _COUPON_SHARE
    payer_total = total - total // 10 if has_coupon else total
    return {"total": total, "payer_total": payer_total, "currency": "CNY", "payer_currency": "CNY"}


def refund_id(merchant_id: str, refund_no: str) -> str:
    """Return WeChat Pay's own number of a refund, 29 digits: the same in responses, callbacks and bills."""
    digest = blake2b(f"{merchant_id}\x1f{refund_no}".encode(), digest_size=12).digest()
    return f"503{int.from_bytes(digest) % 10**26:026d}"


def refund_object(refund: Refund, payment: Payment) -> dict[str, Any]:
    fields = {
        "refund_id": refund_id(*refund.key),
        "out_refund_no": refund.refund_no,
        "transaction_id": payment.transaction_id,
        "out_trade_no": refund.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": rfc3339(refund.created_at),
        "status": _REFUND_STATES[refund.status],
        "funds_account": "AVAILABLE",
        "amount": {
            "total": payment.terms.amount,
            "refund": refund.amount,
            "payer_total": payment.terms.amount,
            "payer_refund": refund.amount,
            "settlement_refund": refund.amount,
            "settlement_total": payment.terms.amount,
            "discount_refund": 0,
            "currency": "CNY",
        },
    }
    return fields if refund.refunded_at is None else fields | {"success_time": rfc3339(refund.refunded_at)}


def refund_notice(refund: Refund, payment: Payment) -> dict[str, Any]:
    """Return the content of a callback about a refund that has succeeded: this refund's sums and no total of all."""
    fields = refund_object(refund, payment)
    same = ("out_trade_no", "transaction_id", "out_refund_no", "refund_id", "success_time", "user_received_account")
    amount = {name: fields["amount"][name] for name in ("total", "refund", "payer_total", "payer_refund")}
    notice = {name: fields[name] for name in same}
    return {"mchid": payment.merchant_id, **notice, "refund_status": fields["status"], "amount": amount}


def certificates(account: Account) -> dict[str, Any]:
    """Return the list of platform certificates, each encrypted for this merchant."""
    keys, listed = keys_of(account), []
    for key in keys.platform:
        certificate = x509.load_pem_x509_certificate(key.certificate.encode())
        listed.append(
            {
                "serial_no": key.serial,
                "effective_time": rfc3339(certificate.not_valid_before_utc),
                "expire_time": rfc3339(certificate.not_valid_after_utc),
                "encrypt_certificate": sealed(keys.apiv3_key, key.certificate.encode(), "certificate", key.serial),
            }
        )
    return {"data": listed}


def rfc3339(at: datetime) -> str:
    return at.astimezone(BEIJING).replace(microsecond=0).isoformat()
