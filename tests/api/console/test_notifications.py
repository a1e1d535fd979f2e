"""The pages of notifications and endpoints: what they show, to whom, and what their forms do."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from api.console.notifications import read_since
from core.errors import InvalidRequest
from core.operators import Role
from runtime.resources import Resources
from tests.api.conftest import terms
from tests.api.console.conftest import ConsoleClient, SignedIn
from tests.api.driver import Client

HOOK = "https://shop.test/hook"
HOSTILE = "<script>alert(1)</script>"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)

_MADE = """
INSERT INTO notifications (id, order_no, version, type, url, body, attempt, due_at, attempts, dead_at, delivered_at)
SELECT id, $1, version, 'order.paid', $2, '{"a":"<b>"}', 2, now() + interval '4 min',
       jsonb_build_array(
           jsonb_build_object('no', 1, 'at', now(), 'latency_ms', 21, 'status', '503', 'answer', $3::text)),
       CASE id WHEN 'msg_dead' THEN now() END, CASE id WHEN 'msg_done' THEN now() END
  FROM unnest(ARRAY['msg_open', 'msg_dead', 'msg_done'], ARRAY[101, 102, 103]) AS n(id, version)"""


@pytest.fixture
async def order_no(client: Client, resources: Resources) -> str:
    """An order with a notification of each kind, whose receiver answers with markup."""
    number: str = (await client.post("/v1/orders", terms())).json["order_no"]
    await resources.db.execute(_MADE, number, HOOK, HOSTILE)
    return number


async def page(browser: ConsoleClient, target: str, status: int = 200) -> str:
    response = await browser.get(target)
    assert response.status == status, response.body.decode()
    text = response.body.decode()
    assert HOSTILE not in text
    return text


async def reasons(resources: Resources) -> list[tuple[str, str, str]]:
    rows = await resources.db.fetch(
        "SELECT action, subject, detail->>'reason' AS reason FROM audit WHERE via = 'console' ORDER BY id"
    )
    return [(row["action"], row["subject"], row["reason"]) for row in rows]


async def test_a_list_is_chosen_by_its_address(signed_in: SignedIn, order_no: str) -> None:
    viewer = await signed_in(Role.VIEWER)
    for query, ids in (
        ("", ["msg_open"]),
        ("?status=dead", ["msg_dead"]),
        (f"?status=delivered&endpoint={quote(HOOK)}&since=1h", ["msg_done"]),
        ("?status=delivered&since=2099-01-01", []),
        (f"?order_no={order_no}", ["msg_open", "msg_dead", "msg_done"]),
        ("?order_no=%3Cscript%3E", []),
    ):
        text = await page(viewer, f"/ops/notifications{query}")
        assert [one for one in ("msg_open", "msg_dead", "msg_done") if f">{one}<" in text] == ids, query
    assert "since: write 30m" in await page(viewer, "/ops/notifications?since=soon", 400)
    await page(viewer, "/ops/notifications?status=none", 400)


async def test_a_long_list_has_pages(signed_in: SignedIn, resources: Resources, order_no: str) -> None:
    sql = """INSERT INTO notifications (id, order_no, version, type, url, body, dead_at)
             SELECT 'msg_' || n, $1, 1000 + n, 'order.paid', $2, '{}', now() FROM generate_series(1, 60) AS n"""
    await resources.db.execute(sql, order_no, HOOK)
    viewer = await signed_in(Role.VIEWER)
    first = await page(viewer, "/ops/notifications?status=dead")
    assert first.count('href="/ops/notifications/msg_') == 50
    address = first.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert (await page(viewer, address)).count('href="/ops/notifications/msg_') == 11


@pytest.mark.usefixtures("order_no")
async def test_answers_and_texts_are_for_operators_and_never_markup(signed_in: SignedIn) -> None:
    text = await page(await signed_in(Role.OPERATOR), "/ops/notifications/msg_open")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt;" in text
    assert "503" in text
    seen = await page(await signed_in(Role.VIEWER), "/ops/notifications/msg_open")
    assert ("alert(1)" in seen, "&lt;b&gt;" in seen, "503" in seen) == (False, False, True)
    assert 'action="/ops/notifications/msg_open/resend"' not in seen
    await page(await signed_in(Role.VIEWER), "/ops/notifications/msg_none", 404)


@pytest.mark.usefixtures("order_no")
async def test_one_is_sent_again_as_it_was_looked_at(signed_in: SignedIn, resources: Resources) -> None:
    operator = await signed_in(Role.OPERATOR)
    target = "/ops/notifications/msg_done/resend"
    assert "It is sent at once." in (await operator.act(target, {"version": "1"})).body.decode()
    arm_no = await resources.db.fetchval("SELECT arm_no FROM notifications WHERE resending_since IS NOT NULL")
    assert arm_no == 2
    again = await operator.post(target, {"version": "1", "reason": "once more"})
    assert (again.status, "it has changed since you looked" in again.body.decode()) == (409, True)
    assert (await operator.post(target, {"version": "x", "reason": "once more"})).status == 400
    assert (await operator.post(target, {"version": "2", "reason": " "})).status == 400
    assert [row[0:2] for row in await reasons(resources)] == [("notification.resend", "msg_done")] * 2


@pytest.mark.usefixtures("order_no")
async def test_many_are_sent_again_as_they_were_counted(signed_in: SignedIn, resources: Resources) -> None:
    operator = await signed_in(Role.OPERATOR)
    assert "1 notifications are sent again" in await page(operator, "/ops/notifications/resend")
    target = f"/ops/notifications/resend?what=all&endpoint={quote(HOOK)}"
    assert "Name an endpoint and a time" in await page(operator, target)
    text = await page(operator, f"{target}&since=1h")
    assert "3 notifications are sent again" in text
    since = text.partition('name="since" value="20')[2].partition('"')[0]
    form = {"what": "all", "endpoint": HOOK, "since": f"20{since}", "count": "3", "reason": "they restored a backup"}
    assert (await operator.post("/ops/notifications/resend", form | {"count": "2"})).status == 409
    assert "3 are sent one after another" in (await operator.act("/ops/notifications/resend", form)).body.decode()
    assert await resources.db.fetchval("SELECT count(held_at) FROM notifications") == 3
    [(action, subject, _)] = await reasons(resources)
    assert (action, subject) == ("notifications.resend", HOOK)
    assert "There is none to send again" in await page(operator, "/ops/notifications/resend")


@pytest.mark.usefixtures("order_no")
async def test_an_endpoint_is_paused_and_resumed(signed_in: SignedIn, resources: Resources) -> None:
    operator, viewer = await signed_in(Role.OPERATOR), await signed_in(Role.VIEWER)
    show = f"/ops/endpoints/show?endpoint={quote(HOOK)}"
    sql = """INSERT INTO rollups (step, scope, name, at, figures)
             VALUES (3600, 'endpoint', $1, date_trunc('hour', now()), '{"tries": 8, "tries_failed": 2}')"""
    await resources.db.execute(sql, HOOK)
    for target in ("/ops/endpoints", show):
        text = await page(viewer, target)
        assert (HOOK in text, "75\u00a0%" in text) == (True, True)
    assert 'action="/ops/endpoints/pause"' not in await page(viewer, show)
    assert 'action="/ops/endpoints/pause"' in await page(operator, show)
    paused = (await operator.act("/ops/endpoints/pause", {"endpoint": HOOK, "reason": "they move"})).body.decode()
    assert "Paused by <bdi>operator</bdi>" in paused
    assert "they move" in paused
    form = {"endpoint": HOOK, "reason": "again"}
    assert (await operator.post("/ops/endpoints/pause", form)).status == 409
    assert ">msg_open<" in await page(viewer, "/ops/notifications?status=paused")
    resumed = (await operator.act("/ops/endpoints/resume", {"endpoint": HOOK})).body.decode()
    assert 'action="/ops/endpoints/pause"' in resumed
    assert (await operator.post("/ops/endpoints/resume", form)).status == 409
    assert [row[0] for row in await reasons(resources)] == ["endpoint.pause"] * 2 + ["endpoint.resume"] * 2


async def test_pages_without_anything_say_so(signed_in: SignedIn) -> None:
    viewer = await signed_in(Role.VIEWER)
    assert "There are none." in await page(viewer, "/ops/notifications")
    assert "everything is delivered" in await page(viewer, "/ops/endpoints")
    assert (await viewer.get("/ops/endpoints/show")).headers["location"] == "/ops/endpoints"
    await page(viewer, "/ops/endpoints/show?endpoint=javascript:alert(1)", 400)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("", None),
        ("2h", NOW - timedelta(hours=2)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T12:00+08:00", datetime(2026, 11, 23, 4, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_span_or_an_instant(text: str, since: datetime | None) -> None:
    assert read_since(text, NOW) == since


@pytest.mark.parametrize("text", ["soon", "h", "9999999h", "999999d", "２h"])
def test_any_other_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="since"):
        read_since(text, NOW)
