"""An order's page as HTML: complete without the script, and the token-free shell that the service worker keeps.

Every value goes through `escape`; the page holds no inline script or style, and nothing that its reader may not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from urllib.parse import quote

import msgspec

from api.pages import assets
from api.pages.money import shown_amount
from api.pages.parts import clock_time, fill, fill_html, utc_text
from api.pages.pay import PayView
from api.pages.pay_html import NOTHING, action_of, draw_pay
from api.pages.texts import LANGUAGES, Language
from api.sdk import files as sdk
from api.shop import NO_SHOP, Shop
from core.money import decimal_text
from core.order import OrderState, PublicStatus, public_status
from core.phase import Phase, Returned, phase_of, returned_money

RELOAD_S = 10

# `live.js` puts the reload away, whose end tag is ignored where that script is blocked: the page then moves by itself.
_RELOAD = (
    f'<script src="{assets.url("live.js")}"></script><meta http-equiv="refresh" content="{RELOAD_S}"></template>\n'
)
_SCRIPT = (
    f'<link rel="modulepreload" href="{sdk.URL}">\n<script type="module" src="{assets.url("order.js")}"></script>\n'
)

PAYABLE = (Phase.CREATED, Phase.WAITING, Phase.PROCESSING)
"""Phases in which the page has something to pay, or says that the shop takes the payment."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one page. The shell has no token, and the script fills it from what the browser remembers."""

    lang: str
    shop: Shop = NO_SHOP
    requested_lang: str = ""
    token: str = ""
    status: str = PublicStatus.PROCESSING
    phase: str = Phase.PROCESSING
    version: int = 0
    order_no: str = ""
    subject: str = ""
    amount: tuple[int, str] | None = None
    now: datetime | None = None
    paid_at: datetime | None = None
    returned: Returned | None = None
    return_url: str | None = None
    retry_after_s: int = 0
    is_final: bool = False
    is_test: bool = False
    pay: PayView | None = None

    @property
    def language(self) -> Language:
        return LANGUAGES[self.lang]

    @property
    def texts(self) -> Mapping[str, str]:
        return self.language.texts

    @property
    def suffix(self) -> str:
        """The query string of our addresses: the language that the page's own address names."""
        return f"?lang={quote(self.requested_lang)}" if self.requested_lang else ""


def amount_text(amount: int, currency: str) -> str:
    """(8888, "CNY") → "88.88 CNY", for programs; readers get `shown_amount`."""
    return f"{decimal_text(amount, currency)} {currency}"


def page_of(
    state: OrderState, shop: Shop, *, lang: str, requested_lang: str, retry_after_s: int, pay: PayView | None = None
) -> Page:
    order, status = state.order, public_status(state.order, state.payments, state.disputes)
    return Page(
        lang=lang,
        shop=shop,
        requested_lang=requested_lang,
        token=order.page_token,
        status=status,
        phase=_shown_phase(state, pay),
        version=order.version,
        order_no=order.order_no,
        subject=order.subject,
        amount=(order.amount, order.currency),
        now=state.now,
        paid_at=order.paid_at,
        returned=returned_money(state),
        return_url=order.return_url,
        retry_after_s=retry_after_s,
        is_final=status.is_definite,
        is_test=state.live is False or (pay is not None and pay.is_test),
        pay=pay,
    )


def _shown_phase(state: OrderState, pay: PayView | None) -> Phase:
    """The phase, and not *waiting* where the page may not say so, or has no way to pay."""
    phase = phase_of(state)
    if phase is not Phase.WAITING or pay is None or (pay.is_waiting and pay.ways):
        return phase
    return Phase.CREATED if state.order.handed_off_at is None else Phase.PROCESSING


def missing(shop: Shop, lang: str, requested_lang: str) -> bytes:
    """The page of a token that is malformed, unknown or expired."""
    page = Page(
        lang=lang, shop=shop, requested_lang=requested_lang, status="missing", phase="missing", is_final=True,
    )  # fmt: skip
    return render(page, with_script=False)


