"""Events that an endpoint gets because of the account's other integrations. https://docs.stripe.com/webhooks"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex

import msgspec

from simulator.kernel.base import Message
from simulator.stripe.wire import Object, signature_header


def messages(number: str, secrets: Sequence[str], now: datetime) -> dict[str, Message]:
    """Return them by what they are about; the sale has this number. `other_world`: an endpoint in live mode gets test
    events of the account's sandbox too, and the reverse.
    """
    intent = _intent(number, now)
    events = {
        "sale": ("payment_intent.succeeded", intent, False),
        "other_form": ("charge.succeeded", _charge(intent), False),
        "other_world": ("payment_intent.succeeded", intent | {"livemode": True}, True),
        "no_money": ("payout.paid", {"id": f"po_{token_hex(12)}", "object": "payout", "livemode": False}, False),
        "unreadable": ("payment_intent.succeeded", intent | {"amount_received": "88.88"}, False),
    }
    return {name: _signed(*event, secrets, now) for name, event in events.items()}


def _intent(number: str, now: datetime) -> Object:
    return {
        "id": f"pi_{token_hex(12)}",
        "object": "payment_intent",
        "amount": 8888,
        "amount_received": 8888,
        "created": int(now.timestamp()),
        "currency": "usd",
        "latest_charge": f"ch_{token_hex(12)}",
        "livemode": False,
        "metadata": {"out_trade_no": number},
        "status": "succeeded",
    }


def _charge(intent: Object) -> Object:
    return {
        "id": intent["latest_charge"],
        "object": "charge",
        "amount": 8888,
        "amount_refunded": 0,
        "currency": "usd",
        "livemode": False,
        "metadata": intent["metadata"],
        "payment_intent": intent["id"],
    }


def _signed(type_: str, object_: Object, live: bool, secrets: Sequence[str], now: datetime) -> Message:  # noqa: FBT001 - of a table
    event = {
        "id": f"evt_{token_hex(12)}",
        "object": "event",
        "created": int(now.timestamp()),
        "data": {"object": object_},
        "livemode": live,
        "type": type_,
    }
    body = msgspec.json.encode(event)
    headers = {"content-type": "application/json", "stripe-signature": signature_header(body, secrets, now)}
    return Message(headers=headers, body=body)
