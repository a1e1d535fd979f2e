"""Money for an order that is closed already, at each of the five channels: kept or given back as the account says."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.five_channels import BY_CALLBACK, CHANNELS, add_accounts, late_money, told_once
from tests.scenarios.scenario import Scene, add_account, number_of
from tests.scenarios.test_crash_between_steps import dying
from tests.scenarios.test_late_money_refunded import has_gone_back
from tests.servers import eventually

SETTLES = {"settles_after_close": 1.0, "settle_after_s": 0.3}

SLOW_AND_CUT = {"affected": ["refund"], "cut": 1.0, "refund_settles_s": 1.0}

REFUNDING = tuple(channel for channel in CHANNELS if channel != "sandbox")
"""The sandbox has a scenario of its own, with more steps."""


async def test_late_money_pays_the_order_and_is_a_case_where_it_is_accepted(scene: Scene) -> None:
    await scene.faults(**SETTLES)
    placed = await asyncio.gather(*(late_money(scene, channel) for channel in CHANNELS))

    await scene.until("paid", *placed)

    for order in placed:
        assert await scene.cases(number_of(order)) == ["paid_late"]
        assert await scene.paid_by(order) in BY_CALLBACK
    await told_once(scene, *placed)


@pytest.mark.parametrize("fault", [{}, SLOW_AND_CUT], ids=["at once", "slowly, and its answers are cut off"])
async def test_late_money_goes_back_once_at_every_channel_where_it_is_refunded(
    scene: Scene, fault: dict[str, Any]
) -> None:
    await add_accounts(scene, "{}-refund", late_policy="refund")
    await scene.faults(**SETTLES, **fault)
    placed = await asyncio.gather(*(late_money(scene, channel, f"{channel}-refund") for channel in CHANNELS))

    for order in placed:
        await has_gone_back(scene, order)

    await told_once(scene, *placed, type_="order.refunded")


@pytest.mark.parametrize("channel", REFUNDING)
async def test_worker_killed_after_a_refund_was_asked_for(dying_scene: Scene, channel: str, tmp_path: Path) -> None:
    """The channel has given the money back, and nobody here knows that: it goes back once."""
    scene, account = dying_scene, f"{channel}-refund"
    await add_account(scene.stack, scene.db, account, channel=channel, late_policy="refund")
    await scene.faults(**SETTLES)
    async with scene.frozen_workers():
        order = await late_money(scene, channel, account)
        await eventually(partial(_is_requested, scene, order.order_no))
        async with dying(scene, "worker", "flows.refund.commit_decision:before", tmp_path / "worker.log"):
            pass

    await has_gone_back(scene, order)


async def _is_requested(scene: Scene, order_no: str) -> bool:
    return bool(await scene.db.fetchval("SELECT count(*) FROM refunds WHERE order_no = $1", order_no))
