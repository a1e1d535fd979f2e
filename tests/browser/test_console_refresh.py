"""A page that is kept current changes under nobody's hand: the focus, what was scrolled, selected and opened stay."""

import pytest

from core.operators import Role
from tests.api.console.test_overview import roll
from tests.browser.conftest import Console
from tests.browser.test_console_overview import fill, keep_current
from tests.storage.postgres.tools import commit_evidence, paid, placed, unpaid

pytestmark = [pytest.mark.browser, pytest.mark.slow]

COUNT_SHIFTS = """
window.shifted = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted.push(entry.value);
}).observe({type: "layout-shift", buffered: true})"""


async def test_a_refresh_keeps_focus_and_scroll_and_shifts_nothing(console: Console) -> None:
    await fill(console)
    page = await console(Role.VIEWER, viewport={"width": 1000, "height": 700})
    await page.clock.install()
    await page.add_init_script(COUNT_SHIFTS)
    await page.goto("/ops")
    link = page.locator("[data-part=accounts]").get_by_role("link", name="main")
    await link.focus()
    table = page.locator("[data-part=accounts] .wide")
    await page.set_viewport_size({"width": 700, "height": 500})
    await table.evaluate("(box) => { box.scrollLeft = 40; }")
    before = await page.evaluate("scrollY")
    assert before > 0
    await page.evaluate("window.kept = document.activeElement; window.shifted.length = 0")

    await console.resources.db.execute("UPDATE rollups SET figures = figures || '{\"callbacks_paid\": 62}'")
    await keep_current(page)
    await page.locator("[data-part=accounts] td", has_text="62").wait_for()
    assert await page.evaluate("document.activeElement === window.kept && window.kept.isConnected")
    assert await table.evaluate("(box) => box.scrollLeft") == 40
    assert await page.evaluate("scrollY") == before
    assert await page.evaluate("window.shifted") == []


async def test_what_waits_is_counted_while_a_page_is_open(console: Console) -> None:
    page = await console(Role.OPERATOR)
    await page.clock.install()
    await page.goto("/ops/cases")
    link = page.locator(".places a[data-go=c]")
    await link.focus()
    assert (await page.title(), await link.inner_text()) == ("Cases – nodrop", "Cases")
    await console.resources.db.execute("INSERT INTO cases (reason) VALUES ('statement_total'), ('wrong_world')")
    await page.clock.fast_forward(31_000)
    await link.locator(".count", has_text="2").wait_for()
    assert await page.title() == "(2) Cases – nodrop"
    assert await link.evaluate("(each) => each === document.activeElement")
    await console.resources.db.execute("UPDATE cases SET resolved_at = now() WHERE reason = 'wrong_world'")
    await page.clock.fast_forward(31_000)
    await link.locator(".count", has_text="1").wait_for()
    await console.resources.db.execute("UPDATE cases SET resolved_at = now()")
    await page.clock.fast_forward(31_000)
    await link.locator(".count").wait_for(state="detached")
    assert await page.title() == "Cases – nodrop"


async def test_a_page_that_a_form_has_led_to_is_counted_too(console: Console) -> None:
    await console.resources.db.execute("INSERT INTO cases (reason) VALUES ('statement_total')")
    page = await console(Role.OPERATOR)
    await page.goto("/ops/lookup")
    await page.locator("main [name=number]").fill("n-1")
    await page.locator("main form button").click()
    await page.locator(".places a[data-go=c] .count", has_text="1").wait_for()


async def test_nothing_moves_while_a_page_is_loaded(console: Console) -> None:
    """Times in the reader's zone and buttons that only a script has take the room that they had."""
    await roll(console.resources, "all", "", '{"placed": 7}')
    await placed(console.resources.db, "A-1")
    page = await console(Role.OPERATOR)
    await page.add_init_script(COUNT_SHIFTS)
    for path in ("/ops", "/ops/orders/A-1", "/ops/orders"):
        await page.goto(path, wait_until="networkidle")
        assert await page.evaluate("window.shifted") == [], path


async def test_an_order_that_goes_on_keeps_its_elements(console: Console) -> None:
    db = console.resources.db
    await db.execute("INSERT INTO accounts (name, channel, sealed) VALUES ('alipay', 'alipay', '')")
    await placed(db, "A-1")
    await commit_evidence(db, "A-1", unpaid("A-1"), arm_no=1)
    page = await console(Role.VIEWER)
    await page.clock.install()
    await page.goto("/ops/orders/A-1")
    await page.evaluate("window.kept = [...document.querySelectorAll('.story > li')]")
    entries = await page.evaluate("window.kept.length")
    await commit_evidence(db, "A-1", paid("A-1"), arm_no=2)
    await page.clock.fast_forward(5000)
    await page.get_by_text("The order is paid").wait_for()
    assert await page.evaluate("window.kept.every((one) => one.isConnected)")
    assert await page.locator(".story > li").count() > entries
