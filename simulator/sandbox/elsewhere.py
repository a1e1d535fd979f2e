"""Callbacks that a merchant's account gets because of its other systems."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex

import msgspec

from simulator.kernel.base import Account, Message
from simulator.sandbox.wire import signature


def messages(number: str, account: Account, now: datetime) -> dict[str, Message]:
    """Return them by what they are about; the sale has this number."""
    payment = {
        "merchant_id": account.merchant_id,
        "out_trade_no": number,
        "transaction_id": token_hex(12),
        "amount": 8888,
        "currency": "CNY",
        "subject": "Sold elsewhere",
        "status": "paid",
        "refunded_amount": 0,
        "paid_at": now,
        "expires_at": now,
        "pay_url": "http://127.0.0.1:9/pay",
    }
    bodies: dict[str, dict[str, object]] = {
        "sale": {"type": "payment.paid", "payment": payment},
        "unreadable": {"type": "payment.paid", "payment": payment | {"amount": "88.88"}},
        "no_money": {"type": "account.updated", "account": {"name": "Tea"}},
    }
    return {name: _signed(f"cb_{token_hex(12)}", body, account, now) for name, body in bodies.items()}


def _signed(id_: str, body: dict[str, object], account: Account, now: datetime) -> Message:
    raw = msgspec.json.encode({"id": id_, "created_at": now, **body})
    headers = {
        "content-type": "application/json",
        "sandbox-merchant": account.merchant_id,
        "sandbox-callback-id": id_,
        "sandbox-signature": signature(account, now, "CALLBACK", id_, account.merchant_id, raw),
    }
    return Message(headers=headers, body=raw)
