"""The section `#pay` of an order's page: the link, code or call of the current payment, and a form for each other way.

The section says nothing about whether the buyer has paid. It is replaced as a whole when the order changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from urllib.parse import quote

from api.pages import qr
from api.pages.parts import clock_time, fill, fill_html
from api.pages.pay import CurrentWay, PayView
from core.paying import Way, WayKind, meant_for

Texts = Mapping[str, str]

NOTHING = '<section id="pay" hidden></section>'

_SCHEMES = ("https://", "http://")
"""Links that are drawn: a channel's text is never a script."""


def draw_pay(view: PayView, texts: Texts, *, action: str, now: datetime) -> str:
    """The section of an order that could be paid. `action` is the address that takes the buyer's choice."""
    current = view.current
    if view.is_over:
        return NOTHING
    if not view.ways and not view.error:
        return f'<section id="pay"><p id="pay-shop">{escape(texts["pay_shop"])}</p></section>'
    title = texts["pay"] if current is None else texts["pay_with"].format(channel=_label(current, view, texts))
    parts = [
        f'<section id="pay" aria-labelledby="pay-title"><h2 id="pay-title">{escape(title)}</h2>',
        f'<p id="pay-error" role="alert">{escape(texts["pay_error_" + view.error])}</p>' if view.error else "",
        "" if current is None else _current(current, texts, now),
        f'<p id="pay-already">{escape(texts["pay_already"])}</p>' if view.is_handed_off else "",
        _choice(view, texts, action),
        _order_end(view, texts, now),
        "</section>",
    ]
    return "".join(parts)


def action_of(token: str, suffix: str) -> str:
    return f"/o/{quote(token)}/pay{suffix}"


# -- the payment that can be paid now ----------------------------------------------------------------------------------


def _current(current: CurrentWay, texts: Texts, now: datetime) -> str:
    name, until = _name(current.channel, texts), texts["pay_until"]
    match current.kind:
        case WayKind.QR:
            drawn, until = _code(current, texts, name), texts["pay_code_until"]
        case WayKind.JSAPI:
            until = texts["pay_call_until"]
            drawn = (
                f'<button id="pay-call" class="primary" type="button" data-call="{escape(current.value)}">'
                f"{fill(texts['pay_with'], channel=name)}</button>"
            )
        case _:
            drawn = _link(current, texts, name)
    once = f'<p id="pay-once" role="note">{escape(texts["pay_once"])}</p>' if current.is_older_payable_too else ""
    end = fill_html(until, time=clock_time(current.ends_at, now, counts_down=True))
    return f'<div id="pay-current">{once}{drawn}<p class="until">{end}</p></div>'


def _code(current: CurrentWay, texts: Texts, name: str) -> str:
    try:
        code = qr.svg(current.value, texts["pay_code"].format(channel=name))
    except ValueError:  # no code holds so much text
        return _unusable(texts)
    return (
        f'<figure id="pay-code" data-value="{escape(current.value)}">{code}'
        f"<figcaption>{fill(texts['pay_scan'], channel=name)}</figcaption></figure>"
    )


def _link(current: CurrentWay, texts: Texts, name: str) -> str:
    """WeChat Pay refuses an empty Referer: that link alone shows our origin, and no other the page's address."""
    if not current.value.startswith(_SCHEMES):
        return _unusable(texts)
    policy = "origin" if current.channel == "wechatpay" else "no-referrer"
    return (
        f'<a id="pay-link" class="primary" href="{escape(current.value)}" referrerpolicy="{policy}">'
        f"{fill(texts['pay_continue'], channel=name)}</a>"
    )


def _unusable(texts: Texts) -> str:
    """Text in place of what the channel gave, which no buyer could use."""
    return f'<p role="alert">{escape(texts["pay_error_refused"])}</p>'


def _order_end(view: PayView, texts: Texts, now: datetime) -> str:
    is_said = view.current is not None and view.current.ends_at == view.order_ends_at
    if is_said or view.order_ends_at <= now:
        return ""
    end = clock_time(view.order_ends_at, now, counts_down=True)
    return f'<p class="until">{fill_html(texts["pay_order_until"], time=end)}</p>'


# -- the ways to choose from -------------------------------------------------------------------------------------------


def _choice(view: PayView, texts: Texts, action: str) -> str:
    """Ways that suit the device as buttons, all others behind a line that opens; beside a current way all are there."""
    current = view.current
    others = [way for way in view.ways if current is None or not _is_same(way, current)]
    first = [way for way in others if way.fits and current is None]
    notes = "".join(dict.fromkeys(_elsewhere(way, texts) for way in view.ways if way.kind is WayKind.ELSEWHERE))
    rest = [way for way in others if way not in first and way.kind is not WayKind.ELSEWHERE]
    main = _forms((way for way in first if way.kind is not WayKind.ELSEWHERE), view, texts, action)
    folded = _forms(rest, view, texts, action)
    details = f"<details><summary>{escape(texts['pay_others'])}</summary>{folded}</details>" if folded else ""
    return f"{notes}{main}{details}"


def _is_same(way: Way, current: CurrentWay) -> bool:
    return (way.account, way.method) == (current.account, current.method)


def _forms(ways: Iterable[Way], view: PayView, texts: Texts, action: str) -> str:
    forms = "".join(_form(way, _label(way, view, texts), texts, action) for way in ways)
    return f'<div class="ways">{forms}</div>' if forms else ""


def _form(way: Way, label: str, texts: Texts, action: str) -> str:
    """A button. One for another device names it, but for a code, which is always scanned by another."""
    key = f"pay_{way.kind}" if way.fits or way.kind is WayKind.QR else f"pay_for_{meant_for(way)}"
    return (
        f'<form class="way" method="post" action="{escape(action)}">'
        f'<input type="hidden" name="account" value="{escape(way.account)}">'
        f'<button type="submit" name="method" value="{escape(way.method)}">'
        f"{fill(texts[key], channel=label)}</button></form>"
    )


def _elsewhere(way: Way, texts: Texts) -> str:
    return f'<p class="elsewhere" role="note">{fill(texts["pay_elsewhere"], channel=_name(way.channel, texts))}</p>'


def _label(way: Way | CurrentWay, view: PayView, texts: Texts) -> str:
    """The channel's name, with the account's behind it when the buyer chooses among several of that channel."""
    name, accounts = _name(way.channel, texts), {each.account for each in view.ways if each.channel == way.channel}
    return texts["pay_account"].format(channel=name, account=way.account) if len(accounts) > 1 else name


def _name(channel: str, texts: Texts) -> str:
    """The channel's name; of one that no language knows, its own."""
    return texts.get(f"channel_{channel}", channel)
