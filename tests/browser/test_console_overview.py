"""The overview in a browser: it is kept current, waits for who reads it, and can be paused."""

import pytest
from playwright.async_api import Page

from core.operators import Role
from tests.api.console.test_overview import make_silent, roll
from tests.browser.conftest import Console

pytestmark = [pytest.mark.browser, pytest.mark.slow]


async def fill(console: Console) -> None:
    """Figures in every part of the page, and their account."""
    await console.resources.db.execute("INSERT INTO accounts (name, channel, sealed) VALUES ('main', 'sandbox', '')")
    await fill_figures(console)


async def fill_figures(console: Console) -> None:
    """Figures of the account `main` in every part of the overview."""
    resources = console.resources
    await roll(resources, "all", "", '{"placed": 120, "closed": 9}')
    await roll(
        resources,
        "account",
        "main",
        '{"paid": 100, "by:callback": 61, "by:query": 30, "by:refresh": 9, "paid_amount:CNY": 8888800, "expected": 100,'
        ' "unheard": 39, "unheard_amount:CNY": 3466632, "repaired_s:6": 20, "repaired_s:8": 19, "paid_s:1": 61,'
        ' "paid_s:6": 39, "callbacks": 65, "callbacks_paid": 61, "calls": 240,'
        ' "calls_unanswered": 12, "call_s:1": 240}',
    )
    await roll(resources, "endpoint", "https://shop.test/hook", '{"delivered": 98, "first_try": 90, "tries": 104}')
    await make_silent(resources, "main")


async def keep_current(page: Page) -> None:
    """Let the module look at once, and not in five seconds."""
    await page.clock.fast_forward(6_000)


async def test_the_page_is_kept_current_until_it_is_paused(console: Console) -> None:
    page = await console(Role.VIEWER)
    await page.clock.install()
    await page.goto("/ops")
    placed = page.locator("dt", has_text="Placed").locator("+ dd")
    assert await placed.inner_text() == "0"
    await roll(console.resources, "all", "", '{"placed": 7}')
    await keep_current(page)
    await page.locator("dd", has_text="7").first.wait_for()

    await page.get_by_role("button", name="Live: pause").press("Enter")
    await console.resources.db.execute("UPDATE rollups SET figures = '{\"placed\": 8}'")
    await keep_current(page)
    assert await placed.inner_text() == "7"
    await page.get_by_role("button", name="Paused: go on").press("Enter")
    await keep_current(page)
    await page.locator("dd", has_text="8").first.wait_for()


async def test_what_is_read_does_not_change_under_the_eyes(console: Console) -> None:
    await fill(console)
    page = await console(Role.VIEWER)
    await page.clock.install()
    await page.goto("/ops")
    table = page.locator("#chart-paid details")
    await table.locator("summary").press("Enter")
    row = table.locator("tbody tr").last
    before = await row.inner_text()
    await console.resources.db.execute('UPDATE rollups SET figures = figures || \'{"by:query": 31, "paid": 101}\'')
    async with page.expect_response("**/ops/overview/live*"):
        await keep_current(page)
    await page.locator("[data-part=span] td", has_text="31").wait_for()
    assert await row.inner_text() == before, "the table is open"
    assert await table.get_attribute("open") is not None
