"""An order's page as HTML: complete without the script, and the token-free shell that the service worker keeps.

Every value goes through `escape`; the page holds no inline script or style, and nothing that its reader may not know.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

import msgspec

from api.pages import assets
from api.pages.pay import PayView
from api.pages.pay_html import draw_pay
from api.pages.texts import TEXTS, other
from api.sdk import files as sdk
from core.money import decimal_text
from core.order import OrderState, PublicStatus, public_status

RELOAD_S = 10

# `live.js` puts the reload away, whose end tag is ignored where that script is blocked: the page then moves by itself.
_RELOAD = (
    f'<script src="{assets.url("live.js")}"></script><meta http-equiv="refresh" content="{RELOAD_S}"></template>\n'
)
_SCRIPT = (
    f'<link rel="modulepreload" href="{sdk.URL}">\n<script type="module" src="{assets.url("order.js")}"></script>\n'
)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one page. The shell has no token, and the script fills it from what the browser remembers."""

    lang: str
    requested_lang: str = ""
    token: str = ""
    status: str = PublicStatus.PROCESSING
    version: int = 0
    order_no: str = ""
    subject: str = ""
    amount_text: str = ""
    paid_at: datetime | None = None
    return_url: str | None = None
    retry_after_s: int = 0
    is_final: bool = False
    is_test: bool = False
    pay: PayView | None = None


def amount_text(state: OrderState) -> str:
    """(8888, "CNY") → "88.88 CNY"."""
    return f"{decimal_text(state.order.amount, state.order.currency)} {state.order.currency}"


def page_of(
    state: OrderState, *, lang: str, requested_lang: str, retry_after_s: int, pay: PayView | None = None
) -> Page:
    order, status = state.order, public_status(state.order, state.payments, state.disputes)
    return Page(
        lang=lang,
        requested_lang=requested_lang,
        token=order.page_token,
        status=status,
        version=order.version,
        order_no=order.order_no,
        subject=order.subject,
        amount_text=amount_text(state),
        paid_at=order.paid_at,
        return_url=order.return_url,
        retry_after_s=retry_after_s,
        is_final=status.is_definite,
        is_test=state.live is False,
        pay=pay,
    )


def missing(lang: str, requested_lang: str) -> bytes:
    """The page of a token that is malformed, unknown or expired."""
    return render(Page(lang=lang, requested_lang=requested_lang, status="missing", is_final=True), with_script=False)


def render(page: Page, *, with_script: bool = True) -> bytes:
    texts = TEXTS[page.lang]
    title, suffix = texts[page.status], f"?lang={quote(page.requested_lang)}" if page.requested_lang else ""
    reload = "" if page.is_final else _RELOAD
    script = _SCRIPT if with_script else ""
    html = f"""<!doctype html>
<html lang="{page.lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{escape(title)}</title>
<link rel="icon" href="{assets.url("icon.svg")}" type="image/svg+xml">
<link rel="stylesheet" href="{assets.url("order.css")}">
{reload}{script}</head>
<body>
{_test_mark(page, texts["test"])}\
<main id="order" class="card" data-token="{escape(page.token)}" data-status="{page.status}" \
data-version="{page.version}" data-retry-after="{page.retry_after_s}">
<p id="subject"><bdi>{escape(page.subject)}</bdi></p>
<p id="amount">{escape(page.amount_text)}</p>
<div id="state" role="status" aria-live="polite" aria-atomic="true">
<span class="mark" aria-hidden="true"></span>
<h1 id="title">{escape(title)}</h1>
<p id="note">{escape(texts[page.status + "_note"])}</p>
<p id="when">{_time(page.paid_at)}</p>
</div>
{draw_pay(page.pay, page.token, page.lang, suffix)}
<p id="net" role="status" aria-live="polite"></p>
{_refresh_form(page, suffix, texts["check"])}
{_back_link(page, texts["back"])}
<p id="number">{_number(page, texts["order"])}</p>
</main>
<section id="others" class="card" aria-live="polite" hidden><h2>{escape(texts["others"])}</h2><ul></ul></section>
<p id="language"><a href="?lang={other(page.lang)}" lang="{other(page.lang)}">{escape(texts["language"])}</a></p>
</body>
</html>
"""
    return html.encode()


def _test_mark(page: Page, text: str) -> str:
    return f'<p id="test" role="note">{escape(text)}</p>\n' if page.is_test else ""


def _time(at: datetime | None) -> str:
    """In UTC, and marked so; the script shows the reader's own time."""
    if at is None:
        return ""
    utc = at.astimezone(UTC)
    return f'<time datetime="{utc:%Y-%m-%dT%H:%M:%SZ}">{utc:%Y-%m-%d %H:%M} UTC</time>'


def _refresh_form(page: Page, suffix: str, text: str) -> str:
    hidden = " hidden" if page.is_final and page.status != PublicStatus.CLOSED else ""  # money may come after the close
    action = f' action="/o/{quote(page.token)}/refresh{suffix}"' if page.token else ""
    return f'<form id="refresh" method="post"{action}{hidden}><button type="submit">{escape(text)}</button></form>'


def _back_link(page: Page, text: str) -> str:
    if not page.return_url:
        return ""
    return f'<p id="back"><a href="{escape(page.return_url)}" rel="noreferrer">{escape(text)}</a></p>'


def _number(page: Page, text: str) -> str:
    return f"{escape(text)} <bdi>{escape(page.order_no)}</bdi>" if page.order_no else ""
