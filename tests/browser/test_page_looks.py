"""The order page in every phase, both languages, small and large, light and dark, in forced colours and on paper.

The pictures stay in the test's temporary folder, for people to look at. What can be asserted is: nothing is wider than
the screen, the policy is kept, and axe has no findings.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
from msgspec.structs import replace
from playwright.async_api import Browser, Page, Route

from api.http.response import Response
from api.pages import assets
from api.pages.handlers import PAGE_HEADERS
from api.pages.html import missing, page_of, render
from api.pages.pay import CurrentWay, PayView
from api.pages.status import view_status
from api.pages.texts import LANGUAGES
from api.sdk import files as sdk
from api.shop import NO_SHOP, Shop, open_shop
from core.order import CaseReason, OrderState, OrderStatus, PaymentStatus, RefundStatus
from core.paying import Way, WayKind
from core.settings import Settings
from tests.browser.looks import axe_findings, overflow
from tests.core.states import (
    ALIPAY,
    EXPIRES_AT,
    NOW,
    WECHAT,
    a_dispute,
    a_payment,
    a_refund,
    a_state,
    an_order,
    closed_order,
    paid_order,
    paid_payment,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE = "http://pay.test/o/page-token-0123456789"
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 32"><rect width="96" height="32" rx="6" fill="#7a1f3d"/>'
    '<circle cx="16" cy="16" r="8" fill="#fff"/><path d="M32 16h52" stroke="#fff" stroke-width="6"/></svg>'
)
LONG = "Mountain oolong, spring harvest, 250 g, with a gift box and a hand-written card — 高山乌龙茶" + "x" * 60


def way(account: str, method: str, kind: WayKind, *, fits: bool = True) -> Way:
    return Way(account=account, channel=account, method=method, kind=kind, fits=fits)


NATIVE = way("wechatpay", "native", WayKind.QR)
PRECREATE = way("alipay", "precreate", WayKind.QR)
ALIPAY_PAGE = way("alipay", "page", WayKind.REDIRECT)
H5 = way("wechatpay", "h5", WayKind.REDIRECT, fits=False)
STRIPE = way("stripe", "checkout", WayKind.REDIRECT)
WAYS = (NATIVE, PRECREATE, ALIPAY_PAGE, STRIPE, H5)
ELSEWHERE = (
    way("wechatpay", "jsapi", WayKind.JSAPI),
    way("alipay", "", WayKind.ELSEWHERE),
    way("alipay", "precreate", WayKind.QR, fits=False),
)


def current(way: Way, value: str, *, once: bool = False, ends_at: datetime = EXPIRES_AT) -> CurrentWay:
    return CurrentWay(
        account=way.account,
        channel=way.channel,
        method=way.method,
        kind=way.kind,
        value=value,
        ends_at=ends_at,
        is_older_payable_too=once,
    )


def a_view(ways: tuple[Way, ...], shown: CurrentWay | None = None, error: str = "") -> PayView:
    return PayView(
        ways=ways,
        current=shown,
        order_ends_at=EXPIRES_AT,
        is_handed_off=shown is not None,
        is_waiting=bool(ways) and shown is None,
        error=error,
        is_test=False,
    )


OPEN_ALL = """() => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const others = document.getElementById("others");
  others.hidden = false;
  others.lastElementChild.innerHTML = `<li data-status="paid"><a href="/o/x"><bdi>Tea · ¥1.00</bdi>
    <span class="state">Paid</span></a></li>
    <li><a href="/o/y"><bdi>Pot · ¥2.00</bdi><span class="state">…</span></a></li>`;
}"""


class Scene(NamedTuple):
    """A state, what can be paid in it, and the phase that the page must show."""

    phase: str
    state: OrderState
    pay: PayView
    shop: Shop = NO_SHOP


NOTHING = a_view(())
NEW = an_order(
    status=OrderStatus.CREATED,
    handed_off_at=None,
    accounts=("wechatpay", "alipay"),
    return_url="https://shop.test/done",
)
OPEN = an_order(return_url="https://shop.test/done")
DONE = a_refund(status=RefundStatus.SUCCEEDED, settled_at=NOW + timedelta(minutes=5))
TEST_MONEY = a_payment(live=False)
MISMATCH = frozenset({(ALIPAY, CaseReason.AMOUNT_MISMATCH)})
LINK = "https://openapi.alipay.test/gateway.do?a=1&b=" + "2" * 300
CODE = "weixin://wxpay/bizpayurl?pr=abcdefghij"
SOON = NOW + timedelta(minutes=5)


def scenes(shop: Shop) -> dict[str, Scene]:
    long = replace(NEW, subject=LONG, amount=10**14, currency="KWD")
    twice = a_state(paid_order(), paid_payment(), paid_payment(WECHAT), refunds=(a_refund(WECHAT),))
    return {
        "waiting": Scene("waiting", a_state(NEW), a_view(WAYS), shop),
        "waiting-long": Scene("waiting", a_state(long), a_view(WAYS, error="unclear"), shop),
        "waiting-wechat": Scene("waiting", a_state(NEW), a_view(ELSEWHERE)),
        "created": Scene("created", a_state(replace(NEW, accounts=None)), NOTHING),
        "code": Scene("processing", a_state(OPEN, TEST_MONEY), a_view(WAYS, current(NATIVE, CODE, ends_at=SOON)), shop),
        "link": Scene("processing", a_state(OPEN, TEST_MONEY), a_view(WAYS, current(ALIPAY_PAGE, LINK, once=True))),
        "jsapi": Scene("processing", a_state(OPEN, TEST_MONEY), a_view(ELSEWHERE, current(ELSEWHERE[0], "{}"))),
        "processing": Scene("processing", a_state(OPEN, a_payment()), NOTHING),
        "paid": Scene("paid", a_state(paid_order(return_url="https://shop.test/"), paid_payment()), NOTHING, shop),
        "paid-twice": Scene("paid", twice, NOTHING),
        "closed": Scene("closed", a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), NOTHING),
        "review": Scene("review", a_state(closed_order(), paid_payment()), NOTHING),
        "review-amount": Scene("review", a_state(OPEN, a_payment(), cases=MISMATCH), a_view(WAYS)),
        "going-back": Scene("going_back", a_state(closed_order(), paid_payment(), refunds=(a_refund(),)), NOTHING),
        "refunded": Scene(
            "refunded",
            a_state(closed_order(), paid_payment(refunded_amount=8888), refunds=(DONE,)),
            NOTHING,
        ),
        "disputed": Scene("disputed", a_state(paid_order(), paid_payment(), disputes=(a_dispute(),)), NOTHING, shop),
    }


NAMES = tuple(scenes(NO_SHOP))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """With a logo, and a bright colour that needs dark text."""
    (tmp_path / "logo.svg").write_text(LOGO)
    return open_shop(
        Settings(
            shop_name="茶 & Tea",
            shop_color="#ffd400",
            shop_contact="mailto:help@tea.example",
            shop_logo=str(tmp_path / "logo.svg"),
        )
    )


@asynccontextmanager
async def opened(browser: Browser, scene: Scene, lang: str, faults: list[str], **look: Any) -> AsyncIterator[Page]:
    """The scene in a browser context of this look, with the page's own script, style and headers."""
    context = await browser.new_context(locale=lang, reduced_motion="reduce", **{"timezone_id": "UTC"} | look)
    page = await context.new_page()
    await page.clock.set_fixed_time(NOW)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    state = replace(scene.state, order=replace(scene.state.order, page_token=PAGE.rpartition("/")[2]))
    html = render(page_of(state, scene.shop, lang=lang, requested_lang=lang, retry_after_s=0, pay=scene.pay))
    status = msgspec.json.encode(view_status(state, 0, lang))

    async def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        file = find(scene.shop, path)
        if path == urlsplit(PAGE).path:
            await route.fulfill(body=html, content_type="text/html; charset=utf-8", headers=dict(PAGE_HEADERS))
        elif path.endswith("/status"):
            await route.fulfill(body=status, content_type="application/json")
        elif file is not None:
            await route.fulfill(body=file.body, content_type=file.content_type)
        else:
            await route.abort()

    await page.route("**/*", answer)
    await page.goto(f"{PAGE}?lang={lang}")
    await page.wait_for_load_state("load")
    yield page
    await page.unroute_all(behavior="ignoreErrors")
    await context.close()


