"""Events that an app gets because of everything else that is sold with it."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from typing import Any

import msgspec

from simulator.kernel.base import Account, Message
from simulator.paypal.keys import signed_headers, wire_of
from simulator.paypal.wire import instant


def messages(number: str, account: Account, now: datetime) -> dict[str, Message]:
    """Return them by what they are about; the sale has this number."""
    capture: dict[str, Any] = {
        "id": token_hex(8).upper(),
        "status": "COMPLETED",
        "amount": {"currency_code": "USD", "value": "88.88"},
        "invoice_id": number,
        "create_time": instant(now),
        "payee": {"merchant_id": account.merchant_id},
    }
    sale = {"id": token_hex(8).upper(), "invoice_number": number, "state": "completed"}
    events: dict[str, tuple[str, dict[str, Any]]] = {
        "sale": ("PAYMENT.CAPTURE.COMPLETED", capture),
        "other_form": ("PAYMENT.SALE.COMPLETED", sale),
        "no_money": ("BILLING.SUBSCRIPTION.ACTIVATED", {"id": f"I-{token_hex(6)}"}),
        "unreadable": ("PAYMENT.CAPTURE.COMPLETED", capture | {"amount": None}),
    }
    return {name: _signed(*event, account, now) for name, event in events.items()}


def _signed(event_type: str, resource: dict[str, Any], account: Account, now: datetime) -> Message:
    body = msgspec.json.encode(
        {
            "id": f"WH-{token_hex(12)}",
            "event_version": "1.0",
            "create_time": instant(now),
            "event_type": event_type,
            "resource": resource,
        }
    )
    return Message(headers=signed_headers(wire_of(account), body, now), body=body)
