"""Texts of a channel as the page draws them: never markup, never a script, never a link that nobody could use."""

import re
from datetime import timedelta

import pytest
from msgspec.structs import replace

from api.pages.html import page_of
from api.pages.pay import CurrentWay, PayView
from api.pages.pay_html import draw_pay
from api.pages.texts import TEXTS
from api.shop import NO_SHOP
from core.order import OrderStatus
from core.paying import Device, Way, WayKind, ways
from tests.core.states import EXPIRES_AT, NOW, a_payment, a_state, an_order

EVIL = "\"'></svg></section><script>alert(1)</script>"
CURRENT = CurrentWay(
    account="main",
    channel="alipay",
    method="page",
    kind=WayKind.REDIRECT,
    value="https://pay.test/?a=1&b=2",
    ends_at=NOW + timedelta(minutes=5),
    is_older_payable_too=False,
)
WAY = Way(account="main", channel="alipay", method="page", kind=WayKind.REDIRECT)


def a_view(current: CurrentWay | None, *ways: Way) -> PayView:
    return PayView(
        ways=ways or (WAY,),
        current=current,
        order_ends_at=EXPIRES_AT,
        is_handed_off=current is not None,
        is_waiting=current is None,
        is_over=False,
        error="",
        is_test=False,
    )


def drawn(view: PayView, lang: str = "en") -> str:
    return draw_pay(view, TEXTS[lang], action="/o/token/pay", now=NOW)


@pytest.mark.parametrize("kind", [WayKind.REDIRECT, WayKind.QR, WayKind.JSAPI])
def test_texts_of_a_channel_are_text(kind: WayKind) -> None:
    evil = Way(account=EVIL, channel=EVIL, method=EVIL, kind=kind)
    for value in (EVIL, f"https://pay.test/{EVIL}"):
        html = drawn(a_view(replace(CURRENT, channel=EVIL, kind=kind, value=value), WAY, evil))
        assert "<script" not in html
        assert html.count("</section>") == 1


@pytest.mark.parametrize("value", ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "//pay.test", ""])
def test_a_link_that_is_no_address_is_not_drawn(value: str) -> None:
    html = drawn(a_view(replace(CURRENT, value=value)))
    assert "href" not in html
    assert "cannot be used now" in html


def test_a_text_that_no_code_holds_is_not_drawn() -> None:
    html = drawn(a_view(replace(CURRENT, kind=WayKind.QR, value="x" * 3000)))
    assert "<svg" not in html
    assert "cannot be used now" in html


def test_a_code_has_a_label_and_an_end() -> None:
    html = drawn(a_view(replace(CURRENT, kind=WayKind.QR)))
    assert re.search(r'<svg role="img"[^>]*><title>QR code: pay with Alipay</title>', html)
    assert 'This code works until <time data-countdown datetime="2026-03-01T12:05:00Z">12:05 UTC</time>.' in html
    assert 'can be paid until <time data-countdown datetime="2026-03-01T12:30:00Z">12:30 UTC</time>' in html


@pytest.mark.parametrize(
    ("kind", "text"),
    [(WayKind.REDIRECT, "This link works"), (WayKind.QR, "This code works"), (WayKind.JSAPI, "You can pay like this")],
)
def test_the_end_names_what_ends(kind: WayKind, text: str) -> None:
    html = drawn(a_view(replace(CURRENT, kind=kind)))
    assert re.findall(r'<p class="until">([^<]*) until <time', html)[0] == text


def test_accounts_of_one_channel_have_labels_of_their_own() -> None:
    """Only where there are several: an account's name says little to a buyer."""
    here, there = replace(WAY, account="here"), replace(WAY, account="there")
    card = replace(WAY, account="card", channel="stripe", method="checkout")
    html = drawn(a_view(None, here, there, card))
    assert re.findall(r"<button[^>]*><bdi>([^<]*)</bdi></button>", html) == [
        "Alipay (here)",
        "Alipay (there)",
        "Stripe",
    ]
    assert "Pay with Alipay (there)</h2>" in drawn(a_view(replace(CURRENT, account="there"), here, there, card))
    assert "（there）" in drawn(a_view(None, here, there), "zh")
    assert "Pay with Alipay</h2>" in drawn(a_view(CURRENT, WAY, card))


@pytest.mark.parametrize("device", Device)
@pytest.mark.parametrize("lang", TEXTS)
def test_no_two_ways_of_an_account_have_one_label(device: Device, lang: str) -> None:
    for channel in ("wechatpay", "alipay"):
        html = drawn(a_view(None, *ways([("main", channel)], device, has_openid=True)), lang)
        labels = re.findall(r"<button[^>]*>(.*?)</button>", html)
        assert len(set(labels)) == len(labels) == 3


def test_what_another_browser_is_needed_for_is_said_once() -> None:
    ways = (Way(account=name, channel="alipay", method="", kind=WayKind.ELSEWHERE) for name in ("here", "there"))
    assert drawn(a_view(None, *ways)).count("does not work inside this app") == 1


def test_an_order_whose_time_is_over_counts_nothing_down() -> None:
    html = draw_pay(a_view(None), TEXTS["en"], action="/o/token/pay", now=EXPIRES_AT)
    assert "data-countdown" not in html


def test_a_page_never_waits_beside_a_link() -> None:
    """By which the buyer may have paid."""
    new = an_order(status=OrderStatus.CREATED, handed_off_at=None, accounts=("main",))
    known = an_order(accounts=("main",), unpaid_version=3)
    for order, view, phase in (
        (new, a_view(None), "waiting"),
        (known, a_view(None), "waiting"),
        (known, a_view(CURRENT), "processing"),
        (new, replace(a_view(None), ways=()), "created"),
    ):
        page = page_of(
            a_state(order, a_payment()), NO_SHOP, lang="en", requested_lang="", retry_after_s=0, pay=view
        )  # fmt: skip
        assert page.phase == phase
