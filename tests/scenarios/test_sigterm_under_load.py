"""A deploy in the middle of everything: processes end in time with exit code 0, and nothing they held is lost."""

import asyncio
import time
from pathlib import Path

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.faulty_proxy import CrookedProxy, Way
from tests.scenarios.scenario import Scene
from tests.servers import Process, eventually

GRACE_S = 6.0


async def test_both_workers_restarted_under_load_lose_nothing(scene: Scene) -> None:
    orders = await scene.place_many(20)
    await scene.faults(affected=["query"], slow=0.5, slow_s=1.0)
    for order in orders:
        await scene.pay(order, "lost")

    for worker in scene.stack.workers:
        began = time.monotonic()
        assert await worker.stop(GRACE_S + 5) == 0
        assert time.monotonic() - began < GRACE_S + 1
        await worker.start()

    await scene.until("paid", *orders)


async def test_a_web_process_restarted_under_load_answers_what_it_took(scene: Scene) -> None:
    orders = await scene.place_many(8)
    await scene.put_off(*orders)
    await scene.faults(affected=["query"], slow=1.0, slow_s=0.7)
    for order in orders:
        await scene.pay(order, "lost")
    before = len(await scene.calls())
    asking = [asyncio.create_task(_refresh(scene, order)) for order in orders]
    await eventually(lambda: _are_asked(scene, before + len(orders)))
    began = time.monotonic()

    assert await scene.stack.apis[1].stop(GRACE_S + 5) == 0

    assert time.monotonic() - began < GRACE_S + 1
    assert set(await asyncio.gather(*asking)) == {200}
    await scene.stack.apis[1].start()
    await scene.until("paid", *orders)


async def test_a_worker_that_waits_for_a_channel_ends_within_its_grace(
    scene: Scene, crooked: CrookedProxy, tmp_path: Path
) -> None:
    """The sweep is in the middle of queries that will not be answered before the grace is over."""
    await crooked.go(Way.STRAIGHT)
    orders = await scene.place_many(5, "crooked")
    await scene.put_off(*orders)
    await crooked.go(Way.BLACK_HOLE)
    slow = scene.stack.environ | {"CHANNEL_TIMEOUT_S": "15", "LEASE_S": "5", "SHUTDOWN_GRACE_S": "2"}
    async with scene.frozen_workers(), Process("worker", env=slow, log=tmp_path / "worker.log") as worker:
        for order in orders:
            await scene.pay(order, "lost")
        await scene.make_due(*orders, ago_s=60)
        await eventually(lambda: crooked.calls == len(orders))
        began = time.monotonic()

        assert await worker.terminate(10) == 0

        assert time.monotonic() - began < 3.0
    await crooked.go(Way.STRAIGHT)
    await scene.until("paid", *orders)


async def _refresh(scene: Scene, order: ShopOrder) -> int:
    return (await scene.post(f"/v1/orders/{order.order_no}/refresh", api=1)).status_code


async def _are_asked(scene: Scene, calls: int) -> bool:
    return len(await scene.calls()) >= calls