def render(page: Page, *, with_script: bool = True) -> bytes:
    texts, title = page.texts, escape(page.texts[page.phase])
    reload = "" if page.is_final else _RELOAD
    script = _SCRIPT if with_script else ""
    html = f"""<!doctype html>
<html lang="{page.lang}" dir="{escape(texts["direction"])}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="icon" href="{assets.url("icon.svg")}" type="image/svg+xml">
<link rel="stylesheet" href="{assets.url("order.css")}">
{_shop_style(page.shop)}{reload}{script}</head>
<body>
{_header(page)}\
<main id="order" class="card" data-token="{escape(page.token)}" data-status="{page.status}" data-phase="{page.phase}" \
data-version="{page.version}" data-now="{"" if page.now is None else utc_text(page.now)}" \
data-retry-after="{page.retry_after_s}">
<p id="subject"><bdi>{escape(page.subject)}</bdi></p>
<p id="amount" dir="auto">{_amount(page)}</p>
<div id="state" role="status" aria-live="polite" aria-atomic="true">
<span class="mark" aria-hidden="true"></span>
<h1 id="title">{title}</h1>
<p id="note">{escape(texts[page.phase + "_note"])}</p>
<p id="when">{"" if page.paid_at is None else clock_time(page.paid_at)}</p>
</div>
<p id="going-back" data-fresh aria-live="polite">{_returned(page)}</p>
{_pay(page)}
<p id="net" role="status" aria-live="polite"></p>
{_refresh_form(page)}
{_back_link(page)}
<p id="number">{_number(page)}</p>
{_contact(page)}
</main>
<section id="others" class="card" aria-labelledby="others-title" aria-live="polite" hidden>\
<h2 id="others-title">{escape(texts["others"])}</h2><ul></ul></section>
{_languages(page)}
</body>
</html>
"""
    return html.encode()


# -- the shop ----------------------------------------------------------------------------------------------------------


def _shop_style(shop: Shop) -> str:
    return f'<link rel="stylesheet" href="{shop.url("shop")}">\n' if shop.url("shop") else ""


def _header(page: Page) -> str:
    """Logo and name of the shop, and whether this is test money."""
    shop, logo = page.shop, page.shop.url("logo")
    image = f'<img id="logo" src="{logo}" alt="" height="40">' if logo else ""
    name = f'<p id="shop">{image}<bdi>{escape(shop.name)}</bdi></p>\n' if image or shop.name else ""
    test = f'<p id="test" role="note">{escape(page.texts["test"])}</p>\n' if page.is_test else ""
    return f"<header>\n{name}{test}</header>\n" if name or test else ""


def _contact(page: Page) -> str:
    shop = page.shop
    if not shop.contact or (page.phase != "missing" and not page.token):
        return ""
    text = fill(page.texts["contact_of"], shop=shop.name) if shop.name else escape(page.texts["contact"])
    return f'<p id="contact"><a href="{escape(shop.contact)}" rel="noreferrer">{text}</a></p>'


# -- the order ---------------------------------------------------------------------------------------------------------


def _amount(page: Page) -> str:
    return "" if page.amount is None else escape(shown_amount(*page.amount, page.language))


def _returned(page: Page) -> str:
    """The amount of money that came late or twice and goes back, and when."""
    money = page.returned
    if money is None:
        return ""
    key = ("back_twice" if money.is_second else "back_late") + ("_done" if money.settled_at else "")
    amount = f"<bdi>{escape(shown_amount(money.amount, money.currency, page.language))}</bdi>"
    settled = "" if money.settled_at is None else clock_time(money.settled_at)
    return fill_html(page.texts[key], amount=amount, since=clock_time(money.since), settled=settled)


def _pay(page: Page) -> str:
    if page.pay is None or page.now is None or page.phase not in PAYABLE:
        return NOTHING
    return draw_pay(page.pay, page.texts, action=action_of(page.token, page.suffix), now=page.now)


def _refresh_form(page: Page) -> str:
    hidden = " hidden" if page.is_final and page.status != PublicStatus.CLOSED else ""  # money may come after the close
    action = f' action="/o/{quote(page.token, safe="")}/refresh{page.suffix}"' if page.token else ""
    text = escape(page.texts["check"])
    return f'<form id="refresh" method="post"{action}{hidden}><button type="submit">{text}</button></form>'


def _back_link(page: Page) -> str:
    if not page.return_url:
        return ""
    name = page.shop.name
    text = fill(page.texts["back_to"], shop=name) if name else escape(page.texts["back"])
    return f'<p id="back"><a href="{escape(page.return_url)}" rel="noreferrer">{text}</a></p>'


def _number(page: Page) -> str:
    return f"{escape(page.texts['order'])} <bdi>{escape(page.order_no)}</bdi>" if page.order_no else ""


def _languages(page: Page) -> str:
    links = "".join(
        f'<a href="?lang={name}" lang="{name}" hreflang="{name}">{escape(language.texts["language"])}</a> '
        for name, language in LANGUAGES.items()
        if name != page.lang
    )
    return f'<nav id="language" aria-label="{escape(page.texts["languages"])}">{links}</nav>'
