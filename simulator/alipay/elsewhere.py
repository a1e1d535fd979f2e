"""Notices that an application gets because of its merchant's other systems and products."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from urllib.parse import quote_plus, urlencode

from simulator.alipay.keys import sign, wire_of
from simulator.alipay.wire import time_text
from simulator.kernel.base import Account, Message


def messages(number: str, account: Account, now: datetime) -> dict[str, Message]:
    """Return them by what they are about; the sale has this number."""
    sale = {
        "charset": "utf-8",
        "notify_time": time_text(now) or "",
        "notify_type": "trade_status_sync",
        "out_trade_no": number,
        "trade_no": f"2026{token_hex(12)}",
        "total_amount": "88.88",
        "trade_status": "TRADE_SUCCESS",
        "gmt_payment": time_text(now) or "",
        "app_id": account.merchant_id,
        "seller_id": wire_of(account).seller_id,
    }
    contract = {"charset": "utf-8", "notify_type": "dut_user_sign", "app_id": account.merchant_id, "status": "NORMAL"}
    notices = {
        "sale": sale,
        "other_form": sale | {"trade_status": "WAIT_SELLER_SEND_GOODS"},
        "no_money": contract,
        "unreadable": sale | {"total_amount": "88.888"},
    }
    return {name: _signed({"notify_id": token_hex(16), **fields}, account) for name, fields in notices.items()}


def _signed(fields: dict[str, str], account: Account) -> Message:
    string = "&".join(f"{name}={fields[name]}" for name in sorted(fields)).encode()
    form = {**fields, "sign_type": "RSA2", "sign": sign(wire_of(account).alipay_private_keys[0], string)}
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    return Message(headers=headers, body=urlencode(form, quote_via=quote_plus).encode())
