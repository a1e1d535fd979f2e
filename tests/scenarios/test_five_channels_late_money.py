"""Money for an order that is closed already, at each of the five channels: kept or given back as the account says."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.five_channels import BY_CALLBACK, CHANNELS, add_accounts, late_money, notified_once
from tests.scenarios.scenario import Scenario, add_account, number_of
from tests.scenarios.test_crash_between_steps import killed_at
from tests.scenarios.test_late_money_refunded import has_gone_back
from tests.servers import eventually

SLOW_AND_CUT = {"affected": ["refund"], "cut": 1.0, "refund_settles_s": 1.0}

REFUNDING = tuple(channel for channel in CHANNELS if channel != "sandbox")
"""The sandbox has a scenario of its own, with more steps."""


async def test_late_money_pays_the_order_and_is_a_case_where_it_is_accepted(scenario: Scenario) -> None:
    placed = await asyncio.gather(*(late_money(scenario, channel) for channel in CHANNELS))

    await scenario.until("paid", *placed)

    for order in placed:
        assert await scenario.cases(number_of(order)) == ["paid_late"]
        assert await scenario.paid_by(order) in {*BY_CALLBACK, "query"}  # a closed payment is asked again, too
    await notified_once(scenario, *placed)


@pytest.mark.parametrize("fault", [{}, SLOW_AND_CUT], ids=["at once", "slowly, and its answers are cut off"])
async def test_late_money_goes_back_once_at_every_channel_where_it_is_refunded(
    scenario: Scenario, fault: dict[str, Any]
) -> None:
    await add_accounts(scenario, "{}-refund", late_policy="refund")
    await scenario.faults(**fault)
    placed = await asyncio.gather(*(late_money(scenario, channel, f"{channel}-refund") for channel in CHANNELS))

    for order in placed:
        await has_gone_back(scenario, order)

    await notified_once(scenario, *placed, type_="order.refunded")


@pytest.mark.parametrize("channel", REFUNDING)
async def test_worker_killed_after_a_refund_was_asked_for(
    kill_scenario: Scenario, channel: str, tmp_path: Path
) -> None:
    """The channel has refunded, and the worker was killed before it stored that: the money goes back once."""
    scenario, account = kill_scenario, f"{channel}-refund"
    await add_account(scenario.stack, scenario.db, account, channel=channel, late_policy="refund")
    async with scenario.frozen_workers():
        order = await late_money(scenario, channel, account)
        await eventually(partial(_is_requested, scenario, order.order_no))
        async with killed_at(scenario, "worker", "flows.refund.commit_decision:before", tmp_path / "worker.log"):
            pass

    await has_gone_back(scenario, order)


async def _is_requested(scenario: Scenario, order_no: str) -> bool:
    return bool(await scenario.db.fetchval("SELECT count(*) FROM refunds WHERE order_no = $1", order_no))
