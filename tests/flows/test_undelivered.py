"""What a channel could not call back about is asked about, and what accounts verify with is renewed in time.

Stripe is the channel that lists undelivered events, WeChat Pay the one whose certificates are fetched.
"""

from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from core.account import AccountConfig
from core.evidence import Source
from core.order import OrderState, OrderStatus
from flows.place import PaymentRequest, place_order
from flows.undelivered import ask_undelivered
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key
from simulator.kernel.simulation import Simulation
from storage.postgres import pending
from storage.postgres.accounts import enable_account, put_account
from storage.postgres.orders import timeline
from tests.flows.conftest import FlowHarness, order_terms


class Elsewhere:
    """An account at another channel than the harness's."""

    def __init__(self, harness: FlowHarness, channel: str, name: str, **credentials: Any) -> None:
        self.harness = harness
        self.name = name
        self._far_side: Simulation = harness.far_side
        opened = self._far_side.channels[channel].open_account(name, f"http://127.0.0.1:9/callbacks/{name}")
        self._far_side.accounts[opened.account.merchant_id] = opened.account
        self.merchant_id = opened.account.merchant_id
        self.config = AccountConfig(
            name=name,
            channel=channel,
            base_url=self._far_side.urls[channel],
            credentials=opened.credentials | credentials,
        )

    async def add(self) -> "Elsewhere":
        await put_account(self.harness.resources.db, self.harness.sealer, self.config)
        return self

    async def placed(self) -> OrderState:
        terms, payment = order_terms(currency="USD"), PaymentRequest(account=self.name)
        state = (await place_order(self.harness.resources, terms, payment, expires_in_s=3600)).state
        assert state.payments[0].checkout is not None
        return state

    def pay(self, state: OrderState, callback: str = "lost") -> None:
        key = Key(self.merchant_id, state.payments[0].out_trade_no)
        self._far_side.pay(key, AtFault(callback=callback))


@pytest.fixture
def stripe(harness: FlowHarness) -> Elsewhere:
    return Elsewhere(harness, "stripe", "cards")


async def test_a_payment_whose_callback_was_not_delivered_becomes_paid_by_its_list(stripe: Elsewhere) -> None:
    await stripe.add()
    lost, open_still = await stripe.placed(), await stripe.placed()
    stripe.pay(lost)
    assert await ask_undelivered(stripe.harness.resources) == 1
    paid = await stripe.harness.state(lost)
    assert paid.order.status is OrderStatus.PAID
    entries = await timeline(stripe.harness.resources.db, paid.order.order_no)
    assert Source.UNDELIVERED in [entry.by for entry in entries if entry.kind == "paid"]
    assert (await stripe.harness.state(open_still)).order.status is OrderStatus.PAYING
    assert await ask_undelivered(stripe.harness.resources) == 0, "what is paid is not asked about again"


async def test_a_listed_event_is_only_a_reason_to_ask(stripe: Elsewhere) -> None:
    """What the list says is not what becomes of the payment: the answer to the query is."""
    await stripe.add()
    state = await stripe.placed()
    stripe.pay(state)
    number = state.payments[0].out_trade_no
    stripe.harness.far_side.faults.force(number, AtFault(callback="lost", call="wrong_amount_in_query"))
    await ask_undelivered(stripe.harness.resources)
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAYING
    assert "amount_mismatch" in await stripe.harness.cases(state.order.order_no)


async def test_a_rate_of_one_a_second_is_enough(stripe: Elsewhere) -> None:
    """Fetching the list uses up the first second, and asking about each payment another."""
    stripe.config = replace(stripe.config, rate_per_s=1)
    await stripe.add()
    state = await stripe.placed()
    stripe.pay(state)
    assert await ask_undelivered(stripe.harness.resources) == 1
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAID


async def test_a_payment_that_somebody_is_asking_about_is_left_to_them(stripe: Elsewhere) -> None:
    await stripe.add()
    state = await stripe.placed()
    stripe.pay(state)
    assert await pending.claim(stripe.harness.resources.db, state.payments[0].key, 20.0) is not None
    assert await ask_undelivered(stripe.harness.resources) == 0
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAYING


async def test_events_of_payments_that_are_not_ours_are_passed_over(stripe: Elsewhere) -> None:
    """Another system may use the same account at the channel."""
    await stripe.add()
    other = await stripe.placed()
    stripe.pay(other)
    await stripe.harness.resources.db.execute("TRUNCATE orders, payments, pending CASCADE")
    assert await ask_undelivered(stripe.harness.resources) == 0


async def test_one_account_that_cannot_be_asked_does_not_keep_the_others_from_it(stripe: Elsewhere) -> None:
    await stripe.add()
    await put_account(stripe.harness.resources.db, stripe.harness.sealer, _gone(stripe, "gone"))
    state = await stripe.placed()
    stripe.pay(state)
    with capture_logs() as lines:
        assert await ask_undelivered(stripe.harness.resources) == 1
    (told,) = [line for line in lines if line["event"] == "undelivered_not_fetched"]
    assert (told["account"], told["reason"]) == ("gone", "ChannelUnavailable")
    assert (await stripe.harness.state(state)).order.status is OrderStatus.PAID


async def test_an_account_that_is_switched_off_is_not_asked_for_its_list(stripe: Elsewhere) -> None:
    await stripe.add()
    state = await stripe.placed()
    stripe.pay(state)
    await enable_account(stripe.harness.resources.db, "cards", enabled=False)
    stripe.harness.resources.accounts._read_at = -60.0
    assert await ask_undelivered(stripe.harness.resources) == 0
    assert stripe.harness.calls("undelivered") == 0


def _gone(stripe: Elsewhere, name: str) -> AccountConfig:
    """Nobody listens there."""
    credentials = stripe.config.credentials
    return AccountConfig(name=name, channel="stripe", base_url="http://127.0.0.1:9", credentials=credentials)


# -- keeping current ---------------------------------------------------------------------------------------------------


async def test_certificates_are_fetched_before_a_callback_needs_them_and_not_again(harness: FlowHarness) -> None:
    account = await Elsewhere(harness, "wechatpay", "cn", public_keys={}, download_certificates=True).add()
    assert await harness.resources.accounts.keep_current() == 0
    assert harness.calls("certificates") == 1
    assert await harness.resources.accounts.keep_current() == 0
    assert harness.calls("certificates") == 1, "twice a day is enough"
    assert account.name == "cn"


async def test_an_account_that_cannot_be_renewed_does_not_keep_the_others_from_it(harness: FlowHarness) -> None:
    gone = Elsewhere(harness, "wechatpay", "gone", public_keys={}, download_certificates=True)
    config = AccountConfig(
        name="gone", channel="wechatpay", base_url="http://127.0.0.1:9", credentials=gone.config.credentials
    )
    await put_account(harness.resources.db, harness.sealer, config)
    await Elsewhere(harness, "wechatpay", "cn", public_keys={}, download_certificates=True).add()
    with capture_logs() as lines:
        assert await harness.resources.accounts.keep_current() == 1
    assert harness.calls("certificates") == 1
    (told,) = [line for line in lines if line["event"] == "account_not_kept_current"]
    assert (told["account"], told["reason"]) == ("gone", "ChannelUnavailable")
