"""The raw body of a callback, with bytes of a stranger in it, is opened by keyboard alone."""

from hashlib import sha256

import pytest

from core.evidence import Paid
from core.operators import Role
from core.refusals import RefusedCallback, Verdict
from storage.postgres.audit import list_acts
from storage.postgres.callback_history import CallbackState, list_callbacks
from storage.postgres.callbacks import count_callback
from storage.postgres.inbox import insert_callback
from storage.postgres.refused_callbacks import count_refused, insert_refused
from tests.browser.conftest import Console
from tests.browser.looks import LEAST, axe_findings, looks, overflow

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = f"<script>alert(1)</script><img src=x onerror=alert(2)>{'x' * 400}"
HEADERS = {"sandbox-signature": HOSTILE}


async def came(console: Console) -> tuple[str, str]:
    """The ids of a genuine and of a refused callback of the account `main`, which has many digits and much text."""
    resources, body = console.resources, HOSTILE.encode()
    refused = RefusedCallback(
        account="main",
        verdict=Verdict.FORGED,
        detail=HOSTILE,
        body_hash=sha256(body).digest(),
        body_bytes=len(body),
        body_start=body,
        headers=HEADERS,
        network="2001:db8:1::/48",
        ids=(),
    )
    await insert_refused(resources.db, resources.sealer, [refused])
    await count_refused(resources.db, {("main", Verdict.FORGED): 1_234_567})
    await count_callback(resources.db, "main", "no_money")
    evidence = Paid(
        channel_account="main",
        out_trade_no="0199aaf3c1a2b0199aaf3c1a2b0199aa",
        amount=8888,
        currency="CNY",
        channel_transaction_id="4" * 64,
    )
    stored = await insert_callback(
        resources.db,
        resources.sealer,
        account="main",
        notification_id=f"cb_{'9' * 60}",
        headers=HEADERS,
        body=body,
        evidence=evidence,
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
    )
    [row], _ = await list_callbacks(resources.db, state=CallbackState.REFUSED)
    return stored.id, row.id


async def test_a_raw_body_is_opened_by_keyboard_alone_and_is_text(console: Console, account: str) -> None:
    _, refused = await came(console)
    page = await console(Role.OPERATOR)
    await page.goto("/ops/callbacks?state=refused")
    await page.locator("tbody a").first.press("Enter")
    await page.get_by_role("button", name="Show the raw body").press("Enter")
    await page.locator("pre.raw").wait_for()
    assert await page.locator("pre.raw").inner_text() == HOSTILE
    assert await page.locator("main script, main img").count() == 0
    async for look in looks(page, LEAST):
        assert await axe_findings(page) == [], look
        assert await overflow(page) == [], look
    [act] = await list_acts(console.resources.db, limit=10)
    assert (act.by, act.action, act.subject) == ("operator", "callback.raw", refused)
