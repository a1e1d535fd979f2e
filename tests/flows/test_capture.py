"""An order that its buyer has approved is not paid: it has to be captured, once, in time, and never otherwise.

The channel is PayPal, whose far side captures nothing by itself.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from core.account import AccountConfig
from core.decision import Outcome
from core.errors import PaymentUnclear
from core.order import OrderState, OrderStatus, Payment, PaymentStatus
from flows.callback import receive_callback
from flows.close import close_scheduled
from flows.place import PaymentRequest, start_payment
from flows.query import query_scheduled
from flows.refresh import refresh_order
from simulator.kernel.faults import AtFault, CallKind, FaultProfile
from simulator.kernel.ledger import Key
from simulator.kernel.ledger import PaymentStatus as AtChannel
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving
from storage.postgres.accounts import put_account
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.servers import eventually

SILENT = AtFault(callback="event_never_generated")


class Counter:
    """A harness with an account at PayPal, whose callbacks come in over HTTP."""

    def __init__(self, harness: FlowHarness, callback_url: str) -> None:
        self.harness = harness
        self.callback_url = callback_url
        self.merchant_id = ""

    async def open(self) -> None:
        far_side = self.harness.far_side
        opened = far_side.channels["paypal"].open_account("paypal", self.callback_url)
        self.merchant_id = opened.account.merchant_id
        far_side.accounts[self.merchant_id] = opened.account
        config = AccountConfig(
            name="paypal", channel="paypal", base_url=far_side.urls["paypal"], credentials=opened.credentials
        )
        await put_account(self.harness.resources.db, self.harness.sealer, config)

    async def placed(self, **terms: Any) -> OrderState:
        state = await self.harness.placed("paypal", **terms)
        assert state.payments[0].channel_reference is not None
        return state

    def approve(self, payment: Payment, at_fault: AtFault | None = SILENT) -> None:
        """The buyer presses Pay; nobody is called back unless told otherwise."""
        self.harness.far_side.pay(self.key(payment), at_fault)

    def at_channel(self, payment: Payment) -> AtChannel:
        found = self.harness.far_side.ledger.find(self.key(payment), self.harness.far_side.now())
        assert found is not None
        return found.status

    def key(self, payment: Payment) -> Key:
        return Key(self.merchant_id, payment.out_trade_no)

    @property
    def captures(self) -> int:
        return self.harness.calls("capture")

    async def query(self, state: OrderState, index: int = 0) -> Outcome:
        """The job that is armed now."""
        payment = state.payments[index]
        row = await self.harness.row(payment.channel_account, payment.out_trade_no)
        assert row is not None
        return await query_scheduled(self.harness.resources, payment.key, row.arm_no)

    async def status(self, state: OrderState) -> OrderStatus:
        return (await self.harness.state(state)).order.status


async def _receive(harness: FlowHarness, request: Request) -> Reply:
    ack = await receive_callback(harness.resources, "paypal", request.headers, request.body)
    return Response(status=ack.status, body=ack.body, content_type=ack.content_type)


@pytest_asyncio.fixture(loop_scope="session")
async def counter(harness: FlowHarness) -> AsyncIterator[Counter]:
    async with serving(App([Route("POST", "/callbacks/paypal", partial(_receive, harness))])) as url:
        opened = Counter(harness, f"{url}/callbacks/paypal")
        await opened.open()
        yield opened
        await harness.far_side.sender.stop()


async def test_an_approved_order_is_captured_by_the_query_and_paid(counter: Counter) -> None:
    """The drop that PayPal is known for: the buyer has done everything, and nobody takes the money."""
    state = await counter.placed()
    assert await counter.query(state) is Outcome.STILL_OPEN
    counter.approve(state.payments[0])
    assert counter.at_channel(state.payments[0]) is AtChannel.UNPAID
    assert await counter.query(state) is Outcome.CAPTURE_REQUESTED
    paid = await counter.harness.state(state)
    assert (paid.order.status, paid.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    found = counter.harness.far_side.ledger.find(counter.key(state.payments[0]), counter.harness.far_side.now())
    assert found is not None
    assert paid.payments[0].channel_transaction_id == found.transaction_id
    assert counter.captures == 1
    assert await counter.harness.one("SELECT count(*) FROM pending") == 0


async def test_the_callback_of_the_approval_has_the_money_taken_at_once(counter: Counter) -> None:
    """Real signatures over HTTP, by a certificate that is fetched from the channel. The money's own follows."""
    state = await counter.placed()
    counter.approve(state.payments[0], at_fault=None)
    await eventually(lambda: _is(counter, state, OrderStatus.PAID))
    await eventually(lambda: counter.harness.far_side.sender.under_way == 0)
    assert counter.captures == 1
    tally = counter.harness.far_side.sender.tally(counter.key(state.payments[0]))
    assert (tally.acknowledged, tally.refused) == (2, 0)
    assert await counter.harness.one("SELECT count(*) FROM callbacks") == 2


