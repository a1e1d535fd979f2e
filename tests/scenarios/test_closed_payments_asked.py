"""Money after the close, with its callback lost: nobody would ask about a closed payment any more. No statement is read
here, so whatever becomes paid was found by a query.
"""

from __future__ import annotations

import asyncio

import pytest

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.five_channels import (
    CHANNELS,
    CLOSED_ON_REQUEST,
    calls_about,
    capture_outside,
    is_closed,
    notified_once,
    place_at,
)
from tests.scenarios.scenario import QUIET_S, Scenario, number_of
from tests.servers import eventually

BY_QUERY = {"query", "sweep"}


async def test_money_after_the_close_is_found_by_query_alone_at_every_channel(scenario: Scenario) -> None:
    await scenario.faults(lost=1.0)
    async with scenario.frozen_workers():  # they ask after the money has come, and not before
        placed = await asyncio.gather(*(closed_with_money(scenario, channel) for channel in CHANNELS))

    await scenario.until("paid", *placed)

    for order in placed:
        assert await scenario.cases(number_of(order)) == ["paid_late"]
        assert await scenario.paid_by(order) in BY_QUERY
    await notified_once(scenario, *placed)


async def test_money_after_the_last_moment_for_money_is_found_by_the_next_question(scenario: Scenario) -> None:
    """It came after the question that follows the close; the next one is due when the channel takes no more money."""
    await scenario.faults(lost=1.0)
    order = await scenario.place(expires_in_s=8)
    await eventually(lambda: is_closed(scenario, order), QUIET_S)
    await eventually(lambda: was_asked_again(scenario, order), QUIET_S)
    await scenario.pay_late(order)

    await scenario.until("paid", order)

    assert await scenario.paid_by(order) in BY_QUERY
    assert await scenario.cases(number_of(order)) == ["paid_late"]


@pytest.mark.parametrize("channel", CLOSED_ON_REQUEST)
@pytest.mark.parametrize("way", ["the page", "the merchant"])
async def test_a_refresh_of_a_closed_order_asks_its_channel(scenario: Scenario, channel: str, way: str) -> None:
    await scenario.faults(lost=1.0)
    order = await place_at(scenario, channel)
    await eventually(lambda: is_closed(scenario, order), QUIET_S)
    await scenario.put_off(order)
    await scenario.pay_late(order)

    if way == "the page":
        await scenario.return_from_channel(order)
    else:
        await scenario.refresh(order)

    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "refresh"


async def test_a_refresh_after_the_last_question_asks_once_and_shares_its_answer(scenario: Scenario) -> None:
    order = await scenario.place()
    await eventually(lambda: is_closed(scenario, order), QUIET_S)
    await scenario.db.execute("DELETE FROM pending WHERE order_no = $1", order.order_no)
    queries = len(await scenario.query_times(order))

    await asyncio.gather(*(scenario.refresh(order) for _ in range(20)))

    assert 1 <= len(await scenario.query_times(order)) - queries <= len(scenario.stack.apis)
    assert await scenario.db.fetchval("SELECT count(*) FROM pending WHERE order_no = $1", order.order_no) == 1


async def test_an_approved_payment_of_a_closed_order_is_asked_and_never_captured(scenario: Scenario) -> None:
    order = await place_at(scenario, "paypal", expires_in_s=2)
    await scenario.put_off(order)
    await scenario.faults(affected=["capture"], html_error=1.0)
    await scenario.pay(order, "lost")
    await eventually(lambda: is_closed(scenario, order), QUIET_S, 0.2)
    captures = (await calls_about(scenario, order)).count("capture")

    await scenario.refresh(order)
    await scenario.make_due(order, ago_s=1.0)
    await eventually(lambda: was_asked_again(scenario, order))

    assert (await calls_about(scenario, order)).count("capture") == captures
    assert await scenario.status(order) == "closed"


async def closed_with_money(scenario: Scenario, channel: str) -> ShopOrder:
    """Return a closed order whose money then arrives. PayPal's arrives when another system captures it."""
    if channel in CLOSED_ON_REQUEST:
        order = await place_at(scenario, channel)
        await eventually(lambda: is_closed(scenario, order), QUIET_S)
        await scenario.pay_late(order)
        return order
    order = await place_at(scenario, channel, expires_in_s=2)
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    await eventually(lambda: is_closed(scenario, order), QUIET_S, 0.2)
    await capture_outside(scenario, order, channel)
    return order


async def was_asked_again(scenario: Scenario, order: ShopOrder) -> bool:
    """Return whether the question that was made due has an answer: another one is due then, or none."""
    sql = "SELECT count(*) FROM pending WHERE order_no = $1 AND due_at <= now()"
    return bool(await scenario.db.fetchval(sql, order.order_no) == 0)
