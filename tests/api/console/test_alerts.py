"""The page of alerts: open ones, past ones, and a test by an admin."""

import pytest
from msgspec.structs import replace

from api.console import texts
from api.console.alerts import address_of
from core.alerts import Rule
from core.operators import Role
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.alerts import AlertRow, list_alerts
from tests.api.console.conftest import SignedIn

_RAISE = """
INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at, cleared_at)
SELECT 'alr_' || to_hex(n), 'k' || n, $1, $2, 'the <b>text</b> of ' || n, 0, now() - make_interval(mins => n),
       CASE WHEN n > $3 THEN now() END
  FROM generate_series(1, $4::int) n"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, alert_url="https://alerts.example/x", alert_secret=settings.notify_secrets)


async def put(resources: Resources, rule: str, subject: str, *, still_open: int, count: int) -> None:
    await resources.db.execute(_RAISE, rule, subject, still_open, count)


async def test_nothing_is_said_so(signed_in: SignedIn) -> None:
    page = await (await signed_in(Role.VIEWER)).get("/ops/alerts")
    assert page.status == 200
    assert "Nothing that a person must hear of." in page.body.decode()
    assert "/ops/alerts/test" not in page.body.decode(), "a test is an admin's"


async def test_open_ones_are_shown_with_what_to_do_and_past_ones_page_by_page(
    signed_in: SignedIn, resources: Resources
) -> None:
    await put(resources, "invariant", "history_with_gap/A/1", still_open=2, count=60)
    viewer = await signed_in(Role.VIEWER)
    page = await viewer.get("/ops/alerts")
    assert page.body.decode().count("Rows contradict each other") == 2 + 50
    assert "A bug of nodrop, or somebody has written" in page.body.decode()
    assert 'href="/ops/orders/A%2F1"' in page.body.decode()
    assert "the &lt;b&gt;text&lt;/b&gt; of 1" in page.body.decode()
    _, cursor = await list_alerts(resources.db, is_open=False, limit=50)
    assert f"cursor={cursor}" in page.body.decode()
    second = await viewer.get(f"/ops/alerts?cursor={cursor}")
    assert second.body.decode().count("Rows contradict each other") == 2 + 8
    assert (await viewer.get("/ops/alerts?cursor=x")).status == 400


async def test_an_admin_sends_a_test_which_is_audited(signed_in: SignedIn, resources: Resources) -> None:
    admin = await signed_in(Role.ADMIN)
    page = await admin.act("/ops/alerts/test")
    assert "A worker sends the test within seconds." in page.body.decode()
    assert "Messages that wait for ALERT_URL: 1" in page.body.decode()
    row = await resources.db.fetchrow("SELECT by, action FROM audit WHERE action = 'alert.test'")
    assert row is not None
    assert row["by"] == "admin"


async def test_every_rule_has_its_texts_in_every_language() -> None:
    for language in texts.LANGUAGES.values():
        assert {f"alerts.rule_{rule}" for rule in Rule} <= language.texts.keys()
        assert {f"alerts.do_{rule}" for rule in Rule} <= language.texts.keys()


@pytest.mark.parametrize(
    ("rule", "subject", "address"),
    [
        (Rule.CASE, "7", "/ops/cases/7"),
        (Rule.CASE, "disputed/others", "/ops/cases"),
        (Rule.INVARIANT, "history_with_gap/A-1", "/ops/orders/A-1"),
        (Rule.BREAKER_OPEN, "main/query", "/ops/accounts/main"),
        (Rule.CALLBACKS_SILENT, "main", "/ops/accounts/main"),
        (Rule.ENDPOINT_FAILING, "https://a.b/c", "/ops/endpoints/show?endpoint=https%3A%2F%2Fa.b%2Fc"),
        (Rule.DEAD_LETTERS, "https://a.b/c", "/ops/notifications?status=dead&endpoint=https%3A%2F%2Fa.b%2Fc"),
        (Rule.OVERDUE, "pending", ""),
    ],
)
def test_an_alert_leads_to_the_page_about_its_subject(rule: Rule, subject: str, address: str) -> None:
    row = AlertRow(
        id="alr_1", rule=rule, subject=subject, text="", raised_at=None, cleared_at=None,  # type: ignore[arg-type]
        raised_sent_at=None, cleared_sent_at=None,
    )  # fmt: skip
    assert address_of(row) == address