async def _is(counter: Counter, state: OrderState, status: OrderStatus) -> bool:
    return await counter.status(state) is status


async def test_forged_approvals_and_forged_money_take_nothing(counter: Counter) -> None:
    counter.harness.far_side.faults.profile = FaultProfile(forged=1.0)
    state = await counter.placed()
    tally = counter.harness.far_side.sender.tally(counter.key(state.payments[0]))
    await eventually(lambda: tally.forged == 2 and counter.harness.far_side.sender.under_way == 0)
    assert (tally.forged_acknowledged, counter.captures) == (0, 0)
    assert await counter.status(state) is OrderStatus.PAYING


async def test_the_buyer_who_comes_back_has_the_money_taken(counter: Counter) -> None:
    """Without a callback, and long before the first query is due."""
    state = await counter.placed()
    counter.approve(state.payments[0])
    assert (await refresh_order(counter.harness.resources, state.order.order_no, trailing=True)).order.status is (
        OrderStatus.PAID
    )
    assert counter.captures == 1


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.CAPTURE,), cut=1.0),
        FaultProfile(affected=(CallKind.CAPTURE,), truncated=1.0),
    ],
    ids=["cut", "truncated"],
)
async def test_a_capture_whose_answer_was_lost_is_found_by_the_query_after_it(
    counter: Counter, profile: FaultProfile
) -> None:
    state = await counter.placed()
    counter.approve(state.payments[0])
    counter.harness.far_side.faults.profile = profile
    await counter.query(state)
    assert (await counter.status(state), counter.captures) == (OrderStatus.PAID, 1)


async def test_a_capture_that_did_not_happen_is_asked_for_again(counter: Counter) -> None:
    state = await counter.placed()
    counter.approve(state.payments[0])
    counter.harness.far_side.faults.profile = FaultProfile(affected=(CallKind.CAPTURE,), answered_5xx=1.0)
    for asked in (1, 2):
        assert await counter.query(state) is Outcome.CAPTURE_REQUESTED
        assert counter.harness.calls() == 2 * asked, "before it and after it, and not in a circle"
        assert (await counter.status(state), counter.captures) == (OrderStatus.PAYING, asked)
        assert counter.at_channel(state.payments[0]) is AtChannel.UNPAID
    counter.harness.far_side.faults.profile = FaultProfile()
    await counter.query(state)
    assert await counter.status(state) is OrderStatus.PAID


async def test_while_nobody_knows_what_came_of_a_capture_no_other_payment_is_started(counter: Counter) -> None:
    """The buyer would pay twice: the money of the first one may be on its way."""
    state = await counter.placed()
    counter.approve(state.payments[0])
    counter.harness.far_side.faults.profile = FaultProfile(affected=(CallKind.CAPTURE,), answered_5xx=1.0)
    with pytest.raises(PaymentUnclear):
        await start_payment(counter.harness.resources, state.order.order_no, PaymentRequest(account="main"))
    assert len((await counter.harness.state(state)).payments) == 1


async def test_the_history_tells_that_the_money_was_asked_for_and_that_it_came(counter: Counter) -> None:
    """It is the query's *paid* that pays, and not the answer to the capture."""
    state = await counter.placed()
    counter.approve(state.payments[0])
    await counter.query(state)
    sql = """SELECT string_agg(kind || ':' || coalesce(evidence->>'kind', ''), ' ' ORDER BY version)
               FROM order_events WHERE order_no = $1"""
    told = await counter.harness.one(sql, state.order.order_no)
    assert told == "placed: handed_off: capture_requested:approved paid:paid"


