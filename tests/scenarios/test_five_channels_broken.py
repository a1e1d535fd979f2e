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
    of_each,
    pay_everywhere,
    place_at,
    place_everywhere,
    tally,
    there,
    told_once,
)
from tests.scenarios.router import Router
from tests.scenarios.scenario import Scene
from tests.scenarios.test_crash_between_steps import dying
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
async def test_worker_killed_between_a_capture_and_its_query(dying_scene: Scene, step: str, tmp_path: Path) -> None:
    """The buyer has agreed and gone, and whoever had the money taken is gone too."""
    scene = dying_scene
    await add_accounts(scene, "{}")
    async with scene.frozen_workers():
        order = await place_at(scene, "paypal")
        await scene.pay(order, "lost")
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await scene.until("paid", order)


async def test_web_process_killed_between_a_capture_and_its_query(
    dying_scene: Scene, router: Router, tmp_path: Path
) -> None:
    """The buyer comes back from PayPal and finds nobody; the money has been taken."""
    scene = dying_scene
    await add_accounts(scene, "{}")
    async with scene.frozen_workers():
        order = await place_at(scene, "paypal")
        await scene.pay(order, "lost")
        async with dying(scene, "api", CAPTURE["after_the_channel_has_captured"], tmp_path / "api.log", router):
            with pytest.raises(httpx.RemoteProtocolError):
                await scene.come_back(order)
        assert (await there(scene, order), await scene.status(order)) == ("paid", "paying")

    await scene.until("paid", order)
    assert (await calls_about(scene, order)).count("capture") == 1


@pytest.mark.parametrize("step", UPKEEP.values(), ids=UPKEEP.keys())
async def test_worker_killed_during_its_upkeep(dying_scene: Scene, step: str, tmp_path: Path) -> None:
    """Which is nobody's order, and costs none."""
    scene = dying_scene
    await add_accounts(scene, "{}")
    await scene.db.execute(SINCE_YESTERDAY)
    environ = scene.stack.environ | {"RECONCILE_AT": "00:00"}
    async with scene.frozen_workers():
        orders = await place_everywhere(scene)
        await pay_everywhere(scene, orders)
        arguments = ("worker", "--at", step)
        async with Process("tests.scenarios.crashing", *arguments, env=environ, log=tmp_path / "log") as worker:
            assert await worker.wait(15) == -SIGKILL

    await scene.until("paid", *orders.values())


async def test_payments_at_all_channels_survive_a_flush_of_redis(scene: Scene) -> None:
    orders = await place_everywhere(scene)
    await pay_everywhere(scene, orders)
    await scene.stack.flush_redis()

    await scene.until("paid", *orders.values())


async def test_postgres_restarts_while_callbacks_of_all_channels_arrive(scene: Scene) -> None:
    """No query could tell: what is not stored is not acknowledged, and comes in all the same."""
    orders = await place_everywhere(scene)
    await scene.put_off(*orders.values())
    async with scene.no_postgres():
        await pay_everywhere(scene, orders, "none")
        await eventually(partial(_all_were_refused, scene, orders), 20)

    await scene.until("paid", *orders.values())

    assert {await scene.paid_by(order) for order in orders.values()} <= BY_CALLBACK
    await told_once(scene, *orders.values())


async def _all_were_refused(scene: Scene, orders: Orders) -> bool:
    """Whether a callback of each has come and was not acknowledged; none may be."""
    fared = (await of_each(orders, partial(tally, scene))).values()
    assert not any(told.acknowledged for told in fared)
    return all(told.refused for told in fared)
