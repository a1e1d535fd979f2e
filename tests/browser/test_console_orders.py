"""An order is found, read and opened by keyboard, and goes on by itself."""

import pytest

from core.operators import Role
from tests.browser.conftest import Console
from tests.storage.postgres.tools import commit_evidence, paid, placed, unpaid

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ACCOUNT = "INSERT INTO accounts (name, channel, sealed) VALUES ('alipay', 'alipay', '')"
LOOKED_AGAIN_MS = 5000


async def test_an_order_is_found_by_its_payments_number_and_goes_on_by_itself(console: Console) -> None:
    db = console.resources.db
    await db.execute(ACCOUNT)
    await placed(db, "A-1")
    await commit_evidence(db, "A-1", unpaid("A-1"), arm_no=1)
    page = await console(Role.VIEWER)
    await page.clock.install()
    await page.goto("/ops/orders")
    await page.keyboard.type("alipay-A-1")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Order A-1").wait_for()
    assert page.url.endswith("/ops/orders/A-1")

    entry = page.locator("summary", has_text="Placed: 88.88 CNY")
    await entry.focus()
    await page.keyboard.press("Enter")
    await page.locator("details[open]").get_by_text("alipay-A-1").wait_for()
    await commit_evidence(db, "A-1", paid("A-1"), arm_no=2)
    await page.clock.fast_forward(LOOKED_AGAIN_MS)
    await page.get_by_text("query 2: paid at alipay. The order is paid").wait_for()
    opened = page.locator("details[open] > summary")
    assert await opened.all_inner_texts() == ["Placed: 88.88 CNY"], "what was opened stays open"
    assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"


async def test_filters_work_by_keyboard_and_are_in_the_address(console: Console) -> None:
    db = console.resources.db
    await db.execute(ACCOUNT)
    await placed(db, "A-1")
    await placed(db, "A-2", without_payment=True)
    page = await console(Role.OPERATOR)
    await page.goto("/ops/orders")
    await page.get_by_label("Status").select_option("created")
    await page.get_by_role("button", name="Filter").press("Enter")
    await page.get_by_role("link", name="A-2").wait_for()
    assert "status=created" in page.url
    assert await page.get_by_role("link", name="A-1").count() == 0
