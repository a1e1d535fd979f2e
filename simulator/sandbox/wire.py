"""Wire format of the sandbox channel: bodies and signatures.

Written from docs/sandbox-protocol.md only; it shares nothing with the adapter that it checks.
"""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta

from simulator.kernel.base import Account
from simulator.kernel.dispatch import Call
from simulator.kernel.disputes import Dispute
from simulator.kernel.ledger import Payment, PaymentStatus, Refund, RefundStatus
from simulator.kit.asgi import Request, Response

TOLERANCE = timedelta(seconds=300)
AMOUNT_MAX = 10**14

_SIGNATURE = re.compile(r"t=([0-9]{1,11}),k=([0-9A-Za-z_\-]{1,64}),v1=([0-9a-f]{64})", re.ASCII)


# -- bodies ------------------------------------------------------------------------------------------------------------


class CreateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    out_trade_no: str
    amount: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
    currency: str
    subject: Annotated[str, Meta(min_length=1, max_length=256)]
    expires_at: Annotated[datetime, Meta(tz=True)]
    callback_url: Annotated[str, Meta(max_length=2048)]
    return_url: Annotated[str, Meta(max_length=2048)] | None = None


class CloseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object: the path has all parameters."""


class RefundBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refund_no: str
    amount: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]


class PaymentObject(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: str
    out_trade_no: str
    transaction_id: str | None
    amount: int
    currency: str
    subject: str
    status: PaymentStatus
    refunded_amount: int
    paid_at: datetime | None
    expires_at: datetime
    pay_url: str


class RefundObject(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: str
    refund_no: str
    refund_id: str
    out_trade_no: str
    amount: int
    currency: str
    status: RefundStatus
    refunded_at: datetime | None


class DisputeObject(msgspec.Struct, frozen=True, kw_only=True):
    dispute_id: str
    kind: str
    state: str
    amount: int
    currency: str
    reason: str
    outcome: str
    respond_by: datetime | None
    opened_at: datetime
    changed_at: datetime


class CallbackBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    type: str
    created_at: datetime
    payment: PaymentObject
    refund: RefundObject | None = None
    dispute: DisputeObject | None = None


def dispute_object(dispute: Dispute) -> DisputeObject:
    return DisputeObject(
        dispute_id=dispute.dispute_id,
        kind=dispute.kind,
        state=dispute.state,
        amount=dispute.amount,
        currency=dispute.currency,
        reason=dispute.reason,
        outcome=dispute.state if dispute.state in ("won", "lost", "closed") else "",
        respond_by=dispute.respond_by,
        opened_at=dispute.opened_at,
        changed_at=dispute.changed_at,
    )


def payment_object(payment: Payment, pay_url: str) -> PaymentObject:
    terms = payment.terms
    return PaymentObject(
        merchant_id=payment.merchant_id,
        out_trade_no=terms.out_trade_no,
        transaction_id=payment.transaction_id,
        amount=terms.amount,
        currency=terms.currency,
        subject=terms.subject,
        status=payment.status,
        refunded_amount=payment.refunded_amount,
        paid_at=payment.paid_at,
        expires_at=terms.expires_at,
        pay_url=pay_url,
    )


def refund_object(refund: Refund) -> RefundObject:
    return RefundObject(
        merchant_id=refund.merchant_id,
        refund_no=refund.refund_no,
        refund_id=refund_id(*refund.key),
        out_trade_no=refund.out_trade_no,
        amount=refund.amount,
        currency=refund.currency,
        status=refund.status,
        refunded_at=refund.refunded_at,
    )


def refund_id(merchant_id: str, refund_no: str) -> str:
    """Return the channel's own number of a refund: the same in every response and callback."""
    return "rf_" + blake2b(f"{merchant_id}\x1f{refund_no}".encode(), digest_size=12).hexdigest()


# -- signatures --------------------------------------------------------------------------------------------------------


def hex_mac(secret: str, *lines: str | bytes) -> str:
    """Return the HMAC-SHA256 over the lines, joined with line feeds, without one at the end; a body is raw bytes."""
    joined = b"\n".join(line if isinstance(line, bytes) else line.encode("latin-1") for line in lines)
    return hmac.digest(secret.encode(), joined, "sha256").hex()


def signature(account: Account, now: datetime, kind: str, *lines: str | bytes) -> str:
    key_id, secret = next(iter(account.keys.items()))
    at = str(int(now.timestamp()))
    return f"t={at},k={key_id},v1={hex_mac(secret, kind, at, *lines)}"


def is_signed(request: Request, account: Account, now: datetime) -> bool:
    match = _SIGNATURE.fullmatch(request.headers.get("sandbox-signature", ""))
    if match is None:
        return False
    at, key_id, mac = match.groups()
    secret = account.keys.get(key_id)
    if secret is None or abs(now - datetime.fromtimestamp(int(at), UTC)) > TOLERANCE:
        return False
    wanted = hex_mac(secret, "REQUEST", at, request.method, request.target, account.merchant_id, request.body)
    return hmac.compare_digest(wanted, mac)


def signed(call: Call, response: Response) -> Response:
    """Return the response with a signature that includes the request's; 5xx is not signed."""
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return response
    request_mac = call.request.headers["sandbox-signature"].rpartition("v1=")[2]
    made = signature(call.account, call.now, "ANSWER", request_mac, str(response.status), response.body)
    return msgspec.structs.replace(response, headers=(*response.headers, ("sandbox-signature", made)))
