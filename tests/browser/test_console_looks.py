"""Every page of the console is read by everybody: axe finds nothing, nothing is wider than the screen, and a thumb
meets what it aims at. One table of pages, held complete by the table of routes, over a database with much in it.

`make test` takes each page small, light and in English, and large, dark and in Chinese. With PICTURES or LOOKS=all each
page is taken in every look of both languages.
"""

import os
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Response, ViewportSize

from api.console.routes import ROWS
from core.act_names import ActName
from core.alerts import Rule
from core.operators import Role
from storage.postgres.audit import Act, Via, write_act
from storage.postgres.operators import insert_operator
from tests.api.console.test_order import fill_with
from tests.browser.conftest import Console
from tests.browser.looks import ALL, LEAST, PICTURES, Look, axe_findings, draw, overflow
from tests.browser.test_console_alerts import raise_alerts
from tests.browser.test_console_callbacks import came
from tests.browser.test_console_cases import opened, with_a_day
from tests.browser.test_console_money import waiting_refund
from tests.browser.test_console_notifications import HOOK, HOSTILE, ORDER_NO, made
from tests.browser.test_console_overview import fill_figures
from tests.storage.postgres.tools import commit_evidence, number, placed, started, unpaid

pytestmark = [pytest.mark.browser, pytest.mark.slow]

IS_WHOLE = os.environ.get("LOOKS", "all" if PICTURES else "") == "all"
LOOKS = [(locale, look) for locale in ("en-GB", "zh-CN") for look in ALL]
if not IS_WHOLE:
    LOOKS = [("en-GB", LEAST[0]), ("zh-CN", LEAST[1])]

LONG_ACCOUNT = "an-account-with-the-longest-name-of-all"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
OPERATOR = "bob-with-a-name-as-long-as-it-may-be-40"

# The pages of each route. Words in braces are what the database was filled with.
PAGES = {
    "/ops/signin": [""],
    "/ops": ["", "?span=24h"],
    "/ops/orders": ["", "?number=A-", "?status=paid&account=nothing"],
    "/ops/orders/{order_no}": ["/A-1", "/A-2", "/A-3", "/nothing-of-the-kind"],
    "/ops/orders/{order_no}/query": ["/A-2/query"],
    "/ops/orders/{order_no}/close": ["/A-3/close"],
    "/ops/orders/{order_no}/accept": ["/A-3/accept"],
    "/ops/orders/{order_no}/refund/{number}": ["/A-2/refund/{number}?amount=1.00", "/A-2/refund/{number}?amount=9999"],
    "/ops/orders/{order_no}/attach": ["/A-3/attach"],
    "/ops/lookup": [""],
    "/ops/approvals": ["", "?state=all"],
    "/ops/approvals/{approval_id}": ["/{approval}"],
    "/ops/cases": ["", "?whose=mine"],
    "/ops/cases/{id}": ["/{case}"],
    "/ops/cases/{id}/resolve": ["/{case}/resolve", "/{double}/resolve?choice=refund"],
    "/ops/notifications": ["", "?status=dead", "?status=delivered"],
    "/ops/notifications/resend": ["", "?what=all&since=7d&endpoint={hook}"],
    "/ops/notifications/{notification_id}": ["/{waiting}", "/{dead}"],
    "/ops/endpoints": [""],
    "/ops/endpoints/show": ["?endpoint={hook}"],
    "/ops/callbacks": [""],
    "/ops/callbacks/{callback_id}": ["/{genuine}", "/{refused}"],
    "/ops/days": [""],
    "/ops/days/{account}/{day}": [f"/{LONG_ACCOUNT}/{YESTERDAY}"],
    "/ops/disputes": [""],
    "/ops/reconciliation": [""],
    "/ops/reconciliation/{id}": ["/{run}"],
    "/ops/certificates": [""],
    "/ops/accounts/{name}": ["/main", f"/{LONG_ACCOUNT}"],
    "/ops/accounts/{name}/disable": ["/main/disable"],
    "/ops/accounts/{name}/enable": ["/main/enable"],
    "/ops/alerts": [""],
    "/ops/audit": ["", "?by=nobody"],
    "/ops/operators": [""],
    "/ops/operators/{name}": [f"/{OPERATOR}"],
    "/ops/me": [""],
}
PARTS = (".csv", "/live", "/requests", "/static/{name}")
"""Ends of the routes that are no pages: files, and parts that scripts fetch."""

