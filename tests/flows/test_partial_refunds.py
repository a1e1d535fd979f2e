"""Refunds in parts of paid orders, at each of the five channels, with another operator and the channel's console at the
same time: never more than came.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.decision import Outcome
from core.errors import InvalidRequest, NotFound, NotPossible, PreviewOutdated, RefundConflict
from core.order import OrderState, OrderStatus, Payment, Refund, RefundStatus
from flows.place import PaymentRequest, place_order
from flows.query import query_scheduled
from flows.refund import refund_scheduled
from flows.refund_request import RefundWish, preview_refund, request_refund
from simulator.kernel.faults import AtFault, CallKind, FaultProfile
from simulator.kernel.ledger import Key
from simulator.kernel.ledger import Refund as LedgerRefund
from storage.postgres.accounts import put_account
from storage.postgres.search import NumberKind, find_by_number
from tests.channels.alipay.driver import AlipayDriver
from tests.channels.driver import Driver
from tests.channels.paypal.driver import PaypalDriver
from tests.channels.sandbox.driver import SandboxDriver
from tests.channels.stripe.driver import StripeDriver
from tests.channels.wechatpay.driver import WechatPayDriver
from tests.flows.conftest import AMOUNT, HOOK, FlowHarness, order_terms

DRIVERS: tuple[Driver, ...] = (SandboxDriver(), AlipayDriver(), PaypalDriver(), WechatPayDriver(), StripeDriver())


class Sale:
    """A paid order at one channel, and what an operator and the channel do with its money."""

    def __init__(self, harness: FlowHarness, driver: Driver) -> None:
        self.harness = harness
        self.driver = driver
        self.order_no = ""

    async def open(self) -> None:
        """Add the account, place an order and pay it; the query finds it paid."""
        simulation, resources = self.harness.simulation, self.harness.resources
        account = replace(self.driver.account(simulation.urls[self.driver.channel]), name="sale", early_queries_s=())
        await put_account(resources.db, self.harness.sealer, account)
        there = self.driver.simulator_account()
        simulation.accounts[self.driver.merchant_id] = replace(there, name="sale")
        terms = order_terms(currency=self.driver.currency, notify_url=HOOK)
        state = (await place_order(resources, terms, PaymentRequest(account="sale"), expires_in_s=600)).state
        self.order_no = state.order.order_no
        simulation.open(self._key(state.payments[0]))
        simulation.pay(self._key(state.payments[0]), AtFault(callback="event_never_generated"))
        await self.run_query(state.payments[0])
        assert (await self.state()).order.status is OrderStatus.PAID

    async def run_query(self, payment: Payment) -> None:
        """Run the payment's job as if it were due."""
        row = await self.harness.pending_row(payment.channel_account, payment.out_trade_no)
        assert row is not None
        await self.harness.make_due()
        await query_scheduled(self.harness.resources, payment.key, row.arm_no)

    async def give_back(self, amount: int | None, key: str, expected_version: int | None = None) -> Refund | None:
        wish = await self.wish(amount, key)
        requested = await request_refund(
            self.harness.resources, wish, by="ann", reason="one cup was broken", expected_version=expected_version
        )
        return requested.refund

    async def wish(self, amount: int | None, key: str) -> RefundWish:
        payment = (await self.state()).payments[0]
        return RefundWish(order_no=self.order_no, out_trade_no=payment.out_trade_no, amount=amount, key=key)

    async def run_refunds(self) -> list[Outcome]:
        """Run the jobs of all refunds that are not definite, until they are."""
        outcomes = []
        for _ in range(3):
            for refund in (await self.state()).refunds:
                if not refund.status.is_final:
                    await self.harness.make_due()
                    await self.let_minutes_pass()
                    outcomes.append(await self.run_refund(refund))
        return outcomes

    async def run_refund(self, refund: Refund) -> Outcome:
        """Run its job."""
        sql = "SELECT arm_no FROM refunds WHERE refund_no = $1"
        arm_no = int(str(await self.harness.fetch_value(sql, refund.refund_no)))
        return await refund_scheduled(self.harness.resources, refund.refund_no, arm_no)

    async def let_minutes_pass(self) -> None:
        """WeChat Pay takes the refunds of one payment a minute apart."""
        sql = "UPDATE refunds SET requested_at = requested_at - interval '5 min'"
        await self.harness.resources.db.execute(sql)

    async def state(self) -> OrderState:
        return await self.harness.state(self.order_no)

    async def has_numbers(self, state: OrderState) -> None:
        """Each refund has the channel's own number, by which its order is found; Alipay gives none."""
        numbers = [refund.channel_refund_no for refund in state.refunds]
        if not self.driver.gives_refund_numbers:
            assert set(numbers) == {None}
            return
        assert len({*numbers}) == len(numbers)
        for number in numbers:
            assert number is not None
            [match] = await find_by_number(self.harness.resources.db, number)
            assert (match.kind, match.order_no) == (NumberKind.CHANNEL_REFUND_NO, self.order_no)

    def refunds_there(self) -> list[LedgerRefund]:
        return list(self.harness.simulation.ledger.refunds())

    async def refunded_there(self) -> int:
        payment = (await self.state()).payments[0]
        at_channel = self.harness.simulation.ledger.find(self._key(payment), self.harness.simulation.now())
        assert at_channel is not None
        return at_channel.refunded_amount

    def refund_in_console(self, payment: Payment, amount: int) -> None:
        assert isinstance(self.harness.simulation.refund_in_console(self._key(payment), amount), LedgerRefund)

    def _key(self, payment: Payment) -> Key:
        return Key(self.driver.merchant_id, payment.out_trade_no)


