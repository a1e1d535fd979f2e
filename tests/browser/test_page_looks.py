"""The order page in every phase, both languages, small and large, light and dark, in forced colours and on paper.

What can be asserted is: nothing is wider than the screen, the policy is kept, and axe has no findings.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser, ConsoleMessage, Error, Page, Route

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
from tests.browser.conftest import new_context
from tests.browser.looks import LEAST, axe_findings, draw, looks, overflow
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

PATH = "/o/page-token-0123456789"
_numbers = count()
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
        is_over=False,
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


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tabs(browser: Browser) -> AsyncIterator[Mapping[str, Page]]:
    """One for each language: to open another takes longer than to look at a page."""
    async with AsyncExitStack() as stack:
        devices = [new_context(browser, locale=lang, timezone_id="UTC") for lang in LANGUAGES]
        contexts = [await stack.enter_async_context(device) for device in devices]
        yield {lang: await context.new_page() for lang, context in zip(LANGUAGES, contexts, strict=True)}


@asynccontextmanager
async def opened(page: Page, scene: Scene, lang: str, faults: list[str]) -> AsyncIterator[None]:
    """The scene in this tab, with the page's own script, style and headers, and on an origin of its own: a browser
    remembers orders.
    """

    def note(fault: Error | ConsoleMessage) -> None:
        if isinstance(fault, Error) or "Content Security" in fault.text:
            faults.append(str(fault))

    page.on("pageerror", note)
    page.on("console", note)
    await page.clock.set_fixed_time(NOW)
    state = replace(scene.state, order=replace(scene.state.order, page_token=PATH.rpartition("/")[2]))
    html = render(page_of(state, scene.shop, lang=lang, requested_lang=lang, retry_after_s=0, pay=scene.pay))
    status = msgspec.json.encode(view_status(state, 0, lang))

    async def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        file = find(scene.shop, path)
        if path == PATH:
            await route.fulfill(body=html, content_type="text/html; charset=utf-8", headers=dict(PAGE_HEADERS))
        elif path.endswith("/status"):
            await route.fulfill(body=status, content_type="application/json")
        elif file is not None:
            await route.fulfill(body=file.body, content_type=file.content_type)
        else:
            await route.abort()

    await page.route("**/*", answer)
    await page.goto(f"http://{next(_numbers)}.pay.test{PATH}?lang={lang}")
    await page.wait_for_load_state("load")
    yield
    await page.unroute_all(behavior="ignoreErrors")
    page.remove_listener("pageerror", note)
    page.remove_listener("console", note)


def find(shop: Shop, path: str) -> Response | None:
    if path == sdk.URL:
        return Response(body=sdk.MODULE, content_type="text/javascript")
    name = path.removeprefix("/o/static/")
    return assets.find(name) or shop.find(name)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", LANGUAGES)
async def test_every_phase_fits_every_screen_and_axe_has_no_findings(
    tabs: Mapping[str, Page], shop: Shop, name: str, lang: str
) -> None:
    """By axe also with everything open that opens."""
    page, scene, faults = tabs[lang], scenes(shop)[name], list[str]()
    async with opened(page, scene, lang, faults):
        assert await page.locator("#title").inner_text() == LANGUAGES[lang].texts[scene.phase]
        async for look in looks(page):
            assert await overflow(page) == [], look
            await draw(page, f"{name}.{lang}.{look}")
        await page.evaluate(OPEN_ALL)
        async for look in looks(page, LEAST):
            assert await axe_findings(page) == [], look
    assert faults == []


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
async def test_every_phase_can_be_read_in_forced_colours_and_on_paper(
    tabs: Mapping[str, Page], shop: Shop, name: str
) -> None:
    page, scene, faults = tabs["en"], scenes(shop)[name], list[str]()
    async with opened(page, scene, "en", faults):
        await page.set_viewport_size({"width": 360, "height": 740})
        await page.emulate_media(forced_colors="active")
        assert await overflow(page) == []
        await draw(page, f"{name}.forced")
        await page.emulate_media(forced_colors="none", media="print")
        assert await overflow(page) == []
        await draw(page, f"{name}.print")
        assert not await page.locator("#refresh").is_visible()
        assert await page.locator("#amount").is_visible()
        await page.emulate_media(media="screen")
    assert faults == []


async def test_a_countdown_ends_at_the_readers_own_time(browser: Browser) -> None:
    """Its date is left out on the same day. Without a script it is in UTC, and marked so."""
    view = replace(a_view(WAYS, current(NATIVE, CODE, ends_at=SOON)), order_ends_at=NOW + timedelta(days=1))
    scene, faults = Scene("processing", a_state(OPEN, TEST_MONEY), view), list[str]()
    expected = {True: ["20:05 (5:00)", "2026年3月2日 20:00 (24:00:00)"], False: ["12:05 UTC", "2026-03-02 12:00 UTC"]}
    for has_script, texts in expected.items():
        there = new_context(browser, locale="zh", timezone_id="Asia/Shanghai", java_script_enabled=has_script)
        async with there as context:
            page = await context.new_page()
            async with opened(page, scene, "zh", faults):
                await page.locator("time[data-countdown]", has_text=texts[0]).wait_for()
                assert await page.locator("time[data-countdown]").all_inner_texts() == texts
    assert faults == []


@pytest.mark.parametrize(("has_script", "text"), [(True, "1 Mar 2026, 20:00"), (False, "2026-03-01 12:00 UTC")])
async def test_money_goes_back_since_the_readers_own_time(browser: Browser, has_script: bool, text: str) -> None:
    """Like the time at which it was paid. Without a script it is in UTC, and marked so."""
    there = new_context(browser, locale="en-GB", timezone_id="Asia/Shanghai", java_script_enabled=has_script)
    async with there as context:
        page = await context.new_page()
        async with opened(page, scenes(NO_SHOP)["going-back"], "en", []):
            await page.locator("#going-back time", has_text=text).wait_for()


async def test_the_tick_is_there_when_backgrounds_are_not_printed(tabs: Mapping[str, Page]) -> None:
    """Its own lines are dark, and it stands on nothing."""
    page = tabs["en"]
    async with opened(page, scenes(NO_SHOP)["paid"], "en", []):
        await page.emulate_media(media="print")
        tick = await page.evaluate(
            """() => {
              const mark = document.querySelector(".mark");
              return [getComputedStyle(mark).backgroundColor, getComputedStyle(mark, "::after").borderBottomColor];
            }"""
        )
        await page.emulate_media(media="screen")
    assert tick == ["rgba(0, 0, 0, 0)", "rgb(0, 0, 0)"]


async def test_the_missing_page_is_whole(tabs: Mapping[str, Page], shop: Shop) -> None:
    page = tabs["en"]
    await page.goto("about:blank")
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.set_content(missing(shop, "en", "").decode())
    assert await overflow(page) == []
    assert await page.locator("#contact a").get_attribute("href") == "mailto:help@tea.example"
