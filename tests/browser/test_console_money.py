"""The pages of acts on money, in every look; and a refund by keyboard alone."""

import pytest
from msgspec.structs import replace

from core.operators import Role
from storage.postgres.accounts import put_account
from storage.postgres.orders import find_state
from storage.postgres.refund_approvals import insert_approval
from tests.browser.conftest import Console
from tests.browser.looks import LEAST, axe_findings, draw, looks, overflow
from tests.channels.sandbox.driver import SandboxDriver
from tests.storage.postgres.tools import commit_evidence, number, paid, placed

pytestmark = [pytest.mark.browser, pytest.mark.slow]

_CASE = "INSERT INTO cases (order_no, channel_account, out_trade_no, reason) VALUES ($1, $2, $3, $4) RETURNING id"


async def paid_order(console: Console, order_no: str) -> str:
    """A paid order at an account that is there; the page of its refund."""
    db = console.resources.db
    account = replace(SandboxDriver().account("http://127.0.0.1:9"), name=number(order_no).channel_account)
    await put_account(db, console.resources.sealer, account)
    await placed(db, order_no)
    await commit_evidence(db, order_no, paid(order_no))
    return f"/ops/orders/{order_no}/refund/{number(order_no).out_trade_no}"


async def test_a_refund_is_made_by_keyboard_alone(console: Console) -> None:
    refund = await paid_order(console, "A-1")
    page = await console(Role.OPERATOR)
    await page.goto(refund)
    await page.locator("#f-amount").focus()
    await page.keyboard.type("12.50")
    await page.keyboard.press("Enter")
    await page.get_by_text("76.38").wait_for()
    await page.locator("#reason").focus()
    await page.keyboard.type("one cup was broken")
    await page.keyboard.press("Enter")
    await page.get_by_role("status").get_by_text("is requested").wait_for()
    state = await find_state(console.resources.db, "A-1")
    assert state is not None
    assert [(refund.amount, refund.note) for refund in state.refunds] == [(1250, "one cup was broken")]


async def test_the_pages_of_acts_are_read_by_everybody_in_every_look(console: Console) -> None:
    refund, key = await paid_order(console, "A-2"), number("A-2")
    db = console.resources.db
    approval = await insert_approval(
        db,
        order_no="A-2",
        account=key.channel_account,
        out_trade_no=key.out_trade_no,
        amount=8888,
        currency="CNY",
        request_key="k",
        reason="w" * 500,
        requested_by="anna",
        lives_s=3600.0,
    )
    case_id = await db.fetchval(_CASE, "A-2", *key, "double_payment")
    for locale in ("en-GB", "zh-CN"):
        page = await console(Role.OPERATOR, f"money-{locale.lower()}", locale=locale)
        for name, path in {
            "refund": f"{refund}?amount=1.00",
            "approvals": "/ops/approvals",
            "approval": f"/ops/approvals/{approval.id}",
            "lookup": "/ops/lookup",
            "query": "/ops/orders/A-2/query",
            "answer": f"/ops/cases/{case_id}/resolve",
            "disable": f"/ops/accounts/{key.channel_account}/disable",
        }.items():
            await page.goto(path)
            async for look in looks(page, LEAST if locale == "en-GB" else LEAST[:1]):
                assert await axe_findings(page) == [], (path, look)
                assert await overflow(page) == [], (path, look)
                await draw(page, f"console-{name}-{locale}.{look}")
