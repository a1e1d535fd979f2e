"""Notifications and endpoints over HTTP: lists, attempts, sending again, and pauses."""

from typing import Any

import pytest

from runtime.resources import Resources
from storage.postgres.api_keys import Scope, create_api_key
from tests.api.conftest import terms
from tests.api.driver import Client

HOOK = "https://shop.test/hook"
DOWN = '{"no":1,"at":"2026-11-27T12:00:00.021Z","latency_ms":21,"status":"503","answer":"closed for today"}'
OK = '{"no":1,"at":"2026-11-27T12:00:00Z","latency_ms":3,"status":"200"}'

_MADE = """
INSERT INTO notifications (id, order_no, version, type, url, body, attempt, due_at, attempts, dead_at, delivered_at)
VALUES ('msg_open', $1, 101, 'order.paid', $2, '{"id":"msg_open"}', 2, now() + interval '4 min',
        jsonb_build_array($3::jsonb), NULL, NULL),
       ('msg_dead', $1, 102, 'order.refunded', $2 || '?a=b', '{}', 16, now(),
        jsonb_build_array($3::jsonb), now(), NULL),
       ('msg_done', $1, 103, 'order.paid', $2, '{}', 1, now(), jsonb_build_array($4::jsonb), NULL, now())"""


@pytest.fixture
async def order_no(client: Client, resources: Resources) -> str:
    """An order with a notification of each kind."""
    number: str = (await client.post("/v1/orders", terms())).json["order_no"]
    await resources.db.execute(_MADE, number, HOOK, DOWN, OK)
    return number


async def acts(resources: Resources) -> list[tuple[str, str, str]]:
    rows = await resources.db.fetch("SELECT action, subject, detail->>'reason' AS reason FROM audit ORDER BY id")
    return [(row["action"], row["subject"], row["reason"]) for row in rows]


async def test_each_list_is_paged(client: Client, order_no: str) -> None:
    for status, ids in (("undelivered", ["msg_open"]), ("dead", ["msg_dead"]), ("delivered", ["msg_done"])):
        page = (await client.get(f"/v1/notifications?status={status}&limit=1")).json
        assert ([row["id"] for row in page["notifications"]], page["next_cursor"]) == (ids, None)
    page = (await client.get(f"/v1/notifications?order_no={order_no}")).json
    assert [row["id"] for row in page["notifications"]] == ["msg_open", "msg_dead", "msg_done"]
    page = (await client.get("/v1/notifications?status=dead&endpoint=https://other.test/")).json
    assert page["notifications"] == []


async def test_paging_goes_on_where_a_page_ended(client: Client, resources: Resources, order_no: str) -> None:
    await resources.db.execute("UPDATE notifications SET delivered_at = now(), dead_at = NULL")
    found, cursor = list[str](), ""
    while True:
        page = (await client.get(f"/v1/notifications?status=delivered&limit=2{cursor}")).json
        found += [row["id"] for row in page["notifications"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(found) == ["msg_dead", "msg_done", "msg_open"]
    assert len(found) == 3


@pytest.mark.usefixtures("order_no")
async def test_one_has_its_attempts_the_next_one_and_its_text(client: Client) -> None:
    shown = (await client.get("/v1/notifications/msg_open")).json
    assert (shown["state"], shown["next_attempt"], shown["last_error"]) == ("undelivered", 2, "503")
    assert (shown["text"], shown["endpoint"]) == ('{"id":"msg_open"}', HOOK)
    assert shown["attempts"] == [
        {
            "no": 1,
            "at": "2026-11-27T12:00:00.021000Z",
            "latency_ms": 21,
            "status": "503",
            "acknowledged": False,
            "answer": "closed for today",
            "manual": False,
        }
    ]
    assert (await client.get("/v1/notifications/msg_none")).problem == "not_found"


@pytest.mark.usefixtures("order_no")
async def test_one_is_sent_again_after_a_dry_run(client: Client, resources: Resources) -> None:
    target = "/v1/notifications/msg_done/resend"
    preview = (await client.post(target, {"reason": "they lost it", "dry_run": True})).json["preview"]
    assert (preview["possible"], [line["key"] for line in preview["warnings"]]) == (True, ["resend.delivered"])
    assert await acts(resources) == []
    body = {"reason": "they lost it", "expected_version": preview["version"]}
    after = (await client.post(target, body)).json["notification"]
    assert (after["state"], after["next_at"] is not None) == ("delivered", True)
    assert (await client.post(target, body)).problem == "preview_outdated"
    assert await acts(resources) == [("notification.resend", "msg_done", "they lost it")] * 2


@pytest.mark.usefixtures("order_no")
async def test_many_are_sent_again(client: Client, resources: Resources) -> None:
    dead: dict[str, Any] = {"reason": "they are back", "dead_only": True}
    preview = (await client.post("/v1/notifications/resend", dead | {"dry_run": True})).json["preview"]
    assert preview["lines"][0]["figures"]["count"] == 1
    assert (await client.post("/v1/notifications/resend", dead)).json == {"preview": None, "resent": 1}
    assert (await client.post("/v1/notifications/resend", dead | {"dry_run": True})).json["preview"]["refusal"]
    all_since = {"reason": "a backup", "endpoint": HOOK, "since": "2026-01-01T00:00:00Z"}
    assert (await client.post("/v1/notifications/resend", all_since)).json["resent"] == 3
    refused = await client.post("/v1/notifications/resend", {"reason": "all", "endpoint": HOOK})
    assert (refused.status, refused.problem) == (400, "invalid_request")
    assert [act[1] for act in await acts(resources)] == ["all", HOOK]


@pytest.mark.usefixtures("order_no")
async def test_an_endpoint_is_paused_and_resumed(client: Client, resources: Resources) -> None:
    body = {"endpoint": f"{HOOK}?a=b", "reason": "they move house"}
    dry = (await client.post("/v1/endpoints/pause", body | {"dry_run": True})).json
    assert (dry["preview"]["possible"], dry["paused"]) == (True, False)
    assert (await client.post("/v1/endpoints/pause", body)).json["paused"] is True
    assert (await client.post("/v1/endpoints/pause", body)).problem == "not_possible"
    [endpoint] = (await client.get("/v1/endpoints")).json["endpoints"]
    assert (endpoint["endpoint"], endpoint["pause_reason"], endpoint["dead_letters"]) == (HOOK, "they move house", 1)
    assert (endpoint["undelivered"], endpoint["last_failure"]["status"]) == (1, "503")
    [row] = (await client.get("/v1/notifications?status=paused")).json["notifications"]
    assert (row["id"], row["state"], row["next_at"]) == ("msg_open", "paused", None)
    dry = (await client.post("/v1/endpoints/resume", body | {"dry_run": True})).json
    assert (dry["preview"]["possible"], dry["paused"]) == (True, True)
    assert (await client.post("/v1/endpoints/resume", body)).json["paused"] is False
    assert (await client.post("/v1/endpoints/resume", body)).problem == "not_possible"
    assert {act[0] for act in await acts(resources)} == {"endpoint.pause", "endpoint.resume"}
    assert (await client.post("/v1/endpoints/pause", body | {"endpoint": "shop"})).problem == "invalid_request"


async def test_a_key_needs_the_scope(client: Client, resources: Resources) -> None:
    _, text = await create_api_key(resources.db, "shop", scopes=frozenset({Scope.READ, Scope.ORDERS}))
    shop = Client(client.app, api_key=text)
    for target in ("/v1/notifications", "/v1/notifications/msg_1", "/v1/endpoints"):
        assert (await shop.get(target)).status == 403
