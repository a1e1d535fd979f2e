"""Processes die, Redis forgets and Postgres restarts while payments of all five channels are under way."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.scenarios.everywhere import CHANNELS, add_accounts, calls_about, pay_everywhere, place_at, place_everywhere
from tests.scenarios.router import Router
from tests.scenarios.scene import Scene
from tests.scenarios.test_crash_between_steps import dying

CAPTURE = {
    "decided_before_asking": "channels.paypal.Paypal.capture_payment:before",
    "after_the_channel_has_captured": "channels.paypal.Paypal.capture_payment:after",
}


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
    order = await place_at(scene, "paypal")
    await scene.put_off(order)
    await scene.pay(order, "lost")
    async with dying(scene, "api", CAPTURE["after_the_channel_has_captured"], tmp_path / "api.log", router):
        with pytest.raises(httpx.RemoteProtocolError):
            await scene.come_back(order)
    assert await scene.status(order) == "paying"

    await scene.come_back(order)

    await scene.make_due(order)
    await scene.until("paid", order)
    assert (await calls_about(scene, order)).count("capture") == 1


async def test_worker_killed_while_it_renews_certificates(dying_scene: Scene, tmp_path: Path) -> None:
    scene = dying_scene
    await add_accounts(scene, "{}")
    async with scene.frozen_workers():
        orders = await place_everywhere(scene)
        await pay_everywhere(scene, orders)
        step = "channels.wechatpay.WechatPay.keep_current:after"
        async with dying(scene, "worker", step, tmp_path / "worker.log"):
            pass

    await scene.until("paid", *orders.values())


async def test_payments_at_all_channels_survive_a_flush_of_redis(scene: Scene) -> None:
    orders = await place_everywhere(scene)
    await pay_everywhere(scene, orders)
    await scene.stack.flush_redis()

    await scene.until("paid", *orders.values())


async def test_postgres_restarts_while_callbacks_of_all_channels_arrive(scene: Scene) -> None:
    """What was not stored was not acknowledged, and comes again or is found by its query."""
    several = [await place_everywhere(scene) for _ in range(4)]
    orders = [order for orders in several for order in orders.values()]
    paying = [asyncio.create_task(pay_everywhere(scene, orders, "none")) for orders in several]
    await asyncio.to_thread(scene.stack.postgres.restart)
    await asyncio.gather(*paying)

    await scene.until("paid", *orders)
