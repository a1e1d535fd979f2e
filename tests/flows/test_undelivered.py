"""Payments in a channel's list of undelivered events are queried; certificates of accounts are renewed in time.

Stripe is the channel that lists undelivered events, WeChat Pay the one whose certificates are fetched.
"""

from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from core.account import AccountConfig
from core.evidence import Source
from core.order import OrderState, OrderStatus, PaymentStatus
from flows.place import PaymentRequest, place_order
from flows.undelivered import ask_undelivered
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key
from simulator.kernel.simulation import Simulation
from storage.postgres import pending
from storage.postgres.accounts import enable_account, put_account
from storage.postgres.orders import timeline
from tests.flows.conftest import FlowHarness, order_terms


class ChannelAccount:
    """An account of the harness at another channel than the sandbox."""

    def __init__(self, harness: FlowHarness, channel: str, name: str, **credentials: Any) -> None:
        self.harness = harness
        self.name = name
        self._simulation: Simulation = harness.simulation
        simulated = self._simulation.channels[channel].open_account(name, f"http://127.0.0.1:9/callbacks/{name}")
        self._simulation.accounts[simulated.account.merchant_id] = simulated.account
        self.merchant_id = simulated.account.merchant_id
        self.config = AccountConfig(
            name=name,
            channel=channel,
            base_url=self._simulation.urls[channel],
            credentials=simulated.credentials | credentials,
        )

    async def add(self) -> "ChannelAccount":
        await put_account(self.harness.resources.db, self.harness.sealer, self.config)
        return self

    async def placed_order(self) -> OrderState:
        terms, payment = order_terms(currency="USD"), PaymentRequest(account=self.name)
        state = (await place_order(self.harness.resources, terms, payment, expires_in_s=3600)).state
        assert state.payments[0].checkout is not None
        return state

    def pay(self, state: OrderState, callback: str = "lost") -> None:
        key = Key(self.merchant_id, state.payments[0].out_trade_no)
        self._simulation.pay(key, AtFault(callback=callback))


@pytest.fixture
def stripe(harness: FlowHarness) -> ChannelAccount:
    return ChannelAccount(harness, "stripe", "cards")


async def test_an_undelivered_event_makes_its_order_paid(stripe: ChannelAccount) -> None:
    await stripe.add()
    lost, unpaid = await stripe.placed_order(), await stripe.placed_order()
    stripe.pay(lost)
    assert await ask_undelivered(stripe.harness.resources) == 1
    paid = await stripe.harness.state(lost)
    assert paid.order.status is OrderStatus.PAID
    entries = await timeline(stripe.harness.resources.db, paid.order.order_no)
    assert Source.UNDELIVERED in [entry.by for entry in entries if entry.kind == "paid"]
    assert (await stripe.harness.state(unpaid)).order.status is OrderStatus.PAYING
    assert await ask_undelivered(stripe.harness.resources) == 0, "a paid payment is not queried again"


async def test_an_undelivered_payment_of_a_closed_order_is_not_ignored(stripe: ChannelAccount) -> None:
    """Money that came after the close, and its callback was lost: the list says so before the next question."""
    await stripe.add()
    state = await stripe.placed_order()
    stripe.pay(state)
    db, order_no = stripe.harness.resources.db, state.order.order_no
    for sql in (
        "UPDATE payments SET status = 'closed' WHERE order_no = $1",
        "UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 WHERE order_no = $1",
        "DELETE FROM pending WHERE order_no = $1",
    ):
        await db.execute(sql, order_no)
    assert await ask_undelivered(stripe.harness.resources) == 1
    assert (await stripe.harness.state(state)).payments[0].status is PaymentStatus.PAID
    assert await stripe.harness.cases(order_no) == ["paid_late"]


async def test_a_listed_event_only_triggers_a_query(stripe: ChannelAccount) -> None:
    """The list pays nothing; only the result of the query does."""
    await stripe.add()
    state = await stripe.placed_order()
    stripe.pay(state)
    number = state.payments[0].out_trade_no
    stripe.harness.simulation.faults.force(number, AtFault(callback="lost", call="wrong_amount_in_query"))
    await ask_undelivered(stripe.harness.resources)
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAYING
    assert "amount_mismatch" in await stripe.harness.cases(state.order.order_no)