@pytest_asyncio.fixture(loop_scope="session", params=DRIVERS, ids=lambda driver: driver.channel)
async def sale(harness: FlowHarness, request: pytest.FixtureRequest) -> AsyncIterator[Sale]:
    """A paid order at each channel."""
    sale = Sale(harness, request.param)
    await sale.open()
    yield sale
    await harness.simulation.sender.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def sandbox_sale(harness: FlowHarness) -> AsyncIterator[Sale]:
    sale = Sale(harness, DRIVERS[0])
    await sale.open()
    yield sale
    await harness.simulation.sender.stop()


# -- each channel ------------------------------------------------------------------------------------------------------


async def test_parts_go_back_one_by_one_and_the_order_stays_paid(sale: Sale) -> None:
    first = await sale.give_back(1250, "one")
    assert first is not None
    assert (await sale.run_refunds())[-1] is Outcome.REFUNDED
    assert (await sale.state()).payments[0].refunded_amount == 1250

    second = await sale.give_back(None, "two")
    assert second is not None
    assert second.amount == AMOUNT - 1250
    await sale.run_refunds()

    state = await sale.state()
    assert (state.order.status, state.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert [refund.status for refund in state.refunds] == [RefundStatus.SUCCEEDED] * 2
    await sale.has_numbers(state)
    assert (state.payments[0].refunded_amount, await sale.refunded_there()) == (AMOUNT, AMOUNT)
    assert sorted(refund.amount for refund in sale.refunds_there()) == [1250, AMOUNT - 1250]
    assert await sale.harness.cases(sale.order_no) == []
    sql = "SELECT string_agg(type, ' ' ORDER BY version) FROM notifications"
    assert str(await sale.harness.fetch_value(sql)).split() == ["order.paid", "order.refunded", "order.refunded"]


async def test_two_parts_at_once_whose_answers_are_slow_and_cut_off_go_back_once_each(sale: Sale) -> None:
    sale.harness.simulation.faults.profile = FaultProfile(affected=(CallKind.REFUND,), cut=1.0)
    await asyncio.gather(sale.give_back(1000, "one"), sale.give_back(2000, "two"), sale.give_back(1000, "one"))
    await sale.run_refunds()
    sale.harness.simulation.faults.profile = FaultProfile()
    await sale.run_refunds()
    state = await sale.state()
    assert sorted(refund.amount for refund in state.refunds) == [1000, 2000]
    assert {refund.status for refund in state.refunds} == {RefundStatus.SUCCEEDED}
    assert (state.payments[0].refunded_amount, await sale.refunded_there()) == (3000, 3000)


@pytest.mark.parametrize("driver", [DRIVERS[0], DRIVERS[3]], ids=lambda driver: driver.channel)
async def test_a_channel_that_wants_a_minute_between_refunds_gets_it(harness: FlowHarness, driver: Driver) -> None:
    sale = Sale(harness, driver)
    await sale.open()
    await asyncio.gather(sale.give_back(1000, "one"), sale.give_back(2000, "two"))
    outcomes = [await sale.run_refund(refund) for refund in (await sale.state()).refunds]
    waits = driver.channel == "wechatpay"
    assert outcomes == [Outcome.REFUNDED, Outcome.NOT_YET if waits else Outcome.REFUNDED]
    assert len(sale.refunds_there()) == (1 if waits else 2)
    if waits:
        sql = "SELECT attempt, extract(epoch FROM due_at - now())::float8 AS due_in_s FROM refunds WHERE attempt = 1"
        due_in_s = [float(row["due_in_s"]) for row in await harness.resources.db.fetch(sql)]
        assert 50 < max(due_in_s) <= 60
    await sale.run_refunds()
    assert await sale.refunded_there() == 3000


# -- operators and the console at the same time ------------------------------------------------------------------------


async def test_two_operators_at_once_never_give_back_more_than_came(sandbox_sale: Sale) -> None:
    sale = sandbox_sale
    wanted = [sale.give_back(5000, f"ticket-{nth}") for nth in range(4)]
    results = await asyncio.gather(*wanted, return_exceptions=True)
    refused = [error for error in results if isinstance(error, NotPossible)]
    assert (len(refused), len(results) - len(refused)) == (3, 1)
    assert {error.line.text for error in refused} == {"So much is not left: 38.88 CNY can still go back."}
    await sale.run_refunds()
    assert (await sale.refunded_there(), len(sale.refunds_there())) == (5000, 1)


async def test_a_key_is_one_refund_however_often_and_another_amount_a_conflict(sandbox_sale: Sale) -> None:
    sale = sandbox_sale
    refunds = await asyncio.gather(*(sale.give_back(1250, "ticket-77") for _ in range(4)))
    assert len({refund.refund_no for refund in refunds if refund is not None}) == 1
    with pytest.raises(RefundConflict):
        await sale.give_back(1251, "ticket-77")
    await sale.run_refunds()
    again = await sale.give_back(1250, "ticket-77", expected_version=1)
    assert again is not None
    assert (again.status, again.note) == (RefundStatus.SUCCEEDED, "one cup was broken")
    assert [refund.amount for refund in sale.refunds_there()] == [1250]


async def test_what_goes_back_in_the_console_meanwhile_is_refused_and_a_case(sandbox_sale: Sale) -> None:
    sale = sandbox_sale
    await sale.give_back(8000, "ticket-77")
    sale.refund_in_console((await sale.state()).payments[0], 1000)
    await sale.run_refunds()
    state = await sale.state()
    assert [refund.status for refund in state.refunds] == [RefundStatus.FAILED]
    assert await sale.refunded_there() == 1000
    assert await sale.harness.cases(sale.order_no) == ["refund_failed"]


async def test_a_total_in_a_callback_shows_our_part_once(sandbox_sale: Sale) -> None:
    sale = sandbox_sale
    sale.harness.simulation.faults.profile = FaultProfile(refund_settles_s=3600.0)
    await sale.give_back(1250, "ticket-77")
    await sale.run_refunds()
    [there] = sale.refunds_there()
    sale.harness.simulation.ledger.settle_refund(there.key, sale.harness.simulation.now(), succeeds=True)
    payment = (await sale.state()).payments[0]
    transaction = payment.channel_transaction_id
    callback = sale.harness.callback(
        replace(payment, channel_account="1001"), status="refunded", refunded=1250, transaction=transaction
    )
    await sale.harness.receive("sale", callback)
    assert (await sale.state()).payments[0].refunded_amount == 1250
    await sale.run_refunds()
    assert (await sale.state()).payments[0].refunded_amount == 1250
    assert await sale.harness.cases(sale.order_no) == []


# -- the preview -------------------------------------------------------------------------------------------------------


async def test_a_preview_changes_nothing_and_an_order_that_moved_shows_a_new_one(sandbox_sale: Sale) -> None:
    sale = sandbox_sale
    before = await sale.state()
    preview = await preview_refund(sale.harness.resources, await sale.wish(1250, "one"))
    assert (preview.is_possible, preview.version) == (True, before.order.version)
    assert ((await sale.state()).order, (await sale.state()).refunds) == (before.order, ())
    await sale.give_back(8000, "two")
    assert preview.version is not None
    with pytest.raises(PreviewOutdated) as outdated:
        await sale.give_back(1250, "one", expected_version=preview.version)
    shown = outdated.value.preview
    assert (shown.version, shown.refusal is not None) == (before.order.version + 1, True)
    assert [refund.amount for refund in (await sale.state()).refunds] == [8000]


async def test_a_refund_needs_a_reason_and_an_order(sandbox_sale: Sale) -> None:
    resources, wish = sandbox_sale.harness.resources, await sandbox_sale.wish(1, "one")
    with pytest.raises(InvalidRequest, match="reason"):
        await request_refund(resources, wish, by="ann", reason=" ")
    with pytest.raises(InvalidRequest, match="key"):
        await request_refund(resources, await sandbox_sale.wish(1, "k" * 65), by="ann", reason="x")
    for unknown in (replace(wish, order_no="none"), replace(wish, out_trade_no="none")):
        with pytest.raises(NotFound):
            await preview_refund(resources, unknown)


async def test_an_account_that_is_gone_can_give_nothing_back(sandbox_sale: Sale) -> None:
    sale = sandbox_sale
    await sale.harness.resources.db.execute("DELETE FROM accounts WHERE name = 'sale'")
    sale.harness.resources.accounts._read_at = -1e9
    preview = await preview_refund(sale.harness.resources, await sale.wish(1, "one"))
    assert preview.refusal is not None
    assert preview.refusal.key == "refund.no_account"
    with pytest.raises(NotPossible):
        await sale.give_back(1, "one")


# -- the refund that is meant ------------------------------------------------------------------------------------------


async def test_a_request_without_a_key_names_the_refund_that_it_has_made(sandbox_sale: Sale) -> None:
    """Not another one of the same payment, whatever its number and time."""
    for n in range(10):
        assert await sandbox_sale.give_back(1, f"key-{n}") is not None
    sql = "UPDATE refunds SET requested_at = requested_at + interval '1 h'"
    await sandbox_sale.harness.resources.db.execute(sql)
    made = await sandbox_sale.give_back(2, "")
    assert made is not None
    assert (made.amount, made.refund_no[:4]) == (2, "r11_")


async def test_what_is_left_without_a_key_is_requested_once_and_nothing_of_anothers(sandbox_sale: Sale) -> None:
    first = await sandbox_sale.give_back(None, "")
    assert first is not None
    assert await sandbox_sale.give_back(None, "") == first
    assert len((await sandbox_sale.state()).refunds) == 1


async def test_a_request_without_a_key_is_refused_when_a_refund_with_a_key_has_taken_all(sandbox_sale: Sale) -> None:
    assert await sandbox_sale.give_back(None, "key-1") is not None
    with pytest.raises(NotPossible) as refused:
        await sandbox_sale.give_back(None, "")
    assert refused.value.line.key == "refund.nothing_left"
