"""Instants in UTC everywhere, though the database's sessions are in another zone and the channel in a third."""

import re
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from core.settings import Settings
from runtime.resources import Resources, open_resources
from tests.api.conftest import Channel, environment, open_elsewhere, terms, token_of
from tests.api.driver import Client
from tests.cli.nodrop import Nodrop

ELSEWHERE = "Asia/Kathmandu"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?P<zone>Z|[+-]\d\d(?::?\d\d)?|)")


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """Through a pooler that passes no parameter of a session on, to a database with a zone of its own."""
    connection = await asyncpg.connect(settings.database_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = '{ELSEWHERE}'")
    try:
        async with open_resources(msgspec.structs.replace(settings, statement_cache_size=0)) as opened:
            assert await opened.db.fetchval("SHOW timezone") == ELSEWHERE
            yield opened
    finally:
        await connection.execute(f'ALTER DATABASE "{name}" RESET timezone')
        await connection.close()


def zones(text: str) -> set[str]:
    return {match["zone"] for match in _INSTANT.finditer(text)}


async def test_every_instant_leaves_in_utc(
    client: Client, buyer: Client, channel: Channel, resources: Resources, settings: Settings
) -> None:
    await open_elsewhere(resources, channel, "wechatpay", "wx")
    wanted = terms(account="wx", method="native", notify_url="https://shop.test/n")
    order = (await client.post("/v1/orders", wanted)).json
    await channel.pay(order["payments"][0]["out_trade_no"])
    refreshed = await client.post(f"/v1/orders/{order['order_no']}/refresh")
    assert refreshed.json["status"] == "paid"
    shown = [refreshed, *[await client.get(f"/v1/orders{path}") for path in ("", f"/{order['order_no']}/timeline")]]
    status = await buyer.get(f"/o/{token_of(order)}/status")
    for response in (*shown, status):
        assert zones(response.body.decode()) == {"Z"}, response.body
    page = (await buyer.get(f"/o/{token_of(order)}")).body.decode()
    assert f'<time datetime="{status.json["paid_at"][:19]}Z">' in page
    bodies = [row["body"].decode() for row in await resources.db.fetch("SELECT body FROM notifications")]
    assert [zones(body) for body in bodies] == [{"Z"}]
    nodrop = Nodrop(environment(settings, STATEMENT_CACHE_SIZE="0"))
    for arguments in (("orders", "show", order["order_no"]), ("orders", "list")):
        assert zones((await nodrop(*arguments, "--json")).out) == {"Z"}
        assert zones((await nodrop(*arguments)).out) == {"Z"}
    assert zones((await nodrop("orders", "export", order["order_no"])).out) == {"Z", "+00:00"}
