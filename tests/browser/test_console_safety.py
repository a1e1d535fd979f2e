"""In Chromium: texts of strangers run nowhere, who was disabled or signed out is out, and of two one decides."""

import pytest

from core.act_names import ActName
from core.operators import Role
from storage.postgres.audit import Act, Via, write_act
from storage.postgres.operators import disable_operator
from storage.postgres.refund_approvals import find_approval
from tests.api.console.test_order import fill_with
from tests.browser.conftest import Console
from tests.browser.test_console_money import paid_order, waiting_refund
from tests.storage.postgres.tools import placed

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
PAGES = ("orders/A-9", "orders", "cases", "callbacks", "notifications", "notifications/msg_x", "disputes", "audit", "")


async def test_no_text_of_a_stranger_runs_on_any_page(console: Console) -> None:
    """An alert, like a broken policy, fails at the end of the fixture; the text itself is there to be read."""
    await placed(console.resources.db, "A-9")
    await fill_with(console.resources, "A-9", HOSTILE)
    act = Act(by="anna", via=Via.CONSOLE, action=ActName.ORDER_QUERY, subject="A-9", detail={"reason": HOSTILE})
    await write_act(console.resources.db, act)
    page = await console(Role.ADMIN)
    for path in PAGES:
        response = await page.goto(f"/ops/{path}".rstrip("/"))
        assert response is not None
        assert response.status == 200, path
        assert await page.locator("img[src=x]").count() == 0, path
    await page.goto("/ops/orders/A-9")
    assert HOSTILE in (await page.locator("main").text_content() or "")
    assert console.errors == []


async def test_an_open_page_of_who_was_disabled_or_signed_out_does_nothing_more(console: Console) -> None:
    refund = await paid_order(console, "A-1")
    anna, ben = await console(Role.OPERATOR, "anna"), await console(Role.OPERATOR, "ben")
    other_tab = await ben.context.new_page()
    for page in (anna, ben):
        await page.goto(f"{refund}?amount=1")
        await page.locator("#reason").fill("a test")
    await disable_operator(console.resources.db, "anna")
    await other_tab.goto("/ops/me")
    await other_tab.locator('form[action="/ops/signout"] button').first.click()
    await other_tab.wait_for_url("**/ops/signin?out=1")
    for page in (anna, ben):
        async with page.expect_response(lambda response: response.request.method == "POST") as sent:
            await page.locator("#reason").press("Enter")
        assert (await sent.value).status == 401
        await page.goto("/ops/orders")
        assert "/ops/signin" in page.url
    assert await console.resources.db.fetchval("SELECT count(*) FROM refunds") == 0


async def test_of_two_operators_with_one_approval_open_the_second_is_told_who_was_first(console: Console) -> None:
    db = console.resources.db
    approval = await waiting_refund(console, "A-1", "one cup was broken")
    ben, cleo = await console(Role.OPERATOR, "ben"), await console(Role.OPERATOR, "cleo")
    for page in (ben, cleo):
        await page.goto(f"/ops/approvals/{approval.id}")
    await ben.locator("#reason-decline").fill("the cup was fine")
    await ben.locator("#reason-decline").press("Enter")
    await ben.wait_for_url("**/ops/approvals")
    await cleo.locator("#reason-approve").fill("it was broken")
    await cleo.locator("#reason-approve").press("Enter")
    await cleo.get_by_text("ben has decided already").wait_for()
    decided = await find_approval(db, approval.id)
    assert decided is not None
    assert (decided.decision, decided.decided_by, decided.refund_no) == ("declined", "ben", None)
