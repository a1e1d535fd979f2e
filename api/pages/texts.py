"""The texts of an order's page in English and Chinese, for the server's page and for its script.

No state that is not definite has a word like unpaid or failed: money may be under way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

DEFAULT = "en"

TEXTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "created": "Preparing payment",
            "created_note": "The way to pay is being set up. This page goes on by itself.",
            "processing": "Payment processing",
            "processing_note": "If you have paid, your payment is safe. The result shows here by itself.",
            "paid": "Paid",
            "paid_note": "Thank you. Your payment has arrived.",
            "closed": "Closed",
            "closed_note": "This order has ended, and no money was taken for it.",
            "review": "Payment received, being checked",
            "review_note": "Your money has arrived and is being matched to this order. You need not pay again.",
            "refunded": "Refunded",
            "refunded_note": "Your money has been given back to you. It did not pay this order.",
            "disputed": "Payment disputed",
            "disputed_note": "Your bank or payment service holds the money of this order. Please ask the shop.",
            "test": "Test payment: no real money is moved",
            "missing": "Nothing to see here",
            "missing_note": "This address is not valid, or not valid any more. Please ask the shop.",
            "check": "Check now",
            "checking": "Checking …",
            "check_in": "Check again in {s} s",
            "offline": "You are offline; your payment is safe. We keep checking.",
            "unreachable": "The result cannot be read right now; your payment is safe. We keep checking.",
            "back": "Back to the shop",
            "order": "Order",
            "others": "Your other payments",
            "language": "中文",
        },
        "zh": {
            "created": "正在准备支付",
            "created_note": "正在为您准备支付，本页会自动更新。",
            "processing": "支付处理中",
            "processing_note": "如果您已付款，您的款项是安全的。结果会自动显示在这里。",
            "paid": "已支付",
            "paid_note": "谢谢，您的付款已收到。",
            "closed": "已关闭",
            "closed_note": "订单已结束，没有扣款。",
            "review": "已收到付款，正在核对",
            "review_note": "您的款项已到账，正在与订单核对，无需再次付款。",
            "refunded": "已退款",
            "refunded_note": "您的款项已退还给您，并未用于本订单。",
            "disputed": "付款有争议",
            "disputed_note": "该订单的款项已被您的银行或支付机构冻结，请联系商家。",
            "test": "测试支付，不涉及真实资金",
            "missing": "页面不存在",
            "missing_note": "链接无效或已过期，请联系商家。",
            "check": "立即查询",
            "checking": "查询中…",
            "check_in": "{s} 秒后可再次查询",
            "offline": "您已离线，您的款项是安全的。我们会继续查询。",
            "unreachable": "暂时无法读取结果，您的款项是安全的。我们会继续查询。",
            "back": "返回商家",
            "order": "订单",
            "others": "您的其他支付",
            "language": "English",
        },
    }
)

_PREFERENCE = re.compile(r"([A-Za-z]{2,3})(?:-[0-9A-Za-z\-]+)?(?:\s*;\s*q=([01](?:\.[0-9]{0,3})?))?", re.ASCII)


def other(lang: str) -> str:
    return "en" if lang == "zh" else "zh"


def choose(requested: str, accept_language: str) -> str:
    """The language of `?lang=`, else the one that the browser prefers among ours: "zh-CN,en;q=0.8" → "zh"."""
    if requested in TEXTS:
        return requested
    accepted: list[tuple[float, str]] = []
    for part in accept_language[:200].split(","):
        match = _PREFERENCE.fullmatch(part.strip())
        if match is not None and match[1].lower() in TEXTS:
            accepted.append((float(match[2] or 1), match[1].lower()))
    best = max(accepted, key=lambda pair: pair[0], default=(0.0, DEFAULT))
    return best[1] if best[0] > 0 else DEFAULT
