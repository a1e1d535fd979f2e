"""Search and story over HTTP: the same as in the console and on the command line."""

import pytest

from tests.api.conftest import Channel, terms
from tests.api.driver import Client


async def test_an_order_is_found_by_any_number(client: Client, channel: Channel, account: str) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    order_no, number = placed["order_no"], placed["payments"][0]["out_trade_no"]
    for text, kind in ((order_no, "order_no"), (number, "out_trade_no")):
        found = (await client.get(f"/v1/search?number={text}")).json
        assert found["order_no"] == order_no
        assert (found["matches"][0]["kind"], found["matches"][0]["number"]) == (kind, text)
    nothing = await client.get("/v1/search?number=none")
    assert (nothing.status, nothing.json) == (200, {"order_no": None, "matches": []})


@pytest.mark.parametrize("query", ["", "?number=", f"?number={'x' * 301}", "?other=1"])
async def test_a_search_without_a_number_is_refused(client: Client, query: str) -> None:
    response = await client.get(f"/v1/search{query}")
    assert (response.status, response.problem) == (400, "invalid_request")


async def test_the_story_of_an_order_says_what_was_and_what_comes(
    client: Client, channel: Channel, account: str
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    path = f"/v1/orders/{placed['order_no']}/story"
    story = (await client.get(path)).json
    assert story["version"] == placed["version"]
    assert [entry["kind"] for entry in story["entries"]] == ["placed", "handed_off"]
    assert [step["kind"] for step in story["next"]] == ["query_due", "deadline_due", "buyer_pays"]
    assert story["next"][0]["text"] == f"Query 1 of {account}"

    await channel.pay(placed["payments"][0]["out_trade_no"])
    await client.post(f"/v1/orders/{placed['order_no']}/refresh")
    story = (await client.get(path)).json
    paid = story["entries"][-1]
    assert (paid["kind"], paid["who"], paid["evidence"]["kind"]) == ("paid", "refresh", "paid")
    assert paid["text"] == f"refresh: paid at {account}. The order is paid"


@pytest.mark.parametrize("order_no", ["none", "%00", "a%2Fb"])
async def test_an_order_that_is_not_there_has_no_story(client: Client, order_no: str) -> None:
    response = await client.get(f"/v1/orders/{order_no}/story")
    assert (response.status, response.problem) == (404, "not_found")
