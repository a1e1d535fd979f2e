"""An order that its buyer has approved is not paid: it is captured once, before its deadline, and only if it is unpaid.

The channel is PayPal, whose simulation captures nothing by itself.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from core.account import AccountConfig
from core.decision import Outcome
from core.errors import OrderPaid, PaymentUnclear
from core.evidence import Source
from core.order import OrderState, OrderStatus, Payment, PaymentKey, PaymentStatus
from flows.callback import receive_callback
from flows.place import PaymentRequest, start_payment
from flows.refresh import refresh_order
from simulator.kernel.base import Event
from simulator.kernel.faults import AtFault, CallKind, FaultProfile
from simulator.kernel.ledger import Key
from simulator.kernel.ledger import PaymentStatus as ChannelStatus
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving
from storage.postgres import pending
from storage.postgres.accounts import put_account
from storage.postgres.database import Database
from storage.postgres.pending import Leased
from tests.flows.conftest import AMOUNT, FlowHarness
from tests.servers import eventually

NO_CALLBACK = AtFault(callback="event_never_generated")


class PayPalHarness:
    """A harness with an account at PayPal, whose callbacks arrive over HTTP."""

    def __init__(self, harness: FlowHarness, callback_url: str) -> None:
        self.harness = harness
        self.callback_url = callback_url
        self.merchant_id = ""

    async def open(self) -> None:
        simulation = self.harness.simulation
        opened = simulation.channels["paypal"].open_account("paypal", self.callback_url)
        self.merchant_id = opened.account.merchant_id
        simulation.accounts[self.merchant_id] = opened.account
        config = AccountConfig(
            name="paypal", channel="paypal", base_url=simulation.urls["paypal"], credentials=opened.credentials
        )
        await put_account(self.harness.resources.db, self.harness.sealer, config)

    async def placed_order(self, **terms: Any) -> OrderState:
        state = await self.harness.placed_order("paypal", **terms)
        assert state.payments[0].channel_reference is not None
        return state

    def approve(self, payment: Payment, at_fault: AtFault | None = NO_CALLBACK) -> None:
        """Approve the order as the buyer. Without another fault no callback is sent."""
        self.harness.simulation.pay(self.key(payment), at_fault)

    async def reverse_approval(self, payment: Payment) -> None:
        """Let PayPal end the approval, as it does when nobody has captured for hours, and call back about it."""
        event = self.harness.simulation.reverse_approval(self.key(payment))
        assert isinstance(event, Event)
        assert await self.harness.simulation.sender.send_now(event)

    def status_at_channel(self, payment: Payment) -> ChannelStatus:
        payment_at_channel = self.harness.simulation.ledger.find(self.key(payment), self.harness.simulation.now())
        assert payment_at_channel is not None
        return payment_at_channel.status

    def key(self, payment: Payment) -> Key:
        return Key(self.merchant_id, payment.out_trade_no)

    @property
    def capture_count(self) -> int:
        return self.harness.call_count("capture")

    async def status(self, state: OrderState) -> OrderStatus:
        return (await self.harness.state(state)).order.status


async def _receive_callback(harness: FlowHarness, request: Request) -> Reply:
    acknowledgement = await receive_callback(harness.resources, "paypal", request.headers, request.body)
    return Response(status=acknowledgement.status, body=acknowledgement.body, content_type=acknowledgement.content_type)


@pytest_asyncio.fixture(loop_scope="session")
async def paypal(harness: FlowHarness) -> AsyncIterator[PayPalHarness]:
    async with serving(App([Route("POST", "/callbacks/paypal", partial(_receive_callback, harness))])) as url:
        paypal_harness = PayPalHarness(harness, f"{url}/callbacks/paypal")
        await paypal_harness.open()
        yield paypal_harness
        await harness.simulation.sender.stop()


async def test_a_query_captures_an_approved_order_and_pays_it(paypal: PayPalHarness) -> None:
    """The buyer has done everything; without a capture the money would never move."""
    state = await paypal.placed_order()
    assert await paypal.harness.run_query_job(state) is Outcome.STILL_OPEN
    paypal.approve(state.payments[0])
    assert paypal.status_at_channel(state.payments[0]) is ChannelStatus.UNPAID
    assert await paypal.harness.run_query_job(state) is Outcome.CAPTURE_REQUESTED
    paid = await paypal.harness.state(state)
    assert (paid.order.status, paid.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    payment_at_channel = paypal.harness.simulation.ledger.find(
        paypal.key(state.payments[0]), paypal.harness.simulation.now()
    )
    assert payment_at_channel is not None
    assert paid.payments[0].channel_transaction_id == payment_at_channel.transaction_id
    assert paypal.capture_count == 1
    assert await paypal.harness.fetch_value("SELECT count(*) FROM pending") == 0


async def test_a_process_that_stood_still_after_its_decision_captures_nothing(
    paypal: PayPalHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the order may have been closed, or paid by another payment. The next query decides anew."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    now, claim = 0.0, pending.claim

    async def claim_late(db: Database, key: PaymentKey, lease_s: float, **rest: Any) -> Leased | None:
        nonlocal now
        if "is_for_money" in rest:
            now += lease_s
        return await claim(db, key, lease_s, **rest)

    with monkeypatch.context() as patched:
        patched.setattr("flows.capture.monotonic", lambda: now)
        patched.setattr("flows.ask.monotonic", lambda: now)
        patched.setattr(pending, "claim", claim_late)
        await paypal.harness.run_query_job(state)
    assert (now > 0, paypal.capture_count) == (True, 0)
    await paypal.harness.run_query_job(state)
    assert (await paypal.status(state), paypal.capture_count) == (OrderStatus.PAID, 1)


async def test_the_callback_of_an_approval_captures_the_money_at_once(paypal: PayPalHarness) -> None:
    """Real signatures over HTTP, with a certificate from the channel. The callback of the capture follows."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0], at_fault=None)
    await eventually(lambda: _has_status(paypal, state, OrderStatus.PAID))
    await eventually(lambda: paypal.harness.simulation.sender.under_way == 0)
    assert paypal.capture_count == 1
    tally = paypal.harness.simulation.sender.tally(paypal.key(state.payments[0]))
    assert (tally.acknowledged, tally.refused) == (2, 0)
    assert await paypal.harness.fetch_value("SELECT count(*) FROM callbacks") == 2


