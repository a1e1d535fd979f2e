"""Callbacks that a merchant number gets because of its other systems and products.

https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter5_1_13.shtml (combined orders)
"""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from typing import Any

import msgspec

from simulator.kernel.base import Account, Message
from simulator.wechatpay.bodies import rfc3339
from simulator.wechatpay.wire import callback_headers, keys_of, sealed


def messages(number: str, account: Account, now: datetime) -> dict[str, Message]:
    """Return them by what they are about; the sale has this number, and the combined order a part with it."""
    sale = {
        "appid": keys_of(account).appid,
        "mchid": account.merchant_id,
        "out_trade_no": number,
        "transaction_id": f"42{token_hex(12)}",
        "trade_state": "SUCCESS",
        "trade_type": "JSAPI",
        "success_time": rfc3339(now),
        "amount": {"total": 8888, "currency": "CNY", "payer_total": 8888, "payer_currency": "CNY"},
    }
    part = {"mchid": account.merchant_id, "out_trade_no": number, "transaction_id": sale["transaction_id"]}
    combined = {
        "combine_appid": sale["appid"],
        "combine_mchid": account.merchant_id,
        "combine_out_trade_no": f"C-{number}",
        "sub_orders": [part | {"trade_state": "SUCCESS", "amount": {"total_amount": 8888, "currency": "CNY"}}],
    }
    contents: dict[str, tuple[str, dict[str, Any]]] = {
        "sale": ("TRANSACTION.SUCCESS", sale),
        "other_form": ("TRANSACTION.SUCCESS", combined),
        "no_money": ("PAYSCORE.USER_OPEN_SERVICE", {"mchid": account.merchant_id}),
        "unreadable": ("TRANSACTION.SUCCESS", sale | {"amount": {"total": "88.88"}}),
    }
    return {name: _signed(*content, account, now) for name, content in contents.items()}


def _signed(event_type: str, content: dict[str, Any], account: Account, now: datetime) -> Message:
    id_ = token_hex(16)
    body = msgspec.json.encode(
        {
            "id": id_,
            "create_time": rfc3339(now),
            "resource_type": "encrypt-resource",
            "event_type": event_type,
            "summary": "",
            "resource": sealed(keys_of(account).apiv3_key, msgspec.json.encode(content), "transaction", id_),
        }
    )
    return Message(headers=callback_headers(account, id_, body, now), body=body)
