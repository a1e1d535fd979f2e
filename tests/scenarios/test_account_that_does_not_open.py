"""An account's credentials are spoilt while its orders are open: nobody can be asked, and none may get lost by that."""

from storage.accounts import put_account
from storage.sealing import Sealer
from tests.scenarios.scene import Scene, account_config, add_account, number_of
from tests.servers import eventually


async def test_orders_of_an_account_that_does_not_open_wait_and_hold_up_nobody(scene: Scene) -> None:
    await add_account(scene.stack, scene.db, "spoilt")
    paid, unpaid = await scene.place_many(2, "spoilt")
    await scene.put_off(paid, unpaid)
    await scene.pay(paid, "lost")
    good = account_config(scene.stack, "spoilt")
    bad = account_config(scene.stack, "spoilt", credentials={"merchant_id": "m-spoilt", "keys": {"k1": "short"}})
    sealer = Sealer.from_setting(scene.stack.master_key)
    async with scene.no_workers():
        await put_account(scene.db, sealer, bad)
        await eventually(lambda: _is_unknown(scene), 20)

    await scene.make_due(paid, unpaid)
    assert (await scene.close(unpaid)).status_code == 202

    other = await scene.place()
    await scene.pay(other, "lost")
    await scene.until("paid", other)
    await eventually(lambda: _deadline_was_tried(scene, unpaid.order_no), 20)
    moves = await _moves(scene, number_of(paid))
    assert moves < 20, "it is asked about again and again"
    assert {await scene.status(paid), await scene.status(unpaid)} == {"paying"}

    await put_account(scene.db, sealer, good)
    await eventually(lambda: _is_known(scene), 20)
    await scene.make_due(paid)
    await scene.until("paid", paid)
    await scene.until("closed", unpaid)


async def _is_unknown(scene: Scene) -> bool:
    """Whether the web process starts no payment there any more; a worker learns of it at its start."""
    answer = await scene.post("/v1/orders/S-none/payments", {"account": "spoilt"})
    return bool(answer.json()["type"].endswith("/unknown_account"))


async def _is_known(scene: Scene) -> bool:
    return not await _is_unknown(scene)


async def _deadline_was_tried(scene: Scene, order_no: str) -> bool:
    sql = "SELECT attempt FROM pending WHERE order_no = $1 AND kind = 'deadline'"
    return int(await scene.db.fetchval(sql, order_no)) >= 2


async def _moves(scene: Scene, number: str) -> int:
    """How often its query has been scheduled so far."""
    return int(await scene.db.fetchval("SELECT arm_no FROM pending WHERE out_trade_no = $1", number))