async def _has_status(paypal: PayPalHarness, state: OrderState, status: OrderStatus) -> bool:
    return await paypal.status(state) is status


async def test_forged_callbacks_capture_nothing(paypal: PayPalHarness) -> None:
    paypal.harness.simulation.faults.profile = FaultProfile(forged=1.0)
    state = await paypal.placed_order()
    tally = paypal.harness.simulation.sender.tally(paypal.key(state.payments[0]))
    await eventually(lambda: tally.forged == 2 and paypal.harness.simulation.sender.under_way == 0)
    assert (tally.forged_acknowledged, paypal.capture_count) == (0, 0)
    assert await paypal.status(state) is OrderStatus.PAYING


async def test_a_refresh_after_the_approval_captures_the_money(paypal: PayPalHarness) -> None:
    """Without a callback, and long before the first query is due."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    assert (await refresh_order(paypal.harness.resources, state.order.order_no, trailing=True)).order.status is (
        OrderStatus.PAID
    )
    assert paypal.capture_count == 1


@pytest.mark.parametrize(
    "profile",
    [
        FaultProfile(affected=(CallKind.CAPTURE,), cut=1.0),
        FaultProfile(affected=(CallKind.CAPTURE,), truncated=1.0),
    ],
    ids=["cut", "truncated"],
)
async def test_a_query_finds_a_capture_whose_response_was_lost(paypal: PayPalHarness, profile: FaultProfile) -> None:
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = profile
    await paypal.harness.run_query_job(state)
    assert (await paypal.status(state), paypal.capture_count) == (OrderStatus.PAID, 1)


async def test_a_failed_capture_is_requested_again(paypal: PayPalHarness) -> None:
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = FaultProfile(affected=(CallKind.CAPTURE,), answered_5xx=1.0)
    for query_count in (1, 2):
        assert await paypal.harness.run_query_job(state) is Outcome.CAPTURE_REQUESTED
        assert paypal.harness.call_count() == 2 * query_count, "one query before the capture and one after it"
        assert (await paypal.status(state), paypal.capture_count) == (OrderStatus.PAYING, query_count)
        assert paypal.status_at_channel(state.payments[0]) is ChannelStatus.UNPAID
    paypal.harness.simulation.faults.profile = FaultProfile()
    await paypal.harness.run_query_job(state)
    assert await paypal.status(state) is OrderStatus.PAID


async def test_no_other_payment_starts_while_a_capture_is_unclear(paypal: PayPalHarness) -> None:
    """The buyer would pay twice: the first payment may still succeed."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = FaultProfile(affected=(CallKind.CAPTURE,), answered_5xx=1.0)
    with pytest.raises(PaymentUnclear):
        await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="main"))
    assert len((await paypal.harness.state(state)).payments) == 1


