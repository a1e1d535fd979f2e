"""A deploy in the middle of everything: processes end in time with exit code 0, and nothing they held is lost."""

import asyncio
import time
from pathlib import Path

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.faulty_proxy import FaultyProxy, ProxyFault
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import Process, eventually

GRACE_S = 6.0
BUSY_S = 30.0
"""Time that a busy machine may need beside the grace."""


async def test_both_workers_restarted_under_load_lose_nothing(scenario: Scenario) -> None:
    orders = await scenario.place_many(20)
    await scenario.faults(affected=["query"], slow=0.5, slow_s=1.0)
    for order in orders:
        await scenario.pay(order, "lost")

    for worker in scenario.stack.workers:
        began = time.monotonic()
        assert await worker.stop(GRACE_S + 2 * BUSY_S) == 0
        assert time.monotonic() - began < GRACE_S + BUSY_S
        await worker.start()

    await scenario.until("paid", *orders)


async def test_a_web_process_restarted_under_load_answers_what_it_took(scenario: Scenario) -> None:
    async with scenario.frozen_workers():  # the refreshes alone query
        orders = await scenario.place_many(8)
        await scenario.put_off(*orders)
        await scenario.faults(affected=["query"], slow=1.0, slow_s=0.7)
        for order in orders:
            await scenario.pay(order, "lost")
        before = len(await scenario.calls())
        asking = [asyncio.create_task(_refresh(scenario, order)) for order in orders]
        await eventually(lambda: _are_called(scenario, orders, before))
    began = time.monotonic()

    assert await scenario.stack.apis[1].stop(GRACE_S + 2 * BUSY_S) == 0

    assert time.monotonic() - began < GRACE_S + BUSY_S
    assert set(await asyncio.gather(*asking)) == {200}
    await scenario.stack.apis[1].start()
    await scenario.until("paid", *orders)


async def test_a_worker_that_waits_for_a_channel_ends_within_its_grace(
    scenario: Scenario, faulty_proxy: FaultyProxy, tmp_path: Path
) -> None:
    """The sweep is in the middle of queries that will not be answered before the grace is over."""
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    orders = await scenario.place_many(5, "proxied")
    await scenario.put_off(*orders)
    await faulty_proxy.set_fault(ProxyFault.BLACK_HOLE)
    slow = scenario.stack.environ | {"CHANNEL_TIMEOUT_S": "15", "LEASE_S": "5", "SHUTDOWN_GRACE_S": "2"}
    async with scenario.frozen_workers(), Process("worker", env=slow, log=tmp_path / "worker.log") as worker:
        for order in orders:
            await scenario.pay(order, "lost")
        await scenario.make_due(*orders, ago_s=60)
        await eventually(lambda: faulty_proxy.calls == len(orders))
        began = time.monotonic()

        assert await worker.terminate(2 * BUSY_S) == 0

        assert time.monotonic() - began < 12.0, "it waited for the channel"
    await faulty_proxy.set_fault(ProxyFault.NO_FAULT)
    await scenario.until("paid", *orders)


async def _refresh(scenario: Scenario, order: ShopOrder) -> int:
    return (await scenario.post(f"/v1/orders/{order.order_no}/refresh", api=1)).status_code


async def _are_called(scenario: Scenario, orders: list[ShopOrder], before: int) -> bool:
    numbers = {call.number for call in (await scenario.calls())[before:]}
    return {number_of(order) for order in orders} <= numbers
