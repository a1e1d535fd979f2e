"""The inbox by keyboard alone, in Chromium, where nothing of the browser's own is caught; and pages in every look."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from playwright.async_api import Page

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
from tests.browser.looks import LEAST, axe_findings, draw, looks, overflow
from tests.channels.sandbox.driver import SandboxDriver

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
    keys = page.locator("#keys")
    assert await keys.get_attribute("open") is None
    await page.keyboard.press("?")
    assert await keys.get_attribute("open") is not None
    assert await focused(page) == "Keys"
    assert await keys.locator("kbd").all_text_contents() == ["j", "k", "Enter", "a", "r", "?"]
    await page.keyboard.press("?")
    assert await keys.get_attribute("open") is None

    await page.locator("#f-reason").focus()
    await page.keyboard.press("j")
    assert await page.evaluate("document.activeElement.id") == "f-reason"
    await page.keyboard.press("Escape")
    await page.locator("main").focus()
    await page.keyboard.press("Control+j")
    assert await page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(60):  # Tab leaves every place of the page: there is no trap
        await page.keyboard.press("Tab")
        seen.add(await page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
        if await page.evaluate("document.activeElement === document.body"):
            break
    assert len(seen) > 10


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


async def test_a_case_a_day_and_a_run_are_read_by_everybody_in_every_look(console: Console) -> None:
    case_id, *_ = await opened(console)
    run_id = await with_a_day(console)
    for locale in ("en-GB", "zh-CN"):
        page = await console(Role.OPERATOR, f"operator-{locale.lower()}", locale=locale)
        for name, path in {
            "case": f"/ops/cases/{case_id}",
            "resolve": f"/ops/cases/{case_id}/resolve",
            "inbox": "/ops/cases",
            "day": f"/ops/days/an-account-with-the-longest-name-of-all/{YESTERDAY}",
            "days": "/ops/days",
            "run": f"/ops/reconciliation/{run_id}",
        }.items():
            await page.goto(path)
            async for look in looks(page, LEAST if locale == "en-GB" else LEAST[:1]):
                assert await axe_findings(page) == [], (path, look)
                assert await overflow(page) == [], (path, look)
                await draw(page, f"console-{name}-{locale}.{look}")