async def test_the_history_shows_the_capture_request_and_the_payment(paypal: PayPalHarness) -> None:
    """The query makes the order paid, not the response to the capture."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    await paypal.harness.run_query_job(state)
    sql = """SELECT string_agg(kind || ':' || coalesce(evidence->>'kind', ''), ' ' ORDER BY version)
               FROM order_events WHERE order_no = $1"""
    history = await paypal.harness.fetch_value(sql, state.order.order_no)
    assert history == "placed: handed_off: capture_requested:approved paid:paid"


async def test_an_approved_order_closes_after_its_deadline_without_a_capture(paypal: PayPalHarness) -> None:
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    state = await paypal.harness.pass_deadline(state)
    assert await paypal.harness.run_query_job(state) is Outcome.STILL_OPEN
    assert await paypal.harness.run_close_job(state) is Outcome.NOT_YET, "a capture just before may not be visible yet"
    sql = "UPDATE payments SET payable_until = now() - interval '1 hour' WHERE order_no = $1"
    await paypal.harness.resources.db.execute(sql, state.order.order_no)
    assert await paypal.harness.run_close_job(state) is Outcome.CLOSED
    assert (paypal.capture_count, paypal.status_at_channel(state.payments[0])) == (0, ChannelStatus.UNPAID)
    assert (await paypal.harness.state(state)).payments[0].status is PaymentStatus.CLOSED


async def test_an_order_paid_by_another_payment_is_not_captured(paypal: PayPalHarness) -> None:
    """The buyer approved at PayPal and then paid with another account: the PayPal money is never taken."""
    state = await paypal.placed_order()
    request = PaymentRequest(account="main")
    state = (await start_payment(paypal.harness.resources, state.order.order_no, request)).state
    paypal.harness.pay(state.payments[1])
    assert await paypal.harness.run_query_job(state, 1) is Outcome.PAID
    paypal.approve(state.payments[0])
    await paypal.harness.run_query_job(state, 0)
    assert (paypal.capture_count, paypal.status_at_channel(state.payments[0])) == (0, ChannelStatus.UNPAID)
    assert await paypal.harness.cases(state.order.order_no) == []


async def test_an_approval_with_a_wrong_amount_opens_a_case_and_is_not_captured(paypal: PayPalHarness) -> None:
    """It is not captured later either, when the channel reports the right amount, while the case is open."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = FaultProfile(wrong_amount_in_query=1.0)
    assert await paypal.harness.run_query_job(state) is Outcome.MISMATCH
    paypal.harness.simulation.faults.profile = FaultProfile()
    assert await paypal.harness.run_query_job(state) is Outcome.STILL_OPEN
    assert paypal.capture_count == 0
    assert await paypal.harness.cases(state.order.order_no) == ["amount_mismatch"]


async def test_a_creation_without_a_response_is_repeated_and_captured_once(paypal: PayPalHarness) -> None:
    """Without an order id there is nothing to query, so creation is repeated with the same number."""
    paypal.harness.simulation.faults.profile = FaultProfile(create_answer_lost=1.0)
    state = (await paypal.harness.place("paypal")).state
    assert state.payments[0].channel_reference is None
    paypal.harness.simulation.faults.profile = FaultProfile()
    assert await paypal.harness.run_query_job(state) is Outcome.STILL_OPEN
    payment = (await paypal.harness.state(state)).payments[0]
    assert (payment.channel_reference is not None, payment.checkout is not None) == (True, True)
    paypal.approve(payment)
    await paypal.harness.run_query_job(state)
    assert (await paypal.status(state), paypal.capture_count) == (OrderStatus.PAID, 1)


