"""The overview over HTTP."""

import pytest

from core.rollups import SPANS
from runtime.resources import Resources
from storage.postgres.api_keys import Scope, create_api_key
from tests.api.conftest import terms
from tests.api.driver import Client


async def test_the_overview_of_each_span(client: Client, account: str) -> None:
    await client.post("/v1/orders", terms(account=account))
    for name, span in SPANS.items():
        response = await client.get(f"/v1/overview?span={name}")
        assert (response.status, response.json["span"], len(response.json["buckets"])) == (200, name, span.size)
    seen = (await client.get("/v1/overview")).json
    assert (seen["span"], seen["live"]["backlog"]["pending"]) == ("1h", 2)


@pytest.mark.parametrize("query", ["span=2h", "span=", "other=1"])
async def test_another_span_is_a_fault_of_the_caller(client: Client, query: str) -> None:
    assert (await client.get(f"/v1/overview?{query}")).status == 400


async def test_it_needs_the_scope_of_metrics_and_writes_no_act(client: Client, resources: Resources) -> None:
    assert (await client.get("/v1/overview")).status == 200
    assert await resources.db.fetchval("SELECT count(*) FROM audit WHERE action LIKE '%overview%'") == 0
    _, text = await create_api_key(resources.db, "reader", scopes=(Scope.READ,))
    assert (await Client(client.app, api_key=text).get("/v1/overview")).status == 403
