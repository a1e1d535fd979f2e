"""The rights of an API key: its scopes, its end, its limit, and what is written about it."""

import re

import pytest

from api.context import Context
from api.http.asgi import App
from api.http.auth import LAST_USED_S
from api.http.route import Auth, Route, plain
from api.ops import healthz
from api.routes import table
from core.errors import DatabaseUnavailable
from flows.close import request_close
from runtime.resources import Resources
from storage.postgres.api_keys import Scope, create_api_key
from storage.postgres.audit import list_acts
from tests.api.conftest import terms
from tests.api.driver import Client
from tests.servers import ROOT

ROUTES = [route for route in table(65536) if route.auth is Auth.API_KEY]


async def client_with(app: App[Context], resources: Resources, *scopes: Scope, **more: float) -> Client:
    """A caller whose key has these scopes."""
    _, text = await create_api_key(resources.db, "tests", scopes=scopes, **more)  # type: ignore[arg-type]
    return Client(app, api_key=text)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
async def test_each_route_is_open_to_its_scope_and_to_no_other(
    app: App[Context], resources: Resources, route: Route[Context]
) -> None:
    for scope in Scope:
        client = await client_with(app, resources, scope)
        response = await client.call(route.method, route.pattern.replace("{order_no}", "A-1"), body=b"{" * 100)
        if scope is route.scope:
            assert response.status != 403, scope
        else:
            assert (response.status, response.problem, response.reads) == (403, "forbidden", 0), scope
            assert f"`{route.scope}`" in response.json["detail"]
            assert f"has `{scope}`" in response.json["detail"]


def test_the_table_of_scopes_is_the_documented_one() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(rf"^\| `({'|'.join(Scope)})` \| (.*?) \|", text, re.MULTILINE)
    documented = {(route, scope) for scope, cell in rows for route in re.findall(r"`([A-Z]+ /[^`]*)`", cell)}
    assert documented == {(f"{route.method} {route.pattern}", str(route.scope)) for route in ROUTES}


def test_a_route_that_takes_a_key_without_a_scope_cannot_be_written() -> None:
    for auth, scope in ((Auth.API_KEY, None), (Auth.ANYONE, Scope.READ)):
        with pytest.raises(ValueError, match="scope exactly when"):
            Route("GET", "/v1/x", auth, plain(healthz), "x", {}, scope=scope)


async def test_a_key_opens_nothing_from_its_end_on(app: App[Context], resources: Resources) -> None:
    """Also where it is kept: the ten seconds of a revoked key are not added to its life."""
    now = 1000.0
    app.keys._clock = lambda: now
    client = await client_with(app, resources, Scope.READ, expires_in_s=4.0)
    assert (await client.get("/v1/orders")).status == 200
    await resources.db.execute("UPDATE api_keys SET expires_at = now()")
    now += 4.1
    response = await client.get("/v1/orders")
    assert (response.status, response.problem) == (401, "unauthorized")


async def test_a_key_has_its_requests_a_minute_and_no_more(app: App[Context], resources: Resources) -> None:
    now = 1000.0
    app.keys._clock = lambda: now
    client = await client_with(app, resources, Scope.READ, requests_per_minute=3)
    other = await client_with(app, resources, Scope.READ, requests_per_minute=3)
    assert [(await client.get("/v1/orders")).status for _ in range(3)] == [200, 200, 200]
    refused = await client.get("/v1/orders")
    assert (refused.status, refused.problem, refused.headers["retry-after"]) == (429, "too_many_requests", "20")
    assert (await other.get("/v1/orders")).status == 200, "each key has its own"
    now += 20.0
    assert [(await client.get("/v1/orders")).status for _ in range(2)] == [200, 429]
    now += 3600.0
    assert [(await client.get("/v1/orders")).status for _ in range(4)] == [200, 200, 200, 429]


