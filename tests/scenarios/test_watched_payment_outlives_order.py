"""A payment that another system created is watched without an end. The end of its order is no end of the payment: its
channel takes money for days, and the callback about it may be lost.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.base import Create
from channels.transport import Transport
from core.order import Payment, PaymentStatus
from flows.place import new_number
from tests.scenarios.five_channels import CHANNELS, CURRENCIES
from tests.scenarios.scenario import AMOUNT, Scenario
from tests.servers import eventually

BY_QUERY = {"query", "sweep"}
OVERDUE_S = 1.0
"""Due for longer than `SWEEP_GRACE_S`, so that the sweep takes it at once."""

MARGIN_S = 0.5
"""`PAYABLE_MARGIN_S` of the stack."""


@pytest.mark.parametrize("channel", CHANNELS)
async def test_money_after_the_end_of_the_order_is_found(scenario: Scenario, channel: str) -> None:
    payment = await created_elsewhere(scenario, channel)
    number = payment.out_trade_no
    order_no = await watched(scenario, payment)
    await scenario.until("closed", order_no)
    await eventually(partial(has_ended, scenario, order_no))
    await scenario.make_due(order_no, ago_s=OVERDUE_S)
    await eventually(partial(was_asked_after_its_end, scenario, order_no))
    assert await payment_status(scenario, number) == "open"

    await paid_elsewhere(scenario, payment)

    await scenario.until("paid", order_no)
    assert await scenario.paid_by(order_no) in BY_QUERY
    assert await scenario.cases(number) == ["paid_late"]


async def test_a_watched_payment_ends_with_the_end_that_its_channel_names(scenario: Scenario) -> None:
    payment = await created_elsewhere(scenario, "sandbox", ends_in_s=3)
    order_no = await watched(scenario, payment)
    await scenario.until("closed", order_no)

    async def is_closed() -> bool:
        await scenario.make_due(order_no, ago_s=OVERDUE_S)
        return await payment_status(scenario, payment.out_trade_no) == "closed"

    await eventually(is_closed)


async def created_elsewhere(scenario: Scenario, channel: str, *, ends_in_s: float = 7200) -> Payment:
    """Create a payment as another system of the merchant, which keeps the channel's reference."""
    now = datetime.now(UTC)
    payment = Payment(
        channel_account=channel,
        out_trade_no=new_number(datetime.now(UTC)),
        order_no="",
        attempt_no=1,
        amount=AMOUNT,
        currency=CURRENCIES[channel],
        status=PaymentStatus.OPEN,
        payable_until=now + timedelta(seconds=ends_in_s),
        created_at=now,
    )
    create = Create(
        payment=payment,
        subject="Tea, 250 g",
        callback_url=f"{scenario.stack.api_url}/callbacks/{channel}",
        return_url=scenario.stack.merchant_url,
    )
    async with Transport(timeout_s=60) as transport:
        created = await open_channel(await scenario.stack.open_account(channel), transport).create_payment(create)
    if channel == "alipay":  # without a scan there is no trade yet
        await scenario.http.get(created.checkout.value, follow_redirects=True)
    return replace(payment, channel_reference=created.channel_reference)


async def watched(scenario: Scenario, payment: Payment) -> str:
    """Place an order of one second that watches this payment; return its number."""
    watch = {"out_trade_no": payment.out_trade_no, "channel_reference": payment.channel_reference}
    terms = scenario.terms(account=payment.channel_account, currency=payment.currency, expires_in_s=1, watch=watch)
    placed = await scenario.post("/v1/orders", terms)
    assert placed.status_code == 201, placed.text
    return str(placed.json()["order_no"])


async def paid_elsewhere(scenario: Scenario, payment: Payment) -> None:
    """Pay as the buyer; where the buyer only agrees, the other system captures. The callback is lost."""
    number = payment.out_trade_no
    await scenario.stack.control(
        "POST", "channel", f"/control/payments/{number}/pay", {"at_fault": {"callback": "lost"}}
    )
    async with Transport(timeout_s=60) as transport:
        account = await scenario.stack.open_account(payment.channel_account)
        await open_channel(account, transport).capture_payment(payment)


async def payment_status(scenario: Scenario, number: str) -> str:
    return str(await scenario.db.fetchval("SELECT status FROM payments WHERE out_trade_no = $1", number))


async def has_ended(scenario: Scenario, order_no: str) -> bool:
    """Return whether the margin after the end of the order has passed."""
    sql = "SELECT now() > expires_at + make_interval(secs => $2) FROM orders WHERE order_no = $1"
    return bool(await scenario.db.fetchval(sql, order_no, MARGIN_S))


async def was_asked_after_its_end(scenario: Scenario, order_no: str) -> bool:
    """Return whether the channel was asked after the end of the order and the margin."""
    sql = """SELECT count(*) FROM observations b JOIN orders o USING (order_no)
              WHERE order_no = $1 AND b.at > o.expires_at + make_interval(secs => $2)"""
    return bool(await scenario.db.fetchval(sql, order_no, MARGIN_S))