async def test_a_refund_made_in_the_console_is_queried_after_its_callback(paypal: PayPalHarness) -> None:
    """The callback says that money was refunded and not how much. The query gives the amount, and a case opens."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    await paypal.harness.run_query_job(state)
    simulation = paypal.harness.simulation
    simulation.faults.force(state.payments[0].out_trade_no, AtFault(callback="none"))
    simulation.refund(
        simulation.accounts[paypal.merchant_id], state.payments[0].out_trade_no, "R-000001", 1000, simulation.now()
    )
    await eventually(lambda: _refunded(paypal, state))
    after = await paypal.harness.state(state)
    assert (after.order.status, after.payments[0].refunded_amount, AMOUNT) == (OrderStatus.PAID, 1000, AMOUNT)
    assert await paypal.harness.cases(state.order.order_no) == ["refunded_outside"]


async def _refunded(paypal: PayPalHarness, state: OrderState) -> bool:
    return bool((await paypal.harness.state(state)).payments[0].refunded_amount)


# -- a refused capture -------------------------------------------------------------------------------------------------

DECLINED = FaultProfile(capture_declined=1.0)


async def _declined_order(paypal: PayPalHarness) -> OrderState:
    """An order whose approval PayPal has refused to capture."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = DECLINED
    assert await paypal.harness.run_query_job(state) is Outcome.CAPTURE_REQUESTED
    paypal.harness.simulation.faults.profile = FaultProfile()
    state = await paypal.harness.state(state)
    assert (paypal.capture_count, state.payments[0].capture_refused_at is not None) == (1, True)
    return state


async def test_a_definitely_refused_capture_is_not_tried_again(paypal: PayPalHarness) -> None:
    """By no query, no refresh of the merchant's, and no resend of the approval's callback."""
    state = await _declined_order(paypal)
    for _ in range(3):
        assert await paypal.harness.run_query_job(state) is Outcome.STILL_OPEN
    await refresh_order(paypal.harness.resources, state.order.order_no, by=Source.OPERATOR, trailing=True)
    assert (await paypal.status(state), paypal.capture_count) == (OrderStatus.PAYING, 1)


async def test_the_buyers_return_lets_a_refused_capture_be_tried_again(paypal: PayPalHarness) -> None:
    """The buyer took another card at PayPal and came back; the callback of that approval is lost."""
    state = await _declined_order(paypal)
    paypal.approve(state.payments[0])
    after = await refresh_order(paypal.harness.resources, state.order.order_no, trailing=True)
    assert (after.order.status, paypal.capture_count) == (OrderStatus.PAID, 2)


async def test_a_new_approval_lets_a_refused_capture_be_tried_again(paypal: PayPalHarness) -> None:
    """The buyer took another card and did not come back."""
    state = await _declined_order(paypal)
    paypal.approve(state.payments[0], AtFault(callback="none"))
    await eventually(lambda: _has_status(paypal, state, OrderStatus.PAID))
    assert paypal.capture_count == 2


async def test_another_payment_starts_at_once_after_a_refused_capture(paypal: PayPalHarness) -> None:
    """The refused one is given up: its buyer may approve again and come back, and it takes no money."""
    state = await _declined_order(paypal)
    state = (await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="main"))).state
    assert state.payments[0].given_up_at is not None
    assert state.payments[1].checkout is not None
    paypal.approve(state.payments[0], AtFault(callback="none"))
    await refresh_order(paypal.harness.resources, state.order.order_no, trailing=True)
    assert paypal.capture_count == 1
    assert (await paypal.harness.state(state)).payments[0].status is PaymentStatus.CLOSED
    paypal.harness.pay(state.payments[1])
    assert await paypal.harness.run_query_job(state, 1) is Outcome.PAID
    assert await paypal.harness.cases(state.order.order_no) == []


async def test_the_same_payment_may_be_asked_for_again_after_a_refused_capture(paypal: PayPalHarness) -> None:
    """PayPal's own remedy is another instrument on the same order."""
    state = await _declined_order(paypal)
    repeated = await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="paypal"))
    assert repeated.outcome is Outcome.REUSED
    assert repeated.state.payments[0].checkout == state.payments[0].checkout


@pytest.mark.parametrize("issue", ["PAYER_ACTION_REQUIRED", "DUPLICATE_INVOICE_ID", "SOMETHING_NEW"])
async def test_any_other_refusal_ends_nothing(paypal: PayPalHarness, issue: str) -> None:
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = FaultProfile(capture_declined=1.0, capture_issue=issue)
    for capture_count in (1, 2):
        assert await paypal.harness.run_query_job(state) is Outcome.CAPTURE_REQUESTED
        assert paypal.capture_count == capture_count
    with pytest.raises(PaymentUnclear):
        await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="main"))


