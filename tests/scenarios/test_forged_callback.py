"""A callback that the channel never sent causes no row and no call."""

from collections.abc import Callable

import pytest

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario, number_of

# Rows of this order alone: those of earlier tests may still move.
DIGEST = "SELECT md5(coalesce(string_agg(t::text, ';' ORDER BY t::text), '')) FROM {table} t WHERE {of_this_test}"
BY_ORDER = ("orders", "payments", "pending", "notifications", "order_events", "observations", "refunds", "disputes")
BY_NUMBER = ("callbacks", "cases")

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
    before = await _state(scenario, order)

    response = await scenario.deliver(*forge(*scenario.signed_callback(order, account="trusting")), account="trusting")

    assert response.status_code == 401
    assert await _state(scenario, order) == before


async def test_a_genuine_callback_sent_an_hour_later_by_somebody_else_changes_nothing(scenario: Scenario) -> None:
    order = await scenario.place("trusting")
    await scenario.put_off(order)
    before = await _state(scenario, order)
    headers, body = scenario.signed_callback(order, account="trusting")
    stale = scenario.sign(body, account="trusting", callback_id=headers["sandbox-callback-id"], ago_s=3600)

    response = await scenario.deliver(stale, body, account="trusting")

    assert response.status_code == 400
    assert await _state(scenario, order) == before


async def _state(scenario: Scenario, order: ShopOrder) -> tuple[object, ...]:
    """Return digests of what all tables have of this order, and the calls to the channel about it."""
    number = number_of(order)
    select = [(table, "order_no = $1", order.order_no) for table in BY_ORDER]
    select += [(table, "out_trade_no = $1", number) for table in BY_NUMBER]
    rows = [
        await scenario.db.fetchval(DIGEST.format(table=table, of_this_test=condition), name)
        for table, condition, name in select
    ]
    return *rows, sum(call.number == number for call in await scenario.calls())
