"""An account is deleted or cannot be opened while it has open orders: no query is possible, and no order is lost."""

from tests.scenarios.scenario import Scenario, add_account, number_of
from tests.servers import eventually


async def test_orders_of_an_account_that_is_gone_wait_for_it_and_hold_up_nobody(scenario: Scenario) -> None:
    await add_account(scenario.stack, scenario.db, "fleeting")
    paid, unpaid = await scenario.place_many(2, "fleeting")
    await scenario.put_off(paid, unpaid)
    await scenario.pay(paid, "lost")
    async with scenario.no_workers():
        await scenario.db.execute("DELETE FROM accounts WHERE name = 'fleeting'")
        await eventually(lambda: _is_unknown(scenario))

    await scenario.make_due(paid, unpaid)
    assert (await scenario.close(unpaid)).status_code == 202
    assert await scenario.refresh(paid) == "paying"

    other = await scenario.place()
    await scenario.pay(other, "lost")
    await scenario.until("paid", other)
    await eventually(lambda: _deadline_was_tried(scenario, unpaid.order_no))
    assert await _scheduled(scenario, number_of(paid)) < 20, "it is tried again and again"
    assert {await scenario.status(paid), await scenario.status(unpaid)} == {"paying"}

    await add_account(scenario.stack, scenario.db, "fleeting")
    await eventually(lambda: _is_known(scenario))
    await scenario.make_due(paid, unpaid)
    await scenario.until("paid", paid)
    await scenario.until("closed", unpaid)


async def _is_unknown(scenario: Scenario) -> bool:
    """Whether the web process starts no payment there any more; a worker learns of it at its start."""
    response = await scenario.post("/v1/orders/S-none/payments", {"account": "fleeting"})
    return bool(response.json()["type"].endswith("/unknown_account"))


async def _is_known(scenario: Scenario) -> bool:
    return not await _is_unknown(scenario)


async def _deadline_was_tried(scenario: Scenario, order_no: str) -> bool:
    sql = "SELECT attempt FROM pending WHERE order_no = $1 AND kind = 'deadline'"
    return int(await scenario.db.fetchval(sql, order_no)) >= 2


async def _scheduled(scenario: Scenario, number: str) -> int:
    """Number of times that its query has been scheduled."""
    return int(await scenario.db.fetchval("SELECT arm_no FROM pending WHERE out_trade_no = $1", number))