# -- other payments of the order ---------------------------------------------------------------------------------------


async def _with_another_payment(paypal: PayPalHarness) -> OrderState:
    """An order with an open payment at PayPal and another one at the sandbox."""
    state = await paypal.placed_order()
    return (await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="main"))).state


async def test_a_payment_is_not_captured_when_another_one_is_paid(paypal: PayPalHarness) -> None:
    """The callback of the other payment is lost: without asking, the buyer would pay twice."""
    state = await _with_another_payment(paypal)
    paypal.harness.pay(state.payments[1])
    paypal.approve(state.payments[0])
    await paypal.harness.run_query_job(state, 0)
    after = await paypal.harness.state(state)
    assert (after.order.paid_by, paypal.capture_count) == (state.payments[1].key, 0)
    assert await paypal.harness.cases(state.order.order_no) == []


async def test_a_payment_is_not_captured_while_another_one_is_unclear(paypal: PayPalHarness) -> None:
    state = await _with_another_payment(paypal)
    paypal.approve(state.payments[0])
    paypal.harness.call_fault(state.payments[1], "answered_5xx")
    assert await paypal.harness.run_query_job(state, 0) is Outcome.STILL_OPEN
    assert paypal.capture_count == 0
    paypal.harness.call_fault(state.payments[1], "none")
    await paypal.harness.run_query_job(state, 0)
    assert (await paypal.status(state), paypal.capture_count) == (OrderStatus.PAID, 1)


async def test_a_payment_is_captured_when_the_others_are_unpaid(paypal: PayPalHarness) -> None:
    state = await _with_another_payment(paypal)
    paypal.approve(state.payments[0])
    after = await refresh_order(paypal.harness.resources, state.order.order_no, trailing=True)
    assert (after.order.status, paypal.capture_count) == (OrderStatus.PAID, 1)


async def test_a_payment_that_starts_during_the_capture_waits_for_it(paypal: PayPalHarness) -> None:
    """The capture has claimed the order's version, and its response is not there yet."""
    state = await paypal.placed_order()
    paypal.approve(state.payments[0])
    paypal.harness.simulation.faults.profile = FaultProfile(affected=(CallKind.CAPTURE,), slow=1.0, slow_s=0.5)
    query = asyncio.create_task(paypal.harness.run_query_job(state))
    await eventually(lambda: paypal.capture_count == 1)
    with pytest.raises((PaymentUnclear, OrderPaid)):
        await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="main"))
    await query
    assert len((await paypal.harness.state(state)).payments) == 1


async def test_an_approval_that_paypal_has_ended_is_kept_and_a_new_one_is_asked_for(paypal: PayPalHarness) -> None:
    """The same dead link was handed out again; in the order's history stood nothing."""
    state = await paypal.placed_order()
    payment = state.payments[0]
    paypal.harness.simulation.faults.profile = FaultProfile(capture_declined=1.0)
    paypal.approve(payment)
    assert await paypal.harness.run_query_job(state) is Outcome.CAPTURE_REQUESTED
    paypal.harness.simulation.faults.profile = FaultProfile()
    await paypal.reverse_approval(payment)
    await eventually(lambda: _has_history(paypal, state, "payment_closed"))
    assert (await paypal.harness.state(state)).payments[0].status is PaymentStatus.CLOSED
    sql = "SELECT note FROM observations WHERE kind = 'lapsed_seen'"
    assert str(await paypal.harness.fetch_value(sql)).startswith("the channel ended the approval at ")
    again = await start_payment(paypal.harness.resources, state.order.order_no, PaymentRequest(account="paypal"))
    started = again.state.payments[1]
    assert started.out_trade_no != payment.out_trade_no
    paypal.approve(started)
    assert await paypal.harness.run_query_job(again.state, 1) is Outcome.CAPTURE_REQUESTED
    assert await paypal.status(state) is OrderStatus.PAID


async def _has_history(paypal: PayPalHarness, state: OrderState, kind: str) -> bool:
    sql = "SELECT count(*) FROM order_events WHERE order_no = $1 AND kind = $2"
    return bool(await paypal.harness.fetch_value(sql, state.order.order_no, kind))
