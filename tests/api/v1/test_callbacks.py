"""GET /v1/callbacks: what came, and what each proves."""

from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from core.errors import CallbackForged
from flows.refusals import write_refusals
from runtime.resources import Resources
from storage.postgres.api_keys import Scope, create_api_key
from storage.postgres.audit import list_acts
from tests.api.conftest import SECRET, terms
from tests.api.driver import Client
from tests.api.test_callbacks import paid_body, send, signed
from tests.servers import eventually


@pytest.fixture
async def order(client: Client, buyer: Client, account: str, resources: Resources) -> dict[str, Any]:
    """An order with a forged callback, and a genuine one after it."""
    placed: dict[str, Any] = (await client.post("/v1/orders", terms(account=account))).json
    body = paid_body(placed["payments"][0])
    await send(buyer, body, signed(body, secret="a stranger's secret, as long as it is"))
    await eventually(partial(is_written, resources))
    assert (await send(buyer, body, signed(body))).status == 200
    return placed


async def is_written(resources: Resources) -> bool:
    """Whether what was refused is stored, by the test or by the task beside the requests."""
    await write_refusals(resources)
    return bool(await resources.db.fetchval("SELECT count(*) FROM refused_callbacks"))


async def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    response = await client.get(f"/v1/callbacks{query}")
    assert response.status == 200, response.body
    rows: list[dict[str, Any]] = response.json["callbacks"]
    return rows


async def test_callbacks_are_listed_by_order_account_and_state(client: Client, order: dict[str, Any]) -> None:
    whole = await listed(client)
    assert [row["verdict"] for row in whole] == ["genuine", "forged"]
    assert await listed(client, f"?order_no={order['order_no']}") == whole
    assert await listed(client, f"?order_no={order['order_no']}&state=refused&account=main") == whole[1:]
    assert await listed(client, f"?order_no={order['order_no']}&account=other") == []
    assert await listed(client, "?account=main&state=refused") == whole[1:]
    assert await listed(client, "?received_after=2099-01-01T00:00:00Z") == []
    assert await listed(client, f"?order_no={order['order_no']}&received_after=2099-01-01T00:00:00Z") == []
    assert whole[1]["out_trade_no"] == order["payments"][0]["out_trade_no"]
    assert (await client.get(f"/v1/callbacks/{whole[0]['id']}")).json == whole[0]


async def test_pages_follow_each_other(client: Client, order: dict[str, Any]) -> None:
    first = (await client.get("/v1/callbacks?limit=1")).json
    second = (await client.get(f"/v1/callbacks?limit=1&cursor={first['next_cursor']}")).json
    assert [row["verdict"] for row in (*first["callbacks"], *second["callbacks"])] == ["genuine", "forged"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("query", ["?state=lost", "?limit=0", "?cursor=x", "?order_no=A-1&cursor=x", "?account=M"])
async def test_a_wrong_query_is_refused(client: Client, query: str) -> None:
    response = await client.get(f"/v1/callbacks{query}")
    assert (response.status, response.problem) == (400, "invalid_request")


async def test_an_explanation_has_every_check_and_no_secret(
    client: Client, order: dict[str, Any], resources: Resources
) -> None:
    genuine, forged = await listed(client)
    explained = (await client.get(f"/v1/callbacks/{genuine['id']}/explanation")).json
    assert (explained["verdict"], explained["order_no"]) == ("paid", order["order_no"])
    assert [check["good"] for check in explained["checks"]] == [True]
    response = await client.get(f"/v1/callbacks/{forged['id']}/explanation")
    assert (response.json["verdict"], response.json["reason"]) == ("rejected", "forged")
    assert [check["good"] for check in response.json["checks"]] == [False]
    assert SECRET.encode() not in response.body
    acts = await list_acts(resources.db, limit=10)
    assert [(act.action, act.subject) for act in acts] == [
        ("callback.explain", forged["id"]),
        ("callback.explain", genuine["id"]),
    ]


@pytest.mark.parametrize("path", ["", "/explanation"])
async def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    for callback_id in (str(uuid4()), "7"):
        assert (await client.get(f"/v1/callbacks/{callback_id}{path}")).problem == "not_found"


async def test_reading_needs_its_scope_and_explaining_that_of_operators(
    client: Client, order: dict[str, Any], resources: Resources
) -> None:
    _, text = await create_api_key(resources.db, "reader", scopes=[Scope.READ])
    reader = Client(client.app, api_key=text)
    [row, _] = await listed(reader)
    assert (await reader.get(f"/v1/callbacks/{row['id']}")).status == 200
    assert (await reader.get(f"/v1/callbacks/{row['id']}/explanation")).status == 403
    _, text = await create_api_key(resources.db, "shop", scopes=[Scope.ORDERS])
    assert (await Client(client.app, api_key=text).get("/v1/callbacks")).status == 403


async def test_texts_of_strangers_are_values_of_json(client: Client, account: str, resources: Resources) -> None:
    resources.refusals.note(account, CallbackForged('"<script>'), {}, b'"<script>"', "203.0.113.9")
    await eventually(partial(is_written, resources))
    [row] = await listed(client)
    assert row["detail"] == '"<script>'


async def test_the_bytes_of_a_callback_are_read_for_a_reason(
    client: Client, order: dict[str, Any], resources: Resources
) -> None:
    genuine, forged = await listed(client)
    for row in (genuine, forged):
        address = f"/v1/callbacks/{row['id']}/raw"
        assert (await client.post(address, {})).problem == "invalid_request"
        assert (await client.post(address, {"reason": " "})).problem == "invalid_request"
        raw = (await client.post(address, {"reason": "the buyer says it is wrong"})).json
        assert (raw["callback_id"], raw["encoding"], raw["whole"]) == (row["id"], "text", True)
        assert raw["body"] == paid_body(order["payments"][0]).decode()
        assert SECRET not in str(raw)
    acts = await list_acts(resources.db, limit=9)
    assert [(act.action, act.subject, act.detail["reason"]) for act in acts] == [
        ("callback.raw", row["id"], "the buyer says it is wrong") for row in (forged, genuine)
    ]
    assert (await client.post(f"/v1/callbacks/{uuid4()}/raw", {"reason": "x"})).status == 404
    await resources.db.execute("UPDATE callbacks SET body = ''")
    gone = await client.post(f"/v1/callbacks/{genuine['id']}/raw", {"reason": "x"})
    assert (gone.status, gone.json["detail"]) == (404, "its raw bytes are not kept")
