"""Postgres restarts, and connections are cut, in the middle of everything."""

import asyncio
import time

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import LEASE_S, Scene
from tests.servers import eventually

CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'nodrop' AND pid <> $1"


async def test_no_order_is_lost_and_none_is_stuck_when_postgres_restarts_under_load(scene: Scene) -> None:
    """Rows that were leased then are looked after when their leases end, at the latest."""
    orders = await scene.place_many(20)
    paying = [asyncio.create_task(_pay(scene, number, order)) for number, order in enumerate(orders)]
    await asyncio.to_thread(scene.stack.postgres.restart)
    back_at = time.monotonic()
    await asyncio.gather(*paying)

    await eventually(lambda: _are_paid(scene, orders), 40)

    assert time.monotonic() - back_at < LEASE_S + 15


async def test_connections_cut_again_and_again_cost_no_order(scene: Scene) -> None:
    orders = await scene.place_many(15)
    paying = [asyncio.create_task(_pay(scene, number, order)) for number, order in enumerate(orders)]
    for _ in range(8):
        own = await scene.db.fetchval("SELECT pg_backend_pid()")
        await scene.db.fetchval(CUT, own)
    await asyncio.gather(*paying)

    await scene.until("paid", *orders)


async def _pay(scene: Scene, number: int, order: ShopOrder) -> None:
    """Half of the callbacks come, doubled; the others are lost."""
    await scene.pay(order, "doubled" if number % 2 else "lost")


async def _are_paid(scene: Scene, orders: list[ShopOrder]) -> bool:
    return {await scene.status(order) for order in orders} == {"paid"}
