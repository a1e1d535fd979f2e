"""Money arrives for an order that was closed, and the account gives it back: once, whatever dies on the way."""

from pathlib import Path

import pytest

from simulator.kernel.snapshot import LedgerRefund
from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scene, add_account, number_of
from tests.scenarios.test_crash_between_steps import dying
from tests.servers import eventually

STEPS = {
    "claimed": "worker.jobs.refund_scheduled:before",
    "leased": "storage.postgres.refunds.claim:after",
    "before_asking": "channels.sandbox.adapter.Sandbox.refund_payment:before",
    "after_answer": "channels.sandbox.adapter.Sandbox.refund_payment:after",
    "before_commit": "flows.refund.commit_decision:before",
    "after_commit_before_arming": "flows.refund.commit_decision:after",
    "before_finishing_the_job": "worker.lane.LaneWorker.finish_job:before",
}


async def late_money(scene: Scene, account: str) -> ShopOrder:
    """An order that was closed at its channel, and whose money is on its way."""
    await scene.faults(settles_after_close=1.0, settle_after_s=0.3)
    order = await scene.place(account)
    await scene.close(order)
    await scene.until("closed", order)
    await eventually(lambda: _is_requested(scene, order))
    return order


async def refunds(scene: Scene, order: ShopOrder) -> list[LedgerRefund]:
    """What the channel's own ledger has of this order."""
    numbers = {payment.out_trade_no for payment in order.payments}
    return [refund for refund in (await scene.ledger()).refunds if refund.out_trade_no in numbers]


async def refund_status(scene: Scene, order: ShopOrder) -> str:
    sql = "SELECT string_agg(status, ',') FROM refunds WHERE order_no = $1"
    return str(await scene.db.fetchval(sql, order.order_no))


async def has_gone_back(scene: Scene, order: ShopOrder) -> None:
    """Here, in the channel's ledger, and at the merchant: once."""
    await eventually(lambda: _is_refunded(scene, order))
    await eventually(lambda: scene.was_told(order, "order.refunded"))
    [made] = await refunds(scene, order)
    assert (made.amount, made.status) == ((await scene.at_channel(order)).amount, "succeeded")
    assert await scene.status(order) == "closed"
    assert await scene.cases(number_of(order)) == []
    told = [delivery for delivery in await scene.deliveries(order) if delivery.type == "order.refunded"]
    assert len({delivery.webhook_id for delivery in told}) == 1


async def test_late_money_goes_back_and_the_merchant_hears_of_it(scene: Scene) -> None:
    order = await late_money(scene, "refund")
    await has_gone_back(scene, order)
    assert await scene.was_told(order, "order.paid_late")
    assert 'data-status="refunded"' in (await scene.http.get(order.order_page)).text


async def test_a_channel_that_takes_its_time_and_loses_its_answers_gives_back_once(scene: Scene) -> None:
    order = await scene.place("refund")
    await scene.faults(settles_after_close=1.0, settle_after_s=0.3, affected=["refund"], cut=1.0, refund_settles_s=2.0)
    await scene.close(order)
    await scene.until("closed", order)
    await has_gone_back(scene, order)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
async def test_worker_killed_in_the_middle_of_a_refund(dying_scene: Scene, step: str, tmp_path: Path) -> None:
    """It dies beside another one that lives on: whatever the channel had heard by then, the money goes back once."""
    scene = dying_scene
    await _with_account(scene)
    async with scene.frozen_workers():
        order = await late_money(scene, "refund")
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await has_gone_back(scene, order)


async def test_all_workers_killed_while_the_channel_is_processing_a_refund(dying_scene: Scene) -> None:
    scene = dying_scene
    await _with_account(scene)
    await scene.faults(settles_after_close=1.0, settle_after_s=0.3, refund_settles_s=1.5)
    order = await scene.place("refund")
    await scene.close(order)
    await scene.until("closed", order)
    await eventually(lambda: _is_processing(scene, order))
    async with scene.no_workers():
        pass

    await has_gone_back(scene, order)


async def _with_account(scene: Scene) -> None:
    await add_account(scene.stack, scene.db, "refund", late_policy="refund")


async def _is_requested(scene: Scene, order: ShopOrder) -> bool:
    return await refund_status(scene, order) != "None"


async def _is_processing(scene: Scene, order: ShopOrder) -> bool:
    return await refund_status(scene, order) == "processing"


async def _is_refunded(scene: Scene, order: ShopOrder) -> bool:
    return await refund_status(scene, order) == "succeeded"