def find(shop: Shop, path: str) -> Response | None:
    if path == sdk.URL:
        return Response(body=sdk.MODULE, content_type="text/javascript")
    name = path.removeprefix("/o/static/")
    return assets.find(name) or shop.find(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", LANGUAGES)
async def test_every_phase_fits_every_screen(
    browser: Browser, shop: Shop, name: str, lang: str, tmp_path: Path
) -> None:
    scene, faults = scenes(shop)[name], list[str]()
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        look: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": 360, "height": 740}}
        async with opened(browser, scene, lang, faults, **look) as page:
            assert await page.locator("#title").inner_text() == LANGUAGES[lang].texts[scene.phase]
            for width, height in ((360, 740), (1440, 900)):
                await page.set_viewport_size({"width": width, "height": height})
                assert await overflow(page) == []
                await page.screenshot(path=tmp_path / f"{name}.{lang}.{scheme}.{width}.png", full_page=True)
    assert faults == []


@pytest.mark.parametrize("name", NAMES)
async def test_every_phase_can_be_read_in_forced_colours_and_on_paper(
    browser: Browser, shop: Shop, name: str, tmp_path: Path
) -> None:
    scene, faults = scenes(shop)[name], list[str]()
    look: dict[str, Any] = {"forced_colors": "active", "viewport": {"width": 360, "height": 740}}
    async with opened(browser, scene, "en", faults, **look) as page:
        await page.screenshot(path=tmp_path / f"{name}.forced.png", full_page=True)
        await page.emulate_media(forced_colors="none", media="print")
        assert await overflow(page) == []
        await page.screenshot(path=tmp_path / f"{name}.print.png", full_page=True)
        assert not await page.locator("#refresh").is_visible()
        assert await page.locator("#amount").is_visible()
    assert faults == []


async def test_a_countdown_ends_at_the_readers_own_time(browser: Browser) -> None:
    """Its date is left out on the same day. Without a script it is in UTC, and marked so."""
    view = replace(a_view(WAYS, current(NATIVE, CODE, ends_at=SOON)), order_ends_at=NOW + timedelta(days=1))
    scene, faults = Scene("processing", a_state(OPEN, TEST_MONEY), view), list[str]()
    expected = {True: ["20:05 (5:00)", "2026年3月2日 20:00 (24:00:00)"], False: ["12:05 UTC", "2026-03-02 12:00 UTC"]}
    for has_script, texts in expected.items():
        look = {"timezone_id": "Asia/Shanghai", "java_script_enabled": has_script}
        async with opened(browser, scene, "zh", faults, **look) as page:
            await page.locator("time[data-countdown]", has_text=texts[0]).wait_for()
            assert await page.locator("time[data-countdown]").all_inner_texts() == texts
    assert faults == []


async def test_the_tick_is_there_when_backgrounds_are_not_printed(browser: Browser) -> None:
    """Its own lines are dark, and it stands on nothing."""
    async with opened(browser, scenes(NO_SHOP)["paid"], "en", []) as page:
        await page.emulate_media(media="print")
        tick = await page.evaluate(
            """() => {
              const mark = document.querySelector(".mark");
              return [getComputedStyle(mark).backgroundColor, getComputedStyle(mark, "::after").borderBottomColor];
            }"""
        )
    assert tick == ["rgba(0, 0, 0, 0)", "rgb(0, 0, 0)"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", LANGUAGES)
async def test_axe_has_no_findings(browser: Browser, shop: Shop, name: str, lang: str) -> None:
    """Also with everything open that opens."""
    scene = scenes(shop)[name]
    looks: tuple[dict[str, Any], ...] = (
        {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
        {"color_scheme": "dark", "viewport": {"width": 1440, "height": 900}},
    )
    for look in looks:
        async with opened(browser, scene, lang, [], **look) as page:
            await page.evaluate(OPEN_ALL)
            assert await axe_findings(page) == [], look


async def test_the_missing_page_is_whole(browser: Browser, shop: Shop, tmp_path: Path) -> None:
    context = await browser.new_context(viewport={"width": 360, "height": 740})
    page = await context.new_page()
    await page.set_content(missing(shop, "en", "").decode())
    assert await overflow(page) == []
    assert await page.locator("#contact a").get_attribute("href") == "mailto:help@tea.example"
    await context.close()
