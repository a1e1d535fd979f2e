"""Queries fail, and everything else of the channel works: genuine callbacks come, and payments can be created.

An account that waits for confirmation waits. One with `trust_callback = "when_unanswered"` does not wait for ever.
"""

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from core.admission import UNANSWERED_MAX
from simulator.shoppers.shop import ShopOrder
from tests.scenarios.five_channels import CHANNELS, place_at
from tests.scenarios.scenario import Scenario, add_account, number_of
from tests.servers import eventually

ORDERS = 150
WHOLLY_SIGNED = tuple(channel for channel in CHANNELS if channel != "paypal")
"""PayPal refuses the setting: its signature covers a checksum."""

NO_QUERIES: dict[str, Any] = {"affected": ["query"], "answered_5xx": 1.0}


async def test_payments_are_created_while_queries_fail(scenario: Scenario) -> None:
    """One breaker for the account refused half of the creations, each of which would have worked."""
    orders = await scenario.place_many(30)
    await scenario.faults(**NO_QUERIES)
    for order in orders:
        await scenario.pay(order, None)
    await eventually(lambda: _have_failed(scenario, orders))
    created = await asyncio.gather(*(scenario.post("/v1/orders", _terms(scenario)) for _ in range(30)))
    checkouts = [response.json()["payments"][0]["checkout"] for response in created]
    assert [response.status_code for response in created] == [201] * 30
    assert None not in checkouts
    assert "paid" not in {await scenario.status(order) for order in orders}


async def test_150_callbacks_pay_while_no_query_is_answered(scenario: Scenario) -> None:
    orders = await scenario.place_many(ORDERS, "unanswered")
    await _fail_queries(scenario, NO_QUERIES, *orders)
    await asyncio.gather(*(scenario.pay(order, None) for order in orders))
    await scenario.until("paid", *orders)
    assert await _confirmed(scenario, orders) == 0
    await eventually(lambda: _are_notified(scenario, orders))
    for order in orders[:5]:
        assert [delivery.type for delivery in await scenario.deliveries(order)] == ["order.paid"]
        assert await _notified_as_confirmed(scenario, order) == "false"

    await scenario.faults()

    await eventually(lambda: _are_confirmed(scenario, orders))
    assert {await scenario.effect_of(order) is not None for order in orders[:5]} == {True}
    assert [await scenario.cases(number_of(order)) for order in orders] == [[]] * ORDERS


@pytest.mark.parametrize("fault", ["timed_out", "html_error", "cut"])
async def test_a_callback_pays_however_the_queries_fail(scenario: Scenario, fault: str) -> None:
    order = await scenario.place("unanswered")
    await _fail_queries(scenario, {"affected": ["query"], fault: 1.0}, order)
    await scenario.pay(order, None)
    await scenario.until("paid", order)
    assert await _confirmed(scenario, [order]) == 0


@pytest.mark.parametrize("channel", WHOLLY_SIGNED)
async def test_a_wholly_signed_callback_of_each_channel_pays(scenario: Scenario, channel: str) -> None:
    account = f"{channel}-unanswered"
    await add_account(scenario.stack, scenario.db, account, channel=channel, trust_callback="when_unanswered")
    order = await place_at(scenario, channel, account=account)
    await _fail_queries(scenario, NO_QUERIES, order)
    await scenario.pay(order, None)
    await scenario.until("paid", order)
    assert await scenario.paid_by(order) in {"callback", "compensation"}
    assert await _confirmed(scenario, [order]) == 0

    await scenario.faults()

    await eventually(lambda: _are_confirmed(scenario, [order]))


async def test_an_answer_that_says_otherwise_is_a_case_and_the_row_stays_due(scenario: Scenario) -> None:
    """A query then speaks of another amount: a person looks. The order stays what it is, and its queries go on."""
    order = await scenario.place("unanswered")
    await _fail_queries(scenario, NO_QUERIES, order)
    await scenario.pay(order, None)
    await scenario.until("paid", order)

    await scenario.faults(wrong_amount_in_query=1.0)
    await eventually(partial(_has_case, scenario, order))
    assert await _confirmed(scenario, [order]) == 0

    await scenario.faults()
    await scenario.make_due(order)
    await eventually(lambda: _are_confirmed(scenario, [order]))


async def _fail_queries(scenario: Scenario, faults: dict[str, Any], *orders: ShopOrder) -> None:
    """Let queries fail. None is under way then: its *unpaid*, noted after the callback came, would contradict it."""
    await scenario.put_off(*orders)
    await scenario.faults(**faults)


def _terms(scenario: Scenario) -> dict[str, Any]:
    return scenario.terms(account="sandbox")


async def _have_failed(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    """Return whether more queries have failed than the breaker allows."""
    return sum([await scenario.observed(order, "unclear_seen") for order in orders]) >= UNANSWERED_MAX


async def _confirmed(scenario: Scenario, orders: list[ShopOrder]) -> int:
    sql = """SELECT count(*) FROM payments
              WHERE out_trade_no = ANY($1) AND status = 'paid' AND unconfirmed_since IS NULL"""
    return int(await scenario.db.fetchval(sql, [number_of(order) for order in orders]))


async def _are_confirmed(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    return await _confirmed(scenario, orders) == len(orders)


async def _are_notified(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    sql = "SELECT count(*) FROM notifications WHERE order_no = ANY($1) AND delivered_at IS NOT NULL"
    return bool(await scenario.db.fetchval(sql, [order.order_no for order in orders]) == len(orders))


async def _notified_as_confirmed(scenario: Scenario, order: ShopOrder) -> str:
    body = await scenario.db.fetchval("SELECT body FROM notifications WHERE order_no = $1", order.order_no)
    return msgspec.json.encode(msgspec.json.decode(body)["data"]["confirmed"]).decode()


async def _has_case(scenario: Scenario, order: ShopOrder) -> bool:
    return await scenario.cases(number_of(order)) == ["amount_mismatch"]