SMALL_TARGETS = """() => [...document.querySelectorAll(
    "button, .button, .acts a, .tabs a, .places a, select, input:not([type=hidden], [type=checkbox], [type=radio])")]
  .filter((each) => each.checkVisibility())
  .map((each) => [each, each.getBoundingClientRect()])
  .filter(([, box]) => box.height < 43.5 || box.width < 43.5)
  .map(([each, box]) => `${each.outerHTML.slice(0, 80)} ${box.width}x${box.height}`)"""


def test_every_page_has_its_looks() -> None:
    """A new row of the table of routes comes with a line above."""
    pages = {row.route.pattern for row in ROWS if row.route.method == "GET"}
    assert {each for each in pages if not each.endswith(PARTS)} == PAGES.keys()


def addresses(words: dict[str, object]) -> list[str]:
    """All pages, with what the database holds in their addresses."""
    found = []
    for pattern, ends in PAGES.items():
        start = pattern.partition("/{")[0]
        found += [start + end.format(**words) for end in ends]
    return found


async def fill(console: Console) -> dict[str, object]:
    """Rows on every page, many of whose texts are as long and as hostile as strangers may make them."""
    resources, db = console.resources, console.resources.db
    case, *_ = await opened(console)
    run = await with_a_day(console)
    await fill_figures(console)
    await placed(db, "A-1", subject="A very long subject " * 6)
    await started(db, "A-1", number("A-1b"))
    await commit_evidence(db, "A-1", unpaid("A-1"), arm_no=1)
    await db.execute("DELETE FROM payments WHERE attempt_no = 2")
    await fill_with(resources, "A-1", "https://shop.test/" + "long" * 40)
    await placed(db, "A-3")
    key = number("A-2")
    approval = await waiting_refund(console, "A-2", "w" * 500)
    await db.execute(
        "SET LOCAL session_replication_role = replica;"
        " INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,"
        " requested_at, channel_refund_no) SELECT 'r' || repeat('9', 63), channel_account, out_trade_no, order_no, 1,"
        " currency, 'operator', 'processing', now(), repeat('re_', 80) FROM payments WHERE order_no = 'A-2'"
    )
    double = await db.fetchval(
        "INSERT INTO cases (order_no, channel_account, out_trade_no, reason) VALUES ('A-2', $1, $2, 'double_payment')"
        " RETURNING id",
        *key,
    )
    waiting, dead, _ = await made(console)
    paused = "INSERT INTO paused_endpoints (endpoint, paused_by, reason) VALUES ($1, 'alice', $2)"
    await db.execute(paused, HOOK, HOSTILE)
    genuine, refused = await came(console)
    await raise_alerts(console, [rule.value for rule in Rule if rule is not Rule.TEST])
    await insert_operator(db, OPERATOR, Role.VIEWER, "no password is right")
    for each in range(3):
        detail = {"reason": "x" * 200, "address": "2001:db8:ffff:ffff::/64"}
        act = Act(by="bob", via=Via.CONSOLE, action=ActName.ORDER_CLOSE, subject=f"A-{'9' * 60}{each}", detail=detail)
        await write_act(db, act)
    return {
        "number": key.out_trade_no,
        "approval": approval.id,
        "case": case,
        "double": double,
        "run": run,
        "hook": quote(HOOK),
        "waiting": waiting,
        "dead": dead,
        "genuine": genuine,
        "refused": refused,
        "order": ORDER_NO,
    }


