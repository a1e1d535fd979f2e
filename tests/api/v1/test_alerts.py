"""Alerts over HTTP."""

import pytest
from msgspec.structs import replace

from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.alerts import find_message
from storage.postgres.api_keys import Scope, create_api_key
from storage.postgres.audit import list_acts
from tests.api.driver import Client

_RAISE = """
INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at, cleared_at)
SELECT 'alr_0' || n, 'case:' || n, 'case', n::text, 'case ' || n || ' is open', 0, now() - make_interval(mins => n),
       CASE WHEN n > 2 THEN now() END
  FROM generate_series(1, 3) n"""


async def test_alerts_are_listed_page_by_page_open_ones_or_past_ones(client: Client, resources: Resources) -> None:
    await resources.db.execute(_RAISE)
    await resources.db.execute("INSERT INTO alert_messages (id, alert_id, body) VALUES ('m', 'alr_01', '{}')")
    first = (await client.get("/v1/alerts?limit=1")).json
    assert [row["subject"] for row in first["alerts"]] == ["1"]
    assert first["unsent"] == 1
    second = (await client.get(f"/v1/alerts?limit=1&cursor={first['next_cursor']}")).json
    assert ([row["subject"] for row in second["alerts"]], second["next_cursor"]) == (["2"], None)
    (past,) = (await client.get("/v1/alerts?open=false")).json["alerts"]
    assert past["cleared_at"] is not None
    assert past.keys() >= {"id", "rule", "subject", "text", "raised_at", "raised_sent_at", "cleared_sent_at"}


async def test_a_wrong_query_is_refused_and_a_key_needs_its_scope(client: Client, resources: Resources) -> None:
    assert (await client.get("/v1/alerts?cursor=x")).status == 400
    assert (await client.get("/v1/alerts?closed=true")).status == 400
    _, text = await create_api_key(resources.db, "shop", scopes=[Scope.ORDERS])
    assert (await Client(client.app, api_key=text).get("/v1/alerts")).status == 403


async def test_without_an_address_there_is_nothing_to_test(client: Client) -> None:
    refused = await client.post("/v1/alerts/test")
    assert (refused.status, "ALERT_URL is not set" in refused.json["detail"]) == (400, True)


class TestWithAnAddress:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, alert_url="https://alerts.example/x", alert_secret=settings.notify_secrets)

    async def test_a_test_waits_for_a_worker_and_is_in_the_audit(self, client: Client, resources: Resources) -> None:
        sent = await client.post("/v1/alerts/test")
        assert sent.status == 202
        assert await find_message(resources.db, sent.json["id"]) is not None
        [act] = await list_acts(resources.db, limit=2)
        assert (act.action, act.subject, act.by.startswith("key_")) == ("alert.test", "ALERT_URL", True)
