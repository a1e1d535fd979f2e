"""A checkout has an end and a payer: asked again, nobody gets a dead link or another buyer's, and nobody pays twice.

The channels are simulated WeChat Pay, which renews checkouts under the same number, and PayPal, which does not.
"""

from datetime import timedelta

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.account import AccountConfig
from core.checkout import Payer
from core.decision import Outcome
from core.errors import InvalidRequest, PaymentUnclear
from core.order import OrderState, OrderStatus, Payment, PaymentStatus
from flows.place import PaymentRequest, place_order, start_payment
from simulator.kernel.faults import AtFault, CallKind, FaultProfile
from simulator.kernel.ledger import Key
from simulator.kernel.ledger import Payment as LedgerPayment
from storage.postgres.accounts import put_account
from tests.flows.conftest import FlowHarness, order_terms

FIRST, SECOND = Payer(openid="openid-a", client_ip="203.0.113.7"), Payer(openid="openid-b", client_ip="203.0.113.8")


class CheckoutHarness:
    """A harness with an account at one channel."""

    def __init__(self, harness: FlowHarness, channel: str) -> None:
        self.harness = harness
        self.channel = channel
        self.merchant_id = ""

    async def open(self) -> None:
        simulation = self.harness.simulation
        opened = simulation.channels[self.channel].open_account(self.channel, f"{self.harness.url}/nobody")
        self.merchant_id = opened.account.merchant_id
        simulation.accounts[self.merchant_id] = opened.account
        url = simulation.urls[self.channel]
        config = AccountConfig(name=self.channel, channel=self.channel, base_url=url, credentials=opened.credentials)
        await put_account(self.harness.resources.db, self.harness.sealer, config)

    def request(self, method: str = "", payer: Payer = FIRST) -> PaymentRequest:
        return PaymentRequest(account=self.channel, method=method, payer=payer)

    async def placed(self, method: str = "", payer: Payer = FIRST) -> OrderState:
        placed = await place_order(
            self.harness.resources, order_terms(), self.request(method, payer), expires_in_s=36_000
        )
        assert placed.state.payments[0].checkout is not None
        return placed.state

    async def again(self, state: OrderState, method: str = "", payer: Payer = FIRST) -> OrderState:
        started = await start_payment(self.harness.resources, state.order.order_no, self.request(method, payer))
        return started.state

    def ledger_payment(self, payment: Payment) -> LedgerPayment:
        there = self.harness.simulation.ledger.find(self.key(payment), self.harness.simulation.now())
        assert there is not None
        return there

    def key(self, payment: Payment) -> Key:
        return Key(self.merchant_id, payment.out_trade_no)

    async def end_checkout(self, payment: Payment) -> None:
        """Let the checkout's time pass, here and at the channel. The payment itself can still be paid."""
        sql = "UPDATE payments SET checkout_ends_at = now(), created_at = created_at - interval '1 day'"
        assert await self.harness.resources.db.execute(f"{sql} WHERE out_trade_no = $1", payment.out_trade_no) == 1
        there = self.ledger_payment(payment)
        if there.link_ends_at is not None:
            self.harness.simulation.ledger._keep(replace(there, link_ends_at=self.harness.simulation.now()))


@pytest_asyncio.fixture(loop_scope="session")
async def wechat(harness: FlowHarness) -> CheckoutHarness:
    opened = CheckoutHarness(harness, "wechatpay")
    await opened.open()
    return opened


@pytest_asyncio.fixture(loop_scope="session")
async def paypal(harness: FlowHarness) -> CheckoutHarness:
    opened = CheckoutHarness(harness, "paypal")
    await opened.open()
    return opened


@pytest_asyncio.fixture(loop_scope="session")
async def alipay(harness: FlowHarness) -> CheckoutHarness:
    opened = CheckoutHarness(harness, "alipay")
    await opened.open()
    return opened


@pytest.mark.parametrize(
    ("method", "minutes"), [("native", 120), ("h5", 5), ("jsapi", 120)], ids=["native", "h5", "jsapi"]
)
async def test_a_checkout_has_the_end_of_its_method(wechat: CheckoutHarness, method: str, minutes: int) -> None:
    payment = (await wechat.placed(method)).payments[0]
    assert payment.checkout_ends_at == payment.created_at + timedelta(minutes=minutes)
    assert payment.checkout_ends_at < payment.payable_until


