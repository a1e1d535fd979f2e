"""Callbacks of a merchant's other systems at all five channels: refused, they would end with the channel giving up on
us, and true callbacks would be lost too. Acknowledged and forgotten, money that becomes ours would be lost.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from core.order import CaseReason
from flows.place import new_number
from storage.postgres.callbacks import find_counts
from tests.scenarios.five_channels import CHANNELS, CURRENCIES, place_at
from tests.scenarios.scenario import Scenario, add_account, number_of
from tests.servers import eventually

IS_HINT = "paypal"
"""Its signature covers a checksum only: nothing that a callback says of itself opens a case."""

HELD = {"sale", "other_form", "unreadable"}


async def send(scenario: Scenario, account: str, number: str) -> dict[str, int]:
    """Send callbacks of other systems to the account; return nodrop's statuses by what each is about."""
    url = f"{scenario.stack.api_url}/callbacks/{account}"
    body = {"account": account, "number": number, "callback_url": url}
    statuses: dict[str, int] = await scenario.stack.control("POST", "channel", "/control/elsewhere", body)
    return statuses


async def inbox(scenario: Scenario, account: str) -> list[dict[str, Any]]:
    sql = """SELECT out_trade_no, evidence, length(body) AS size, handled_at IS NOT NULL AS is_handled
               FROM callbacks WHERE channel_account = $1 AND received_at > now() - interval '1 minute'"""
    return [dict(row) for row in await scenario.db.fetch(sql, account)]


async def counted(scenario: Scenario, account: str) -> dict[str, int]:
    return {each.reason: each.count for each in await find_counts(scenario.db) if each.account == account}


async def end_the_day(scenario: Scenario, account: str) -> None:
    sql = """UPDATE callbacks SET kept_until = now(), due_at = now() - interval '1 minute', arm_no = arm_no + 1
              WHERE channel_account = $1 AND handled_at IS NULL AND dead_at IS NULL"""
    await scenario.db.execute(sql, account)


async def is_empty(scenario: Scenario, account: str) -> bool:
    sql = "SELECT count(*) FROM callbacks WHERE channel_account = $1 AND handled_at IS NULL AND dead_at IS NULL"
    return bool(await scenario.db.fetchval(sql, account) == 0)


async def open_account(scenario: Scenario, name: str, channel: str, **config: Any) -> None:
    """Add an account, and wait until the process that gets its callbacks knows it. PayPal names the address of its
    certificates once it was called.
    """
    await add_account(scenario.stack, scenario.db, name, channel=channel, **config)
    await eventually(partial(is_known, scenario, name))
    if channel == "paypal":
        await scenario.place(name, currency=CURRENCIES[channel], expires_in_s=3)


async def is_known(scenario: Scenario, name: str) -> bool:
    """A callback makes the process look for the account. Its response does not tell a stranger; the metrics do."""
    await scenario.deliver({}, b"", account=name)
    headers = {"authorization": f"Bearer {scenario.stack.api_key}"}
    metrics = await scenario.http.get(f"{scenario.stack.api_url}/metrics", headers=headers)
    return f'nodrop_breaker_open{{account="{name}"' in metrics.text


@pytest.mark.parametrize("channel", CHANNELS)
async def test_no_genuine_callback_of_another_system_is_refused_and_money_is_stored(
    scenario: Scenario, channel: str
) -> None:
    """Each got a 503 until the channel gave up; Stripe then disables the endpoint."""
    account = f"{channel}-shared"
    await open_account(scenario, account, channel)

    statuses = await send(scenario, account, "ORD #1001")

    assert set(statuses.values()) == {200}, statuses
    assert len(await inbox(scenario, account)) == len(HELD & set(statuses))
    ignored = dict.fromkeys({"no_money", "other_world"} & set(statuses), 1)
    assert await counted(scenario, account) == ignored
    cases = await scenario.cases_at(account)
    assert cases == ([] if channel == IS_HINT else [CaseReason.CALLBACK_UNREADABLE])

    await end_the_day(scenario, account)
    await eventually(partial(is_empty, scenario, account))
    assert (await counted(scenario, account))["unknown"] >= 1
    assert await scenario.cases_at(account) == cases


@pytest.mark.parametrize("channel", CHANNELS)
async def test_unknown_money_is_a_case_after_a_day_where_it_can_be_ours(scenario: Scenario, channel: str) -> None:
    """A number of our form at any account, and any number at an account where nobody else sells."""
    await open_account(scenario, f"{channel}-open", channel)
    await open_account(scenario, f"{channel}-alone", channel, exclusive=True)
    statuses = await send(scenario, f"{channel}-open", new_number(datetime.now(UTC)))
    statuses |= await send(scenario, f"{channel}-alone", "ORD #1001")
    assert set(statuses.values()) == {200}, statuses

    for account in (f"{channel}-open", f"{channel}-alone"):
        await end_the_day(scenario, account)
        await eventually(partial(is_empty, scenario, account))
        reasons = set(await scenario.cases_at(account))
        assert (CaseReason.UNKNOWN_ORDER in reasons) is (channel != IS_HINT), (account, reasons)


async def test_true_callbacks_still_pay_beside_those_of_other_systems(scenario: Scenario) -> None:
    for channel in CHANNELS:
        order = await place_at(scenario, channel, currency=CURRENCIES[channel])
        await scenario.put_off(order)
        assert set((await send(scenario, channel, "1001")).values()) == {200}
        await scenario.pay(order, "none")
        await scenario.until("paid", order)
        assert await scenario.cases(number_of(order)) == []
        await end_the_day(scenario, channel)
        await eventually(partial(is_empty, scenario, channel))