@pytest.mark.long
async def test_every_page_is_read_by_everybody_in_every_look(console: Console, account: str) -> None:
    words = await fill(console)
    found: dict[str, object] = {}
    for locale, look in LOOKS:
        size = ViewportSize(width=look.width, height=look.height)
        page = await console(Role.ADMIN, "admin", locale=locale, color_scheme=look.scheme, viewport=size)
        for path in addresses(words):
            if findings := await findings_of(page, path, look):
                found[f"{path} {locale} {look}"] = findings
            name = "".join(each if each.isalnum() else "-" for each in path.replace(str(HOOK), "hook")[:70])
            await draw(page, f"console{name.removeprefix('-ops')}.{locale[:2]}.{look}")
    assert found == {}


async def findings_of(page: Page, path: str, look: Look) -> list[object]:
    response = await page.goto(path)
    assert isinstance(response, Response)
    assert response.status == 404 if "nothing-of" in path else response.status == 200, (path, response.status)
    small = await page.evaluate(SMALL_TARGETS) if look.width < 1000 else []
    return [*await axe_findings(page), *await overflow(page), *small]


async def test_faults_and_the_way_in_are_read_by_everybody(console: Console) -> None:
    found: dict[str, object] = {}
    for locale, look in LOOKS:
        size = ViewportSize(width=look.width, height=look.height)
        wanted = {"locale": locale, "color_scheme": look.scheme, "viewport": size}
        viewer, nobody = await console(Role.VIEWER, "viewer", **wanted), await console.open(**wanted)
        for page, path, status in (
            (viewer, "/ops/operators", 403),
            (viewer, "/ops/orders?status=none", 400),
            (nobody, "/ops/nothing/here", 404),
            (nobody, "/ops/orders", 200),
        ):
            response = await page.goto(path)
            assert response is not None
            assert response.status == status, path
            if findings := [*await axe_findings(page), *await overflow(page)]:
                found[f"{path} {locale} {look}"] = findings
            await draw(page, f"console-fault-{status}.{locale[:2]}.{look}")
        await nobody.locator("#f-name").fill("alice")
        await nobody.locator("#f-password").fill("wrong")
        await nobody.locator("button.primary").click()
        await nobody.locator(".fault").wait_for()
        if findings := [*await axe_findings(nobody), *await overflow(nobody)]:
            found[f"wrong password {locale} {look}"] = findings
        await draw(nobody, f"console-signin-wrong.{locale[:2]}.{look}")
    assert found == {}


async def test_the_menu_and_the_keys_are_read_by_everybody(console: Console) -> None:
    """Small, the pages are behind a button that needs no script; Esc shuts it. The keys are a dialog."""
    size = ViewportSize(width=360, height=740)
    page = await console(Role.ADMIN, "admin", viewport=size, color_scheme="dark")
    await page.goto("/ops/me")
    link = page.locator("#places").get_by_role("link", name="Cases")
    assert not await link.is_visible()
    await page.get_by_role("button", name="Menu").press("Enter")
    await link.wait_for()
    assert [*await axe_findings(page), *await overflow(page), *await page.evaluate(SMALL_TARGETS)] == []
    await draw(page, "console-menu")
    await page.keyboard.press("Escape")
    assert not await link.is_visible()
    await page.keyboard.press("?")
    await page.get_by_role("dialog", name="Keys").wait_for()
    assert [*await axe_findings(page), *await overflow(page)] == []
    await draw(page, "console-keys")


async def test_a_days_closing_is_printed_without_what_only_a_screen_needs(console: Console) -> None:
    await with_a_day(console)
    page = await console(Role.OPERATOR)
    await page.goto(f"/ops/days/{LONG_ACCOUNT}/{YESTERDAY}")
    await page.emulate_media(media="print", color_scheme="dark")
    for hidden in (".top", ".crumbs", "main form", "main button", "#requests"):
        assert not [each for each in await page.locator(hidden).all() if await each.is_visible()], hidden
    for shown in ("h1", "main table", ".signature"):
        assert await page.locator(shown).first.is_visible(), shown
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert await page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(23, 33, 43)"
    await page.set_viewport_size({"width": 720, "height": 1000})
    assert await overflow(page) == []
    await draw(page, "console-day-printed")
