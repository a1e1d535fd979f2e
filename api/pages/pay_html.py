"""The section `#pay` of an order's page: the link, code or call of the current payment, and a form for each way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType
from urllib.parse import quote

from api.pages import qr
from api.pages.pay import CurrentWay, PayView
from core.paying import Way, WayKind

_TEXTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "title": "Pay",
            "continue": "Continue to {channel}",
            "scan": "Scan this code with {channel} on your phone",
            "until": "until {time}",
            "once": "This order can be paid in more than one place. Pay only once.",
            "elsewhere": "To pay with {channel}, open this page in your browser.",
            "in_wechat": "Pay with WeChat",
            "others": "Other ways to pay",
            "redirect": "{channel}",
            "qr": "{channel}: code to scan",
            "jsapi": "{channel}",
            "error": "",
            "error_invalid": "That could not be read. Please choose again.",
            "error_limit": "Too many tries. Please wait a moment, then choose again.",
            "error_not_offered": "This way to pay is not offered. Please choose another one.",
            "error_origin": "Please choose on this page.",
            "error_refused": "This way to pay cannot be used now. Please choose another one.",
            "error_unclear": "The payment service has not answered yet. Please try again in a moment.",
        },
        "zh": {
            "title": "支付",
            "continue": "前往{channel}",
            "scan": "请用手机{channel}扫描二维码",
            "until": "{time} 前有效",
            "once": "该订单有多个可付款的入口，请只支付一次。",
            "elsewhere": "使用{channel}付款，请在浏览器中打开本页。",
            "in_wechat": "微信支付",
            "others": "其他支付方式",
            "redirect": "{channel}",
            "qr": "{channel}扫码",
            "jsapi": "{channel}",
            "error": "",
            "error_invalid": "无法识别该请求，请重新选择。",
            "error_limit": "操作过于频繁，请稍后再选择。",
            "error_not_offered": "暂不支持该支付方式，请选择其他方式。",
            "error_origin": "请在本页选择支付方式。",
            "error_refused": "该支付方式暂时不可用，请选择其他方式。",
            "error_unclear": "支付机构尚未回应，请稍后重试。",
        },
    }
)
_CHANNELS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {"alipay": "Alipay", "paypal": "PayPal", "sandbox": "Sandbox", "stripe": "Stripe", "wechatpay": "WeChat"},
        "zh": {"alipay": "支付宝", "paypal": "PayPal", "sandbox": "沙盒", "stripe": "Stripe", "wechatpay": "微信"},
    }
)


def draw_pay(view: PayView | None, token: str, lang: str, suffix: str) -> str:
    """The section, empty and hidden when there is nothing to pay. `suffix` is the query string of our addresses."""
    if view is None or not (view.ways or view.error):
        return '<section id="pay" hidden></section>'
    texts, names = _TEXTS[lang], _CHANNELS[lang]
    error = f'<p id="pay-error" role="alert">{escape(texts["error_" + view.error])}</p>' if view.error else ""
    current = "" if view.current is None else _current(view.current, texts, names)
    action = f"/o/{quote(token)}/pay{suffix}"
    first = "".join(_way(way, action, texts, names) for way in view.ways if way.fits)
    rest = "".join(_way(way, action, texts, names) for way in view.ways if not way.fits)
    others = f"<details><summary>{escape(texts['others'])}</summary>{rest}</details>" if rest else ""
    return f'<section id="pay"><h2>{escape(texts["title"])}</h2>{error}{current}{first}{others}</section>'


def _current(current: CurrentWay, texts: Mapping[str, str], names: Mapping[str, str]) -> str:
    name = names[current.channel]
    match current.kind:
        case WayKind.QR:
            label = texts["scan"].format(channel=name)
            drawn = f'<div id="pay-code" data-value="{escape(current.value)}">{qr.svg(current.value, label)}</div>'
        case WayKind.JSAPI:
            drawn = (
                f'<button id="pay-call" type="button" data-call="{escape(current.value)}">{texts["in_wechat"]}</button>'
            )
        case _:
            drawn = _link(current, texts["continue"].format(channel=name))
    once = f'<p id="pay-once">{escape(texts["once"])}</p>' if current.is_older_payable_too else ""
    until = escape(texts["until"]).format(time=_time(current.ends_at))
    return f"{drawn}<p>{until}</p>{once}"


def _link(current: CurrentWay, text: str) -> str:
    """WeChat Pay refuses an empty Referer: that link alone shows our origin, and no other the page's address."""
    policy = "origin" if current.channel == "wechatpay" else "no-referrer"
    return f'<p><a id="pay-link" href="{escape(current.value)}" referrerpolicy="{policy}">{escape(text)}</a></p>'


def _way(way: Way, action: str, texts: Mapping[str, str], names: Mapping[str, str]) -> str:
    name = names[way.channel]
    if way.kind is WayKind.ELSEWHERE:
        return f"<p>{escape(texts['elsewhere'].format(channel=name))}</p>"
    return (
        f'<form class="way" method="post" action="{action}">'
        f'<input type="hidden" name="account" value="{escape(way.account)}">'
        f'<button type="submit" name="method" value="{escape(way.method)}">'
        f"{escape(texts[way.kind].format(channel=name))}</button></form>"
    )


def _time(at: datetime) -> str:
    utc = at.astimezone(UTC)
    return f'<time data-countdown datetime="{utc:%Y-%m-%dT%H:%M:%SZ}">{utc:%Y-%m-%d %H:%M} UTC</time>'