@pytest.mark.parametrize("method", ["native", "h5"])
@pytest.mark.parametrize("way", ["order", "payment"])
async def test_a_link_that_has_ended_is_renewed_under_the_same_number(
    wechat: CheckoutHarness, method: str, way: str
) -> None:
    """Whichever request is repeated. The channel takes the number only with the terms of the first creation."""
    state = await wechat.placed(method)
    payment = state.payments[0]
    await wechat.end_checkout(payment)
    if way == "payment":
        [renewed] = (await wechat.again(state, method)).payments
    else:
        terms = order_terms(order_no=state.order.order_no)
        repeated = await place_order(wechat.harness.resources, terms, wechat.request(method), expires_in_s=36_000)
        assert repeated.outcome is Outcome.SAME
        [renewed] = repeated.state.payments
    assert renewed.out_trade_no == payment.out_trade_no
    assert renewed.checkout is not None
    assert renewed.checkout != payment.checkout
    assert (renewed.checkout_ends_at or payment.created_at) > wechat.harness.simulation.now()


async def test_a_link_that_works_is_returned_again(wechat: CheckoutHarness) -> None:
    state = await wechat.placed("h5")
    assert (await wechat.again(state, "h5")).payments == state.payments
    assert wechat.harness.call_count("create") == 1


@pytest.mark.parametrize("method", ["h5", "jsapi"])
async def test_another_payer_gets_a_new_number_after_the_old_one_is_closed(
    wechat: CheckoutHarness, method: str
) -> None:
    """The first payer's link would not work for the second, and both numbers could be paid."""
    state = await wechat.placed(method)
    after = await wechat.again(state, method, SECOND)
    old, new = after.payments
    assert (old.status, old.payer) == (PaymentStatus.CLOSED, None)
    assert wechat.ledger_payment(old).status == "closed"
    assert (new.status, new.out_trade_no != old.out_trade_no) == (PaymentStatus.OPEN, True)
    assert new.checkout is not None
    assert new.payer == (Payer(client_ip="203.0.113.8") if method == "h5" else Payer(openid="openid-b"))


async def test_another_payer_gets_no_number_while_the_close_is_not_confirmed(wechat: CheckoutHarness) -> None:
    """The first buyer could pay the old number, and the second one the new."""
    state = await wechat.placed("jsapi")
    wechat.harness.simulation.faults.profile = FaultProfile(affected=(CallKind.CLOSE,), answered_5xx=1.0)
    with pytest.raises(PaymentUnclear):
        await wechat.again(state, "jsapi", SECOND)
    assert len((await wechat.harness.state(state)).payments) == 1
    wechat.harness.simulation.faults.profile = FaultProfile()
    assert len((await wechat.again(state, "jsapi", SECOND)).payments) == 2


async def test_money_of_the_first_payer_pays_the_order_when_the_second_one_asks(wechat: CheckoutHarness) -> None:
    state = await wechat.placed("jsapi")
    wechat.harness.simulation.pay(wechat.key(state.payments[0]), AtFault(callback="event_never_generated"))
    repeated = await place_order(
        wechat.harness.resources,
        order_terms(order_no=state.order.order_no),
        wechat.request("jsapi", SECOND),
        expires_in_s=36_000,
    )
    assert repeated.state.order.status is OrderStatus.PAID
    assert len(repeated.state.payments) == 1


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.CREATE,), answered_5xx=1.0),
        FaultProfile(affected=(CallKind.CREATE,), html_error=1.0),
    ],
    ids=["5xx", "HTML"],
)
async def test_no_dead_link_comes_back_while_the_channel_gives_no_other(
    wechat: CheckoutHarness, profile: FaultProfile
) -> None:
    state = await wechat.placed("h5")
    await wechat.end_checkout(state.payments[0])
    wechat.harness.simulation.faults.profile = profile
    with pytest.raises(PaymentUnclear):
        await wechat.again(state, "h5")
    wechat.harness.simulation.faults.profile = FaultProfile()
    assert len((await wechat.again(state, "h5")).payments) == 1


