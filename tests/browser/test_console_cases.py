"""The console by keyboard alone, in Chromium, where nothing of the browser's own is caught."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from playwright.async_api import Page

from api.console.navigation import KEYS
from api.console.routes import ROWS
from core.closing import Sums
from core.operators import Role
from core.order import CaseReason
from core.reconciliation import Difference, Finding
from flows.reconcile.requested import read_requested, upload
from storage.postgres.accounts import put_account
from storage.postgres.cases import find_case
from storage.postgres.reconciliation.differences import add_differences, open_cases
from storage.postgres.reconciliation.runs import begin, claim_day, finish, save
from tests.browser.conftest import Console
from tests.channels.sandbox.driver import SandboxDriver
from tests.storage.postgres.tools import placed

pytestmark = [pytest.mark.browser, pytest.mark.slow]

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
_OPEN = """
INSERT INTO cases (order_no, reason, detail, opened_at) VALUES ($1, $2, 'x', now() - make_interval(hours => $3))
RETURNING id"""


async def opened(console: Console) -> list[int]:
    """Three cases, oldest first."""
    await console.resources.db.execute("TRUNCATE cases")
    return [
        await console.resources.db.fetchval(_OPEN, f"A-{hours}", CaseReason.PAID_LATE.value, hours)
        for hours in (3, 2, 1)
    ]


async def focused(page: Page) -> str:
    text: str = await page.evaluate("document.activeElement.textContent.trim()")
    return text


async def test_the_inbox_is_worked_on_by_keyboard_alone(console: Console) -> None:
    first, second, third = await opened(console)
    page = await console(Role.OPERATOR)
    await page.goto("/ops/cases")
    for key, expected in (("j", first), ("j", second), ("j", third), ("j", third), ("k", second)):
        await page.keyboard.press(key)
        assert await focused(page) == str(expected), key

    await page.keyboard.press("a")
    await page.get_by_role("status").get_by_text(f"Case {second} is").wait_for()
    case = await find_case(console.resources.db, second)
    assert case is not None
    assert case.assignee == "operator"

    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name=f"Case {first}").wait_for()
    await page.keyboard.press("a")
    await page.get_by_role("status").get_by_text(f"Case {first} is").wait_for()


async def test_the_keys_are_listed_and_leave_fields_and_the_browser_alone(console: Console) -> None:
    await opened(console)
    page = await console(Role.OPERATOR)
    await page.goto("/ops/cases")
    keys = page.get_by_role("dialog", name="Keys")
    await page.keyboard.press("?")
    await keys.wait_for()
    listed = [" ".join(await each.locator("kbd").all_text_contents()) for each in await keys.locator("dt").all()]
    assert listed[:8] == ["?", "/", "j", "k", "Enter", "Esc", "a", "r"]
    assert {"g h", "g o", "g c", "g m"} <= set(listed)
    assert "g s" not in listed, "operators are not this one's to see"
    await page.keyboard.press("j")
    assert await keys.is_visible(), "the page below rests"
    await page.keyboard.press("?")
    await keys.wait_for(state="hidden")

    await page.locator("#f-reason").focus()
    for key in ("j", "?", "/"):
        await page.keyboard.press(key)
        assert await page.evaluate("document.activeElement.id") == "f-reason", key
    await page.locator("main").focus()
    for key in ("Control+j", "Alt+j", "Meta+j"):
        await page.keyboard.press(key)
        assert await page.evaluate("document.activeElement.id") == "main", key
    seen = set()
    for _ in range(80):  # Tab leaves every place of the page: there is no trap
        await page.keyboard.press("Tab")
        seen.add(await page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
        if await page.evaluate("document.activeElement === document.body"):
            break
    else:
        pytest.fail("Tab never leaves the page")
    assert len(seen) > 10


async def test_keys_go_to_every_page_and_back(console: Console) -> None:
    first, *_ = await opened(console)
    await placed(console.resources.db, "B-1")
    page = await console(Role.ADMIN)
    await page.goto("/ops/me")
    for name, key in KEYS.items():
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        [place] = [row.route.pattern for row in ROWS if row.nav == name]
        await page.wait_for_url(f"**{place}")
        if name == "orders":  # there, the field to search in has the focus
            await page.locator("main").focus()
    await page.keyboard.press("g")
    await page.keyboard.press("m")
    await page.wait_for_url("**/ops/me")

    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.id") == "find"
    await page.keyboard.type("B-1")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/ops/orders/B-1")
    await page.keyboard.press("j")
    assert "Placed: 88.88 CNY" in await focused(page), "the story is a list too"
    await page.keyboard.press("Enter")
    assert await page.locator(".story details[open]").count() == 1
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/ops/orders")

    await page.goto("/ops/cases?whose=nobody")
    await page.keyboard.press("j")
    await page.keyboard.press("r")
    await page.wait_for_url(f"**/ops/cases/{first}/resolve")
    await page.goto(f"/ops/cases/{first}/resolve?choice=note")
    await page.locator("#reason").fill("half a sentence")
    await page.locator("main").focus()
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    assert page.url.endswith("/resolve?choice=note"), "what was begun is not lost by a key"


async def test_the_way_up_keeps_the_filters_of_the_list(console: Console) -> None:
    first, *_ = await opened(console)
    page = await console(Role.OPERATOR)
    await page.goto("/ops/cases?whose=nobody")
    await page.get_by_role("link", name=str(first), exact=True).click()
    await page.get_by_role("heading", name=f"Case {first}").wait_for()
    above = page.get_by_role("navigation", name="Above this page")
    await above.get_by_role("link", name="Cases").click()
    await page.wait_for_url("**/ops/cases?whose=nobody")
    assert await page.title() == "(3) Cases – nodrop"


async def with_a_day(console: Console) -> int:
    """A day with a failed upload and a run with differences whose texts are long; return the run's number."""
    resources = console.resources
    driver = SandboxDriver()
    account = replace(driver.account("http://127.0.0.1:9"), name="an-account-with-the-longest-name-of-all")
    await put_account(resources.db, resources.sealer, account)
    claimed = await claim_day(resources.db, account.name, YESTERDAY, dry_run=False, lease_s=60.0)
    assert claimed is not None
    run = await begin(resources.db, claimed, b"s" * 32, 7)
    found = [
        Difference(
            kind=Finding.AMOUNT,
            row_no=number,
            detail="1 there, 2 here",
            order_no="A" * 64,
            out_trade_no="n" * 64,
            channel_transaction_id="t" * 64,
            case=CaseReason.STATEMENT_AMOUNT,
        )
        for number in (1, 2)
    ]
    await add_differences(resources.db, run.id, found)
    await open_cases(resources.db, account.name, found)
    await save(resources.db, run, 8, {"rows": 7, "amount": 2}, {"CNY": Sums(payments=7, paid=12_345_678_900, fees=1)})
    await finish(resources.db, run, {"rows": 7, "amount": 2})
    await upload(resources, account.name, YESTERDAY, b"<html></html>", by="alice")
    assert await read_requested(resources)
    return run.id
