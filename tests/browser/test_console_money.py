"""A refund by keyboard alone."""

import pytest
from msgspec.structs import replace

from core.operators import Role
from storage.postgres.accounts import put_account
from storage.postgres.orders import find_state
from storage.postgres.refund_approvals import Approval, insert_approval
from tests.browser.conftest import Console
from tests.channels.sandbox.driver import SandboxDriver
from tests.storage.postgres.tools import commit_evidence, number, paid, placed

pytestmark = [pytest.mark.browser, pytest.mark.slow]


async def paid_order(console: Console, order_no: str) -> str:
    """A paid order at an account that is there; the page of its refund."""
    db = console.resources.db
    account = replace(SandboxDriver().account("http://127.0.0.1:9"), name=number(order_no).channel_account)
    await put_account(db, console.resources.sealer, account)
    await placed(db, order_no)
    await commit_evidence(db, order_no, paid(order_no))
    return f"/ops/orders/{order_no}/refund/{number(order_no).out_trade_no}"


async def waiting_refund(console: Console, order_no: str, reason: str) -> Approval:
    """All of a paid order's money, which anna wants to give back, waiting for a second operator."""
    await paid_order(console, order_no)
    key = number(order_no)
    return await insert_approval(
        console.resources.db,
        order_no=order_no,
        account=key.channel_account,
        out_trade_no=key.out_trade_no,
        amount=8888,
        currency="CNY",
        request_key="k",
        reason=reason,
        requested_by="anna",
        lives_s=3600.0,
    )


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
