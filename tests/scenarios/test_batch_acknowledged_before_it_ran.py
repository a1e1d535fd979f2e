"""Workers die with a batch in their hands: what was claimed and not finished must not count as done."""

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually


async def test_queries_that_were_under_way_when_the_workers_died_are_made_again(scenario: Scenario) -> None:
    orders = await scenario.place_many(10)
    await scenario.put_off(*orders)
    before = len(await scenario.calls())
    await scenario.faults(affected=["query"], slow=1.0, slow_s=1.8)
    for order in orders:
        await scenario.pay(order, "lost")
    await scenario.make_due(*orders)
    await eventually(lambda: _are_all_asked(scenario, orders, before))

    async with scenario.no_workers():
        assert "paying" in {await scenario.status(order) for order in orders}
        await scenario.faults()

    await scenario.until("paid", *orders)


async def _are_all_asked(scenario: Scenario, orders: list[ShopOrder], before: int) -> bool:
    numbers = {call.number for call in (await scenario.calls())[before:]}
    return {number_of(order) for order in orders} <= numbers