async def test_a_number_that_takes_no_repetition_is_closed_first(wechat: CheckoutHarness) -> None:
    """As after a change of the public address: the terms are not identical, so the channel refuses the repetition."""
    state = await wechat.placed("native")
    payment = state.payments[0]
    there = wechat.ledger_payment(payment)
    other = replace(there, terms=replace(there.terms, subject="Two teas"))
    wechat.harness.simulation.ledger._keep(other)
    await wechat.end_checkout(payment)
    old, new = (await wechat.again(state, "native")).payments
    assert (old.status, new.status) == (PaymentStatus.CLOSED, PaymentStatus.OPEN)
    assert wechat.ledger_payment(old).status == "closed"


@pytest.mark.parametrize(("method", "missing"), [("h5", "client_ip"), ("jsapi", "openid")])
async def test_a_method_without_its_payer_is_refused_before_anything_is_written(
    wechat: CheckoutHarness, method: str, missing: str
) -> None:
    payer = Payer(**{name: getattr(FIRST, name) for name in ("openid", "client_ip") if name != missing})
    with pytest.raises(InvalidRequest, match=f"payer.{missing}"):
        await place_order(wechat.harness.resources, order_terms(), wechat.request(method, payer), expires_in_s=600)
    assert await wechat.harness.fetch_value("SELECT count(*) FROM orders") == 0


async def test_only_what_the_method_needs_of_the_payer_is_stored(wechat: CheckoutHarness) -> None:
    native, h5 = await wechat.placed("native"), await wechat.placed("h5")
    assert native.payments[0].payer is None
    stored = (await wechat.harness.state(h5)).payments[0]
    assert stored.payer == Payer(client_ip="203.0.113.7")


# -- channels that do not renew ----------------------------------------------------------------------------------------


async def test_an_order_that_paypal_has_forgotten_ends_and_a_new_one_takes_its_place(paypal: CheckoutHarness) -> None:
    state = await paypal.placed()
    await _forget(paypal, state.payments[0])
    old, new = (await paypal.again(state)).payments
    assert old.given_up_at is not None
    assert (new.status, new.checkout is not None) == (PaymentStatus.OPEN, True)
    assert await paypal.harness.run_query_job(state, 0) is Outcome.PAYMENT_CLOSED


async def test_a_forgotten_order_is_definite_without_a_new_one(paypal: CheckoutHarness) -> None:
    """Creation makes the order at PayPal, so a missing one is over; a margin is left for a clock that differs."""
    state = await paypal.placed()
    await _forget(paypal, state.payments[0])
    assert await paypal.harness.run_query_job(state) is Outcome.STILL_OPEN
    sql = "UPDATE payments SET checkout_ends_at = now() - interval '1 hour' WHERE order_no = $1"
    await paypal.harness.resources.db.execute(sql, state.order.order_no)
    assert await paypal.harness.run_query_job(state) is Outcome.PAYMENT_CLOSED


async def _forget(paypal: CheckoutHarness, payment: Payment) -> None:
    await paypal.end_checkout(payment)
    there = paypal.ledger_payment(payment)
    ended = replace(there, terms=replace(there.terms, expires_at=paypal.harness.simulation.now()))
    paypal.harness.simulation.ledger._keep(ended)


async def test_a_code_at_alipay_that_nobody_scanned_is_renewed_and_never_ended_by_missing(
    alipay: CheckoutHarness,
) -> None:
    """It can be scanned and paid until the payment's own end, whatever a query and a close say of it."""
    state = await alipay.placed("precreate")
    await alipay.end_checkout(state.payments[0])
    sql = "UPDATE payments SET checkout_ends_at = now() - interval '1 hour' WHERE order_no = $1"
    await alipay.harness.resources.db.execute(sql, state.order.order_no)
    assert await alipay.harness.run_query_job(state) is Outcome.STILL_OPEN
    [renewed] = (await alipay.again(state, "precreate")).payments
    assert renewed.out_trade_no == state.payments[0].out_trade_no
    assert renewed.checkout != state.payments[0].checkout


async def test_a_repetition_has_the_terms_of_the_first_creation(wechat: CheckoutHarness) -> None:
    """Subject, end and payer: the channel refuses a repetition with others."""
    state = await wechat.placed("jsapi")
    before = wechat.ledger_payment(state.payments[0]).terms
    await wechat.end_checkout(state.payments[0])
    [renewed] = (await wechat.again(state, "jsapi")).payments
    after = wechat.ledger_payment(renewed)
    assert after.terms == before
    assert after.terms.wire["openid"] == "openid-a"