async def test_requests_beyond_the_scope_count_too(app: App[Context], resources: Resources) -> None:
    client = await client_with(app, resources, Scope.METRICS, requests_per_minute=2)
    assert [(await client.get("/v1/orders")).status for _ in range(3)] == [403, 403, 429]


async def test_the_last_use_is_written_beside_the_requests(app: App[Context], resources: Resources) -> None:
    """A request writes nothing; many requests are one write, and a key that was not used has none."""
    now = 1000.0
    app.keys._clock = lambda: now
    client = await client_with(app, resources, Scope.READ)
    await create_api_key(resources.db, "not used")
    for _ in range(5):
        assert (await client.get("/v1/orders")).status == 200
    used = "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL"
    assert await resources.db.fetchval(used) == 0
    now += 7.0
    assert [await app.keys.write_last_uses() for _ in range(2)] == [1, 0]
    age_s = await resources.db.fetchval(
        "SELECT extract(epoch FROM now() - last_used_at)::float8 FROM api_keys WHERE last_used_at IS NOT NULL"
    )
    assert 7.0 <= age_s < 7.0 + LAST_USED_S


async def test_the_history_of_an_order_names_the_key(
    app: App[Context], resources: Resources, account: str, client: Client
) -> None:
    """The key that placed it and the key that ended it; not the process that worked on it."""
    key, text = await create_api_key(resources.db, "shop", scopes=[Scope.ORDERS])
    order = (await Client(app, api_key=text).post("/v1/orders", terms(account=account))).json
    person, text = await create_api_key(resources.db, "person", scopes=[Scope.OPERATE])
    await Client(app, api_key=text).post(f"/v1/orders/{order['order_no']}/close")
    timeline = (await client.get(f"/v1/orders/{order['order_no']}/timeline")).json["entries"]
    by_kind = {entry["kind"]: entry["api_key"] for entry in timeline if entry["version"]}
    assert by_kind["placed"] == key.id
    assert by_kind["closed"] == person.id
    assert await resources.db.fetchval("SELECT count(*) FROM order_events WHERE api_key IS NOT NULL") > 1


async def test_a_change_without_a_key_names_none(client: Client, account: str, resources: Resources) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json
    await request_close(resources, order["order_no"])
    sql = "SELECT api_key FROM order_events WHERE kind = 'closed'"
    assert await resources.db.fetchval(sql) is None


async def test_what_a_person_does_by_the_api_is_written_before_it_is_done(
    app: App[Context], resources: Resources, account: str, client: Client
) -> None:
    """Calls of the scope `operate`, also one that comes to nothing, and no others."""
    order = (await client.post("/v1/orders", terms(account=account))).json
    person, text = await create_api_key(resources.db, "alice", scopes=[Scope.OPERATE, Scope.READ])
    alice = Client(app, api_key=text)
    await alice.get(f"/v1/orders/{order['order_no']}")
    assert await list_acts(resources.db, limit=10) == []
    await alice.post(f"/v1/orders/{order['order_no']}/close")
    assert (await alice.post("/v1/orders/A-unknown/close")).status == 404
    later, act = await list_acts(resources.db, limit=10)
    assert (act.by, act.via, act.action, act.subject) == (person.id, "api", "order.close", order["order_no"])
    assert act.detail == {}
    assert later.subject == "A-unknown"


async def test_what_cannot_be_written_down_is_not_done(
    app: App[Context], resources: Resources, account: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json

    async def refuse(*_: object) -> None:
        raise DatabaseUnavailable("down")

    monkeypatch.setattr("api.http.auth.write_act", refuse)
    monkeypatch.setattr("api.v1.acts.write_act", refuse)
    assert (await client.get("/v1/callbacks/6f1c2d9e-0d4b-4a53-9a53-0c7a2f5d1e11/explanation")).status == 503
    assert (await client.post(f"/v1/orders/{order['order_no']}/close")).status == 503
    assert await resources.db.fetchval("SELECT status FROM orders") != "closed"
