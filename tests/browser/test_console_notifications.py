"""A notification is sent again by keyboard alone."""

import pytest

from core.operators import Role
from tests.browser.conftest import Console

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOOK = f"https://shop.test/{'a-long-path-' * 8}hook"
ORDER_NO = "2026-1123-0001"
HOSTILE = f"<script>alert(1)</script><img src=x onerror=alert(2)>{'x' * 400}"

_ORDER = """
INSERT INTO orders (order_no, amount, currency, subject, status, version, page_token, created_at, expires_at)
VALUES ($1, 8888, 'CNY', 'Tea', 'created', 1, 'token', now(), now() + interval '1 hour')"""
_MADE = """
INSERT INTO notifications (id, order_no, version, type, url, body, attempt, due_at, attempts, dead_at, delivered_at)
SELECT 'msg_' || md5(n::text), $1, 100 + n, 'order.paid', $2 || '?order=' || n, '{"subject": "<b>Tea</b>"}', 3,
       now() + interval '4 min',
       (SELECT jsonb_agg(jsonb_build_object('no', no, 'at', now() - interval '1 hour', 'latency_ms', 21,
                                            'status', '503', 'answer', $3::text)) FROM generate_series(1, 2) AS no),
       CASE WHEN n = 2 THEN now() END, CASE WHEN n = 3 THEN now() END
  FROM generate_series(1, 3) AS n"""


async def made(console: Console) -> list[str]:
    """The ids of an open, a dead and a delivered notification."""
    db = console.resources.db
    await db.execute(_ORDER, ORDER_NO)
    await db.execute(_MADE, ORDER_NO, HOOK, HOSTILE)
    rows = await db.fetch("SELECT id FROM notifications WHERE order_no = $1 ORDER BY version", ORDER_NO)
    return [row["id"] for row in rows]


async def test_a_delivered_one_is_sent_again_by_keyboard_alone(console: Console) -> None:
    _, _, delivered = await made(console)
    page = await console(Role.OPERATOR)
    await page.goto("/ops/notifications?status=delivered")
    await page.get_by_role("link", name=delivered).press("Enter")
    await page.get_by_text("It was acknowledged before").wait_for()
    await page.get_by_label("Reason").focus()
    await page.keyboard.type("they lost it")
    await page.keyboard.press("Enter")
    await page.get_by_role("status").get_by_text("It is sent at once.").wait_for()
    found = await console.resources.db.fetchval("SELECT id FROM notifications WHERE resending_since IS NOT NULL")
    assert found == delivered
