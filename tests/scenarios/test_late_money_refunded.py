"""Money arrives for an order that was closed, and the account gives it back: once, whatever dies on the way."""

from pathlib import Path

import pytest

from simulator.kernel.snapshot import LedgerRefund
from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario, add_account, number_of
from tests.scenarios.test_crash_between_steps import killed_at
from tests.servers import eventually

STEPS = {
    "claimed": "worker.jobs.refund_scheduled:before",
    "leased": "storage.postgres.refunds.claim:after",
    "before_asking": "channels.sandbox.adapter.Sandbox.refund_payment:before",
    "after_answer": "channels.sandbox.adapter.Sandbox.refund_payment:after",
    "before_commit": "flows.refund.commit_decision:before",
    "after_commit_before_arming": "flows.refund.commit_decision:after",
    "before_finishing_the_job": "storage.redis.job_claims.JobClaims.end:before",
}


async def late_money(scenario: Scenario, account: str) -> ShopOrder:
    """An order that was closed, and whose money is on its way."""
    order = await scenario.place(account)
    await closed_with_money(scenario, order)
    await eventually(lambda: _is_requested(scenario, order))
    return order


async def closed_with_money(scenario: Scenario, order: ShopOrder) -> None:
    await scenario.close(order)
    await scenario.until("closed", order)
    await scenario.pay_late(order)


async def refunds(scenario: Scenario, order: ShopOrder) -> list[LedgerRefund]:
    """The rows of this order in the channel's own ledger."""
    numbers = {payment.out_trade_no for payment in order.payments}
    return [refund for refund in (await scenario.ledger()).refunds if refund.out_trade_no in numbers]


async def refund_status(scenario: Scenario, order: ShopOrder) -> str:
    sql = "SELECT string_agg(status, ',') FROM refunds WHERE order_no = $1"
    return str(await scenario.db.fetchval(sql, order.order_no))


async def has_gone_back(scenario: Scenario, order: ShopOrder) -> None:
    """Here, in the channel's ledger, and at the merchant: once."""
    await eventually(lambda: _is_refunded(scenario, order))
    await eventually(lambda: scenario.was_notified(order, "order.refunded"))
    [made] = await refunds(scenario, order)
    assert (made.amount, made.status) == ((await scenario.ledger_payment(order)).amount, "succeeded")
    assert await scenario.status(order) == "closed"
    assert await scenario.cases(number_of(order)) == []
    deliveries = [delivery for delivery in await scenario.deliveries(order) if delivery.type == "order.refunded"]
    assert len({delivery.webhook_id for delivery in deliveries}) == 1


async def test_late_money_goes_back_and_the_merchant_hears_of_it(scenario: Scenario) -> None:
    order = await late_money(scenario, "refund")
    await has_gone_back(scenario, order)
    assert await scenario.was_notified(order, "order.paid_late")
    assert 'data-status="refunded"' in (await scenario.http.get(order.order_page)).text


async def test_a_channel_that_takes_its_time_and_loses_its_answers_gives_back_once(scenario: Scenario) -> None:
    order = await scenario.place("refund")
    await scenario.faults(affected=["refund"], cut=1.0, refund_settles_s=2.0)
    await closed_with_money(scenario, order)
    await has_gone_back(scenario, order)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
async def test_worker_killed_in_the_middle_of_a_refund(kill_scenario: Scenario, step: str, tmp_path: Path) -> None:
    """A worker is killed beside another one: whatever calls the channel got, the money goes back once."""
    scenario = kill_scenario
    await _with_account(scenario)
    async with scenario.frozen_workers():
        order = await late_money(scenario, "refund")
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await has_gone_back(scenario, order)


async def test_all_workers_killed_while_the_channel_is_processing_a_refund(kill_scenario: Scenario) -> None:
    scenario = kill_scenario
    await _with_account(scenario)
    await scenario.faults(refund_settles_s=5.0)
    order = await scenario.place("refund")
    await closed_with_money(scenario, order)
    await eventually(lambda: _is_processing(scenario, order))
    async with scenario.no_workers():
        pass

    await has_gone_back(scenario, order)


async def _with_account(scenario: Scenario) -> None:
    await add_account(scenario.stack, scenario.db, "refund", late_policy="refund")


async def _is_requested(scenario: Scenario, order: ShopOrder) -> bool:
    return await refund_status(scenario, order) != "None"


async def _is_processing(scenario: Scenario, order: ShopOrder) -> bool:
    return await refund_status(scenario, order) == "processing"


async def _is_refunded(scenario: Scenario, order: ShopOrder) -> bool:
    return await refund_status(scenario, order) == "succeeded"
