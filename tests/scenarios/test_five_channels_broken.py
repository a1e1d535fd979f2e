"""Processes die, Redis forgets and Postgres restarts while payments of all five channels are under way."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from signal import SIGKILL

import httpx
import pytest

from tests.scenarios.five_channels import (
    BY_CALLBACK,
    Orders,
    add_accounts,
    calls_about,
    ledger_status,
    notified_once,
    of_each,
    pay_all,
    place_at,
    place_at_all,
    tally,
)
from tests.scenarios.router import Router
from tests.scenarios.scenario import Scenario
from tests.scenarios.test_crash_between_steps import killed_at
from tests.servers import Process, eventually

CAPTURE = {
    "decided_before_asking": "channels.paypal.adapter.Paypal.capture_payment:before",
    "after_the_channel_has_captured": "channels.paypal.adapter.Paypal.capture_payment:after",
}
UPKEEP = {
    "renewing_certificates": "channels.wechatpay.adapter.WechatPay.keep_current:after",
    "fetching_a_statement": "channels.alipay.adapter.Alipay.fetch_statement:before",
}
SINCE_YESTERDAY = "UPDATE accounts SET created_at = now() - interval '1 day' WHERE name = 'alipay'"
"""An account has no statement of a day on which it was not there."""


@pytest.mark.parametrize("step", CAPTURE.values(), ids=CAPTURE.keys())
async def test_worker_killed_between_a_capture_and_its_query(
    kill_scenario: Scenario, step: str, tmp_path: Path
) -> None:
    """The buyer has approved and left, and the process that captured was killed."""
    scenario = kill_scenario
    await add_accounts(scenario, "{}")
    async with scenario.frozen_workers():
        order = await place_at(scenario, "paypal")
        await scenario.pay(order, "lost")
        async with killed_at(scenario, "worker", step, tmp_path / "worker.log"):
            pass

    await scenario.until("paid", order)


async def test_web_process_killed_between_a_capture_and_its_query(
    kill_scenario: Scenario, router: Router, tmp_path: Path
) -> None:
    """The process is killed while the buyer returns from PayPal; the money was captured."""
    scenario = kill_scenario
    await add_accounts(scenario, "{}")
    async with scenario.frozen_workers():
        order = await place_at(scenario, "paypal")
        await scenario.pay(order, "lost")
        async with killed_at(scenario, "api", CAPTURE["after_the_channel_has_captured"], tmp_path / "api.log", router):
            with pytest.raises(httpx.RemoteProtocolError):
                await scenario.return_from_channel(order)
        assert (await ledger_status(scenario, order), await scenario.status(order)) == ("paid", "paying")

    await scenario.until("paid", order)
    assert (await calls_about(scenario, order)).count("capture") == 1


@pytest.mark.parametrize("step", UPKEEP.values(), ids=UPKEEP.keys())
async def test_worker_killed_during_its_upkeep(kill_scenario: Scenario, step: str, tmp_path: Path) -> None:
    """It belongs to no order, and no order is lost."""
    scenario = kill_scenario
    await add_accounts(scenario, "{}")
    fetches = step == UPKEEP["fetching_a_statement"]
    environ = scenario.stack.environ | {"RECONCILE_AT": "00:00" if fetches else "off"}
    async with scenario.frozen_workers():
        # The day's statement is fetched once: by the worker that is killed then, and by no other.
        if fetches:
            await scenario.db.execute(SINCE_YESTERDAY)
        orders = await place_at_all(scenario)
        await pay_all(scenario, orders)
        await scenario.db.execute("DELETE FROM duties")  # due for the worker that is to be killed
        arguments = ("worker", "--at", step)
        async with Process("tests.scenarios.kill_at_step", *arguments, env=environ, log=tmp_path / "log") as worker:
            assert await worker.wait() == -SIGKILL

    await scenario.until("paid", *orders.values())


async def test_payments_at_all_channels_survive_a_flush_of_redis(scenario: Scenario) -> None:
    orders = await place_at_all(scenario)
    await pay_all(scenario, orders)
    await scenario.stack.flush_redis()

    await scenario.until("paid", *orders.values())


async def test_postgres_restarts_while_callbacks_of_all_channels_arrive(scenario: Scenario) -> None:
    """No query could tell: what is not stored is not acknowledged, and comes in all the same."""
    orders = await place_at_all(scenario)
    await scenario.put_off(*orders.values())
    async with scenario.no_postgres():
        await pay_all(scenario, orders, "none")
        await eventually(partial(_all_were_refused, scenario, orders))

    await scenario.until("paid", *orders.values())

    assert {await scenario.paid_by(order) for order in orders.values()} <= BY_CALLBACK
    await notified_once(scenario, *orders.values())


async def _all_were_refused(scenario: Scenario, orders: Orders) -> bool:
    """Whether a callback of each has come and was not acknowledged; none may be."""
    tallies = (await of_each(orders, partial(tally, scenario))).values()
    assert not any(tally.acknowledged for tally in tallies)
    return all(tally.refused for tally in tallies)
