"""Postgres restarts, and connections are cut, in the middle of everything."""

import asyncio

import asyncpg

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario
from tests.servers import eventually

CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'nodrop'"


async def test_no_order_is_lost_and_none_is_stuck_when_postgres_restarts_under_load(scenario: Scenario) -> None:
    """Rows that were leased then are looked after when their leases end, at the latest."""
    orders = await scenario.place_many(20)
    paying = [asyncio.create_task(_pay(scenario, number, order)) for number, order in enumerate(orders)]
    await asyncio.to_thread(scenario.stack.postgres.restart)
    await asyncio.gather(*paying)

    await eventually(lambda: _are_paid(scenario, orders))


async def test_connections_cut_again_and_again_cost_no_order(scenario: Scenario) -> None:
    orders = await scenario.place_many(15)
    paying = [asyncio.create_task(_pay(scenario, number, order)) for number, order in enumerate(orders)]
    connection = await asyncpg.connect(scenario.stack.database_url, ssl=False)
    for _ in range(8):
        await connection.fetchval(CUT)
    await connection.close()
    await asyncio.gather(*paying)

    await scenario.until("paid", *orders)


async def _pay(scenario: Scenario, number: int, order: ShopOrder) -> None:
    """Half of the callbacks come, doubled; the others are lost."""
    await scenario.pay(order, "doubled" if number % 2 else "lost")


async def _are_paid(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    return {await scenario.status(order) for order in orders} == {"paid"}
