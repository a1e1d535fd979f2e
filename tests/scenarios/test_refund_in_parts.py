"""An operator gives back parts of paid orders at all five channels, while answers are cut off: each part once, and the
books agree with the ledgers.
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.five_channels import CHANNELS, of_each, pay_all, place_at_all
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

PARTS = dict.fromkeys(CHANNELS, (1250, 2000)) | {"wechatpay": (1250,)}
"""Minor units. WeChat Pay takes the refunds of one payment a minute apart, which is a test of its own."""


@pytest.mark.parametrize("fault", [{}, {"affected": ["refund"], "cut": 1.0}], ids=["at once", "answers are cut off"])
async def test_parts_of_paid_orders_go_back_once_each(scenario: Scenario, fault: dict[str, object]) -> None:
    orders = await place_at_all(scenario)
    await pay_all(scenario, orders)
    await scenario.until("paid", *orders.values())
    await scenario.faults(**fault)

    wanted = [(channel, amount) for channel in CHANNELS for amount in PARTS[channel] for _ in range(2)]
    answers = await asyncio.gather(*(give_back(scenario, orders[channel], amount) for channel, amount in wanted))
    assert set(answers) == {200}

    await eventually(lambda: are_all_back(scenario, orders))
    statuses = await of_each(orders, scenario.status)
    assert set(statuses.values()) == {"paid"}
    for channel, order in orders.items():
        there = [refund for refund in (await scenario.ledger()).refunds if refund.out_trade_no == number_of(order)]
        assert sorted(refund.amount for refund in there) == list(PARTS[channel])
        [payment] = (await scenario.view(order))["payments"]
        assert payment["refunded_amount"] == sum(PARTS[channel])
        await eventually(partial(scenario.was_notified, order, "order.refunded"))
        assert await scenario.cases(number_of(order)) == []


async def give_back(scenario: Scenario, order: ShopOrder, amount: int) -> int:
    """Send the request of one part; its key is the amount."""
    body = {
        "out_trade_no": number_of(order),
        "amount": amount,
        "key": f"ticket-{amount}",
        "reason": "one cup was broken",
    }
    return (await scenario.post(f"/v1/orders/{order.order_no}/refunds", body)).status_code


async def are_all_back(scenario: Scenario, orders: dict[str, ShopOrder]) -> bool:
    sql = "SELECT coalesce(bool_and(status = 'succeeded'), false) FROM refunds WHERE order_no = ANY($1)"
    return bool(await scenario.db.fetchval(sql, [order.order_no for order in orders.values()]))
