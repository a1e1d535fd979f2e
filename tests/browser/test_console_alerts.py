"""A test of alerts is sent by keyboard alone."""

import pytest
from msgspec.structs import replace

from core.operators import Role
from core.settings import Settings
from tests.browser.conftest import Console

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


async def raise_alerts(console: Console, rules: list[str]) -> None:
    """Alerts of these rules, some of which are over, with texts as long as they may be; one message was not taken."""
    await console.resources.db.execute(_RAISE, rules, HOSTILE)
    await console.resources.db.execute("INSERT INTO alert_messages (id, body, last_status) VALUES ('m', '{}', '503')")


async def test_a_test_is_sent_by_keyboard_alone(console: Console) -> None:
    page = await console(Role.ADMIN)
    await page.goto("/ops/alerts")
    await page.get_by_role("button", name="Send a test").press("Enter")
    await page.get_by_text("A worker sends the test within seconds.").wait_for()
    assert await console.resources.db.fetchval("SELECT count(*) FROM alert_messages") == 1
