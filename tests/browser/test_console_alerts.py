"""Alerts in the console: every look of the page, and a test by keyboard alone."""

import pytest
from msgspec.structs import replace

from core.alerts import Rule
from core.operators import Role
from core.settings import Settings
from tests.browser.conftest import Console
from tests.browser.looks import LEAST, axe_findings, draw, looks, overflow

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = f"<script>alert(1)</script>{'x' * 300}"

_RAISE = """
INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at, cleared_at)
SELECT 'alr_' || to_hex(n), 'k' || n, ($1::text[])[1 + n % cardinality($1)], 'https://shop.test/' || $2, $2, 0,
       now() - make_interval(mins => 7 * n), CASE WHEN n > 12 THEN now() - make_interval(mins => n) END
  FROM generate_series(1, 20) n"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, alert_url="https://alerts.example/x", alert_secret=settings.notify_secrets)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
async def test_the_page_of_alerts_is_read_by_everybody(console: Console, locale: str) -> None:
    rules = [rule.value for rule in Rule if rule is not Rule.TEST]
    await console.resources.db.execute(_RAISE, rules, HOSTILE)
    await console.resources.db.execute("INSERT INTO alert_messages (id, body, last_status) VALUES ('m', '{}', '503')")
    page = await console(Role.ADMIN, locale=locale)
    response = await page.goto("/ops/alerts")
    assert response is not None
    assert response.status == 200
    async for look in looks(page, LEAST):
        assert await axe_findings(page) == [], look
        assert await overflow(page) == [], look
        await draw(page, f"console-alerts-{locale[:2]}.{look}")


async def test_a_test_is_sent_by_keyboard_alone(console: Console) -> None:
    page = await console(Role.ADMIN)
    await page.goto("/ops/alerts")
    await page.get_by_role("button", name="Send a test").press("Enter")
    await page.get_by_text("A worker sends the test within seconds.").wait_for()
    assert await console.resources.db.fetchval("SELECT count(*) FROM alert_messages") == 1
