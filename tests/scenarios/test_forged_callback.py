"""A callback that the channel never sent: nothing is stored, looked up, queued or asked because of it."""

from collections.abc import Callable

import pytest

from core.jobs import Lane
from storage.redis.delay_queue import DelayQueue
from tests.scenarios.scenario import Scene
from tests.storage.redis.tools import client_of

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
    scene: Scene, forge: Callable[[dict[str, str], bytes], Message]
) -> None:
    order = await scene.place("trusting")
    await scene.put_off(order)
    before = await _everything(scene)

    answer = await scene.deliver(*forge(*scene.signed_callback(order, account="trusting")), account="trusting")

    assert answer.status_code == 401
    assert await _everything(scene) == before


async def test_a_genuine_callback_sent_an_hour_later_by_somebody_else_changes_nothing(scene: Scene) -> None:
    order = await scene.place("trusting")
    await scene.put_off(order)
    before = await _everything(scene)
    headers, body = scene.signed_callback(order, account="trusting")
    stale = scene.sign(body, account="trusting", callback_id=headers["sandbox-callback-id"], ago_s=3600)

    answer = await scene.deliver(stale, body, account="trusting")

    assert answer.status_code == 400
    assert await _everything(scene) == before


async def _everything(scene: Scene) -> tuple[object, ...]:
    """All rows, what is queued for callbacks, and what the channel was asked for this account."""
    rows = [
        await scene.db.fetchval(f"SELECT md5(coalesce(string_agg(t::text, ';' ORDER BY t::text), '')) FROM {table} t")  # noqa: S608 - names of tables
        for table in TABLES
    ]
    async with client_of(scene.stack.redis.url) as redis:
        queued = (await DelayQueue(redis).depth(Lane.FRESH)).queued
    return *rows, queued, sum(call.merchant_id == "m-trusting" for call in await scene.calls())
