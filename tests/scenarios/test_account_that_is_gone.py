"""An account is deleted, or opens no more, while it has open orders: nobody can be asked, and none may get lost."""

from tests.scenarios.scenario import Scene, add_account, number_of
from tests.servers import eventually


async def test_orders_of_an_account_that_is_gone_wait_for_it_and_hold_up_nobody(scene: Scene) -> None:
    await add_account(scene.stack, scene.db, "fleeting")
    paid, unpaid = await scene.place_many(2, "fleeting")
    await scene.put_off(paid, unpaid)
    await scene.pay(paid, "lost")
    async with scene.no_workers():
        await scene.db.execute("DELETE FROM accounts WHERE name = 'fleeting'")
        await eventually(lambda: _is_unknown(scene), 20)

    await scene.make_due(paid, unpaid)
    assert (await scene.close(unpaid)).status_code == 202
    assert await scene.refresh(paid) == "paying"

    other = await scene.place()
    await scene.pay(other, "lost")
    await scene.until("paid", other)
    await eventually(lambda: _deadline_was_tried(scene, unpaid.order_no), 20)
    assert await _scheduled(scene, number_of(paid)) < 20, "it is tried again and again"
    assert {await scene.status(paid), await scene.status(unpaid)} == {"paying"}

    await add_account(scene.stack, scene.db, "fleeting")
    await eventually(lambda: _is_known(scene), 20)
    await scene.make_due(paid, unpaid)
    await scene.until("paid", paid)
    await scene.until("closed", unpaid)


async def _is_unknown(scene: Scene) -> bool:
    """Whether the web process starts no payment there any more; a worker learns of it at its start."""
    answer = await scene.post("/v1/orders/S-none/payments", {"account": "fleeting"})
    return bool(answer.json()["type"].endswith("/unknown_account"))


async def _is_known(scene: Scene) -> bool:
    return not await _is_unknown(scene)


async def _deadline_was_tried(scene: Scene, order_no: str) -> bool:
    sql = "SELECT attempt FROM pending WHERE order_no = $1 AND kind = 'deadline'"
    return int(await scene.db.fetchval(sql, order_no)) >= 2


async def _scheduled(scene: Scene, number: str) -> int:
    """How often its query has been scheduled so far."""
    return int(await scene.db.fetchval("SELECT arm_no FROM pending WHERE out_trade_no = $1", number))