async def test_a_rate_of_one_call_a_second_is_enough(stripe: ChannelAccount) -> None:
    """Fetching the list uses the first second, and the query of the payment the next one."""
    stripe.config = replace(stripe.config, rate_per_s=1)
    await stripe.add()
    state = await stripe.placed_order()
    stripe.pay(state)
    assert await ask_undelivered(stripe.harness.resources) == 1
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAID


async def test_a_leased_payment_is_not_queried(stripe: ChannelAccount) -> None:
    await stripe.add()
    state = await stripe.placed_order()
    stripe.pay(state)
    assert await pending.claim(stripe.harness.resources.db, state.payments[0].key, 20.0) is not None
    assert await ask_undelivered(stripe.harness.resources) == 0
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAYING


async def test_events_of_unknown_payments_are_ignored(stripe: ChannelAccount) -> None:
    """Another system may use the same account at the channel."""
    await stripe.add()
    other = await stripe.placed_order()
    stripe.pay(other)
    await stripe.harness.resources.db.execute("TRUNCATE orders, payments, pending CASCADE")
    assert await ask_undelivered(stripe.harness.resources) == 0


async def test_an_unreachable_account_does_not_block_the_lists_of_others(stripe: ChannelAccount) -> None:
    await stripe.add()
    await put_account(stripe.harness.resources.db, stripe.harness.sealer, unreachable_account(stripe, "unreachable"))
    state = await stripe.placed_order()
    stripe.pay(state)
    with capture_logs() as lines:
        assert await ask_undelivered(stripe.harness.resources) == 1
    (line,) = [entry for entry in lines if entry["event"] == "undelivered_not_fetched"]
    assert (line["account"], line["reason"]) == ("unreachable", "ChannelUnavailable")
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAID


async def test_the_list_of_a_disabled_account_is_not_fetched(stripe: ChannelAccount) -> None:
    await stripe.add()
    state = await stripe.placed_order()
    stripe.pay(state)
    await enable_account(stripe.harness.resources.db, "cards", enabled=False)
    stripe.harness.resources.accounts._read_at = -60.0
    assert await ask_undelivered(stripe.harness.resources) == 0
    assert stripe.harness.call_count("undelivered") == 0


def unreachable_account(stripe: ChannelAccount, name: str) -> AccountConfig:
    """An account whose address refuses connections."""
    credentials = stripe.config.credentials
    return AccountConfig(name=name, channel="stripe", base_url="http://127.0.0.1:9", credentials=credentials)


# -- certificates ----------------------------------------------------------------------------------------------------


async def test_certificates_are_fetched_before_a_callback_and_only_once(harness: FlowHarness) -> None:
    account = await ChannelAccount(harness, "wechatpay", "cn", public_keys={}, download_certificates=True).add()
    assert await harness.resources.accounts.keep_current() == 0
    assert harness.call_count("certificates") == 1
    assert await harness.resources.accounts.keep_current() == 0
    assert harness.call_count("certificates") == 1, "twice a day is enough"
    assert account.name == "cn"


async def test_an_unreachable_account_does_not_block_the_certificates_of_others(harness: FlowHarness) -> None:
    unreachable = ChannelAccount(harness, "wechatpay", "unreachable", public_keys={}, download_certificates=True)
    config = AccountConfig(
        name="unreachable",
        channel="wechatpay",
        base_url="http://127.0.0.1:9",
        credentials=unreachable.config.credentials,
    )
    await put_account(harness.resources.db, harness.sealer, config)
    await ChannelAccount(harness, "wechatpay", "cn", public_keys={}, download_certificates=True).add()
    with capture_logs() as lines:
        assert await harness.resources.accounts.keep_current() == 1
    assert harness.call_count("certificates") == 1
    (line,) = [entry for entry in lines if entry["event"] == "account_not_kept_current"]
    assert (line["account"], line["reason"]) == ("unreachable", "ChannelUnavailable")