async def test_after_its_time_an_approved_order_is_not_captured_and_closes(counter: Counter) -> None:
    state = await counter.placed()
    counter.approve(state.payments[0])
    state = await counter.harness.overdue(state)
    assert await counter.query(state) is Outcome.STILL_OPEN
    assert await close(counter, state) is Outcome.NOT_YET, "a capture asked for just before may still be told of"
    sql = "UPDATE payments SET payable_until = now() - interval '1 hour' WHERE order_no = $1"
    await counter.harness.resources.db.execute(sql, state.order.order_no)
    assert await close(counter, state) is Outcome.CLOSED
    assert (counter.captures, counter.at_channel(state.payments[0])) == (0, AtChannel.UNPAID)
    assert (await counter.harness.state(state)).payments[0].status is PaymentStatus.CLOSED


async def close(counter: Counter, state: OrderState) -> Outcome:
    row = await counter.harness.row("", state.order.order_no)
    assert row is not None
    return await close_scheduled(counter.harness.resources, state.order.order_no, row.arm_no)


async def test_an_order_that_another_payment_has_paid_is_not_captured(counter: Counter) -> None:
    """The buyer approved at PayPal, changed over, and paid elsewhere: the second money is never taken."""
    state = await counter.placed()
    request = PaymentRequest(account="main")
    state = (await start_payment(counter.harness.resources, state.order.order_no, request)).state
    counter.harness.pay(state.payments[1])
    assert await counter.query(state, 1) is Outcome.PAID
    counter.approve(state.payments[0])
    await counter.query(state, 0)
    assert (counter.captures, counter.at_channel(state.payments[0])) == (0, AtChannel.UNPAID)
    assert await counter.harness.cases(state.order.order_no) == []


async def test_what_was_approved_with_another_amount_is_a_case_and_not_captured(counter: Counter) -> None:
    """Nor later, when the channel tells the right amount again, before somebody has looked."""
    state = await counter.placed()
    counter.approve(state.payments[0])
    counter.harness.far_side.faults.profile = FaultProfile(wrong_amount_in_query=1.0)
    assert await counter.query(state) is Outcome.MISMATCH
    counter.harness.far_side.faults.profile = FaultProfile()
    assert await counter.query(state) is Outcome.STILL_OPEN
    assert counter.captures == 0
    assert await counter.harness.cases(state.order.order_no) == ["amount_mismatch"]


async def test_an_order_whose_creation_was_not_answered_is_created_once_and_captured(counter: Counter) -> None:
    """There is no order id to ask by, so it is created again under its number, which gives the same order back."""
    counter.harness.far_side.faults.profile = FaultProfile(create_answer_lost=1.0)
    state = (await counter.harness.place("paypal")).state
    assert state.payments[0].channel_reference is None
    counter.harness.far_side.faults.profile = FaultProfile()
    assert await counter.query(state) is Outcome.STILL_OPEN
    found = (await counter.harness.state(state)).payments[0]
    assert (found.channel_reference is not None, found.checkout is not None) == (True, True)
    counter.approve(found)
    await counter.query(state)
    assert (await counter.status(state), counter.captures) == (OrderStatus.PAID, 1)


async def test_money_given_back_in_the_console_is_asked_about_when_paypal_tells_of_it(counter: Counter) -> None:
    """The callback says that something went back, and not of how much: the query does, and somebody looks."""
    state = await counter.placed()
    counter.approve(state.payments[0])
    await counter.query(state)
    far_side = counter.harness.far_side
    far_side.faults.force(state.payments[0].out_trade_no, AtFault(callback="none"))
    far_side.refund(
        far_side.accounts[counter.merchant_id], state.payments[0].out_trade_no, "R-000001", 1000, far_side.now()
    )
    await eventually(lambda: _refunded(counter, state))
    after = await counter.harness.state(state)
    assert (after.order.status, after.payments[0].refunded_amount, AMOUNT) == (OrderStatus.PAID, 1000, AMOUNT)
    assert await counter.harness.cases(state.order.order_no) == ["refunded_outside"]


async def _refunded(counter: Counter, state: OrderState) -> bool:
    return (await counter.harness.state(state)).payments[0].refunded_amount > 0
