"""A callback that the channel never sent causes no row, no query of the database, no job and no call."""

from collections.abc import Callable

import pytest

from core.jobs import Lane
from storage.redis.delay_queue import DelayQueue
from tests.scenarios.scenario import Scenario
from tests.storage.redis.tools import client_of

DIGEST = "SELECT md5(coalesce(string_agg(t::text, ';' ORDER BY t::text), '')) FROM {table} t"
TABLES = (
    "orders",
    "payments",
    "pending",
    "callbacks",
    "notifications",
    "cases",
    "order_events",
    "observations",
)

Message = tuple[dict[str, str], bytes]


def altered(headers: dict[str, str], body: bytes) -> Message:
    return headers, body.replace(b'"amount":8888', b'"amount":8889')


def unsigned(headers: dict[str, str], body: bytes) -> Message:
    return {name: value for name, value in headers.items() if name != "sandbox-signature"}, body


def other_key(headers: dict[str, str], body: bytes) -> Message:
    return headers | {"sandbox-signature": headers["sandbox-signature"].replace("k=k1", "k=k2")}, body


def guessed(headers: dict[str, str], body: bytes) -> Message:
    return headers | {"sandbox-signature": headers["sandbox-signature"][:-64] + "0" * 64}, body


def other_id(headers: dict[str, str], body: bytes) -> Message:
    return headers | {"sandbox-callback-id": "cb_another"}, body


@pytest.mark.parametrize("forge", [altered, unsigned, other_key, guessed, other_id])
async def test_a_forged_callback_changes_nothing(
    scenario: Scenario, forge: Callable[[dict[str, str], bytes], Message]
) -> None:
    order = await scenario.place("trusting")
    await scenario.put_off(order)
    before = await _state(scenario)

    response = await scenario.deliver(*forge(*scenario.signed_callback(order, account="trusting")), account="trusting")

    assert response.status_code == 401
    assert await _state(scenario) == before


async def test_a_genuine_callback_sent_an_hour_later_by_somebody_else_changes_nothing(scenario: Scenario) -> None:
    order = await scenario.place("trusting")
    await scenario.put_off(order)
    before = await _state(scenario)
    headers, body = scenario.signed_callback(order, account="trusting")
    stale = scenario.sign(body, account="trusting", callback_id=headers["sandbox-callback-id"], ago_s=3600)

    response = await scenario.deliver(stale, body, account="trusting")

    assert response.status_code == 400
    assert await _state(scenario) == before


async def _state(scenario: Scenario) -> tuple[object, ...]:
    """Return digests of all tables, the depth of the callbacks' queue, and the calls to the channel."""
    rows = [await scenario.db.fetchval(DIGEST.format(table=table)) for table in TABLES]
    async with client_of(scenario.stack.redis.url) as redis:
        queued = (await DelayQueue(redis).depth(Lane.FRESH)).queued
    return *rows, queued, sum(call.merchant_id == "m-trusting" for call in await scenario.calls())
