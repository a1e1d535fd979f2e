"""Breaks that the oracle must see in a running system: each break is made in Postgres, judged, and rolled back."""

from __future__ import annotations

import re

import pytest

from storage.postgres.address import read_address
from storage.postgres.database import connect
from tests.scenarios.five_channels import is_closed
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

WITHOUT_GUARDS = "SET LOCAL session_replication_role = replica"

UNPAID_AGAIN = """UPDATE orders SET status = 'closed', closed_at = now(), paid_at = NULL, paid_by_account = NULL,
                                    paid_by_out_trade_no = NULL WHERE order_no = '{order_no}'"""

BREAKS = {
    "an open order without a deadline": (
        "DELETE FROM pending WHERE kind = 'deadline' AND order_no = '{order_no}'",
        "I7 no stuck work: the order is paying, and no row ends it at its deadline",
    ),
    "an open payment without a query": (
        "DELETE FROM pending WHERE out_trade_no = '{number}'",
        "I7 no stuck work: sandbox/{number} is open, and no row queries it",
    ),
    "a deadline in a year": (
        "UPDATE pending SET due_at = now() + interval '1 year' WHERE kind = 'deadline' AND order_no = '{order_no}'",
        "s after what it waits for",
    ),
    "a query that is leased for a year": (
        "UPDATE pending SET leased_until = now() + interval '1 year' WHERE out_trade_no = '{number}'",
        "I7 no stuck work: pending is leased for",
    ),
    "an order that is gone": (
        "DELETE FROM orders WHERE order_no = '{order_no}'",
        "I1 no loss: the merchant was told that the order is placed, and it does not exist",
    ),
    "closed here and payable there": (
        "UPDATE payments SET status = 'closed' WHERE out_trade_no = '{number}'",
        "I1 no loss: sandbox/{number} is closed here, and the buyer can still pay it at the channel",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_break_of_an_open_order_is_seen(scenario: Scenario, name: str) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    tampering, sentence = (text.format(order_no=order.order_no, number=number_of(order)) for text in BREAKS[name])
    assert await judged(scenario) == []
    assert [seen for seen in await judged(scenario, tampering) if sentence in seen] != []


async def test_a_late_payment_that_paid_its_order_excuses_no_closed_one(scenario: Scenario) -> None:
    """The case stays open beside the order that it has paid."""
    await scenario.faults(lost=1.0)
    order = await scenario.place()
    await eventually(lambda: is_closed(scenario, order))
    await scenario.put_off(order)  # a query of before the money would answer the refresh
    await scenario.pay_late(order)
    await scenario.refresh(order)
    await scenario.until("paid", order)
    assert await scenario.cases(number_of(order)) == ["paid_late"]
    tampering = UNPAID_AGAIN.format(order_no=order.order_no)
    sentence = f"I1 no loss: sandbox/{number_of(order)} was paid: its order is closed without it, and no case is open"
    assert sentence in await judged(scenario, tampering)


async def test_more_calls_than_the_rate_are_seen(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    await scenario.place()
    with monkeypatch.context() as tampering:
        tampering.setattr(scenario.stack, "rate_per_s", 0)
        [seen] = await judged(scenario)
    assert re.match("I8 bounded load: [0-9]+ calls within one second, 0 allowed m-sandbox", seen)


async def test_a_break_fails_one_scenario_of_a_stack(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    await scenario.place()
    monkeypatch.setattr(scenario, "_seen", set())
    monkeypatch.setattr(scenario.stack, "rate_per_s", 0)
    with pytest.raises(AssertionError, match="I8 bounded load"):
        await scenario.settle()
    await scenario.settle()


async def judged(scenario: Scenario, tampering: str = "") -> list[str]:
    """The oracle's sentences, with this statement run before it and taken back after it."""
    connection = await connect(read_address(scenario.stack.database_url, ""))
    try:
        await connection.execute("BEGIN")
        await connection.execute(f"{WITHOUT_GUARDS}; {tampering}")
        violations = await scenario.violations(connection)
    finally:
        await connection.close()
    return [f"{violation.invariant}: {violation.sentence}" for violation in violations]
