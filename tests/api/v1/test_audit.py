"""/v1 about what people did and what ends."""

import pytest

from core.act_names import ActName
from runtime.resources import Resources
from storage.postgres.api_keys import create_api_key
from storage.postgres.audit import Act, Via, list_acts, write_act
from tests.api.driver import Client


async def put(resources: Resources, count: int) -> None:
    for number in range(count):
        act = Act(by=f"person{number % 2}", via=Via.CONSOLE, action=ActName.ORDER_QUERY, subject=f"A-{number}")
        await write_act(resources.db, act)


async def subjects(client: Client, query: str) -> list[str]:
    response = await client.get(f"/v1/audit?{query}")
    assert response.status == 200, response.body
    return [act["subject"] for act in response.json["acts"]]


async def test_acts_are_found_by_person_act_subject_and_time(client: Client, resources: Resources) -> None:
    await put(resources, 4)
    assert await subjects(client, "by=person1") == ["A-3", "A-1"]
    assert await subjects(client, "action=order.query&subject=A-2") == ["A-2"]
    assert await subjects(client, "by=nobody") == []
    assert await subjects(client, "since=2020-01-01T00:00:00Z&until=2020-02-01T00:00:00Z") == []
    assert len(await subjects(client, "since=2020-01-01T00:00:00Z")) == 4
    assert len(await list_acts(resources.db, limit=9)) == 4, "looking is no act"


async def test_pages_follow_each_other_and_miss_no_row(client: Client, resources: Resources) -> None:
    await put(resources, 5)
    seen, cursor = list[str](), ""
    while len(seen) < 5:
        page = (await client.get(f"/v1/audit?limit=2{cursor}")).json
        seen += [act["subject"] for act in page["acts"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert (seen, cursor) == (["A-4", "A-3", "A-2", "A-1", "A-0"], "&cursor=None")


@pytest.mark.parametrize("query", ["cursor=x", "since=yesterday", "limit=0", "person=x", "by="])
async def test_a_filter_that_cannot_be_read_is_refused(client: Client, query: str) -> None:
    assert (await client.get(f"/v1/audit?{query}")).problem == "invalid_request"


async def test_what_ends_is_listed_without_secrets(client: Client, resources: Resources) -> None:
    key, text = await create_api_key(resources.db, "reports", expires_in_s=40 * 86_400.0)
    listed = await client.get("/v1/endings")
    assert [(each["kind"], each["name"], each["what"], each["mark"]) for each in listed.json["endings"]] == [
        ("api_key", "reports", key.id, "later")
    ]
    assert text not in listed.body.decode()
    assert (await client.get("/v1/endings?within_days=30")).json["endings"] == []
    assert len((await client.get("/v1/endings?within_days=41")).json["endings"]) == 1
    assert (await client.get("/v1/endings?within_days=-1")).status == 400
