"""Disputes at five simulated channels: heard, read, kept, told, and never taken for more than the channel proves."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.account import AccountConfig
from core.admission import Urgency
from core.decision import Outcome
from core.dispute import Dispute
from core.errors import ChannelRefused, ChannelUnavailable
from core.evidence import Source
from core.order import CaseReason, OrderState, OrderStatus, Payment, PublicStatus, public_status
from flows.ask import query_now
from flows.callback import receive_callback
from flows.compensation import compensate_callback
from flows.place import PaymentRequest, place_order
from flows.query import query_scheduled
from flows.refund import refund_scheduled
from flows.undelivered import ask_undelivered
from simulator.kernel.base import Event, Message
from simulator.kernel.disputes import DisputeBody
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key
from simulator.paypal.keys import signed_headers, wire_of
from simulator.paypal.wire import refund_object
from storage.postgres.accounts import put_account
from storage.postgres.cases import list_cases
from tests.channels.reports import CallbackRequest
from tests.flows.conftest import FlowHarness, order_terms

CHANNELS = ("sandbox", "stripe", "paypal", "wechatpay", "alipay")
CURRENCIES = {"stripe": "USD", "paypal": "USD"}
SILENT = AtFault(callback="event_never_generated")
HOOK = "http://127.0.0.1:9/hook"

CLAIMS = ("sandbox", "stripe", "paypal")
INQUIRIES = CHANNELS
FAILED_REFUNDS = ("sandbox", "stripe", "wechatpay")
REVERSALS = ("sandbox", "paypal")


class AtChannel:
    """An account at one channel, a paid order there, and disputes about it."""

    def __init__(self, harness: FlowHarness, channel: str) -> None:
        self.harness = harness
        self.simulation = harness.simulation
        self.name = f"at-{channel}"
        self.channel = self.simulation.channels[channel]
        opened = self.channel.open_account(self.name, f"http://127.0.0.1:9/callbacks/{self.name}")
        self.account = opened.account
        self.simulation.accounts[self.account.merchant_id] = opened.account
        self.config = AccountConfig(
            name=self.name, channel=channel, base_url=self.simulation.urls[channel], credentials=opened.credentials
        )
        if channel == "alipay":
            self.config = replace(self.config, base_url=f"{self.simulation.urls[channel]}/gateway.do")

    async def placed_order(self) -> OrderState:
        await put_account(self.harness.resources.db, self.harness.sealer, self.config)
        terms = order_terms(currency=CURRENCIES.get(self.config.channel, "CNY"), notify_url=HOOK)
        request = PaymentRequest(account=self.name)
        state = (await place_order(self.harness.resources, terms, request, expires_in_s=3600)).state
        self.simulation.open(self.key(state))
        return state

    async def paid_order(self) -> OrderState:
        state = await self.placed_order()
        self.simulation.pay(self.key(state), SILENT)
        await self.query(state)
        state = await self.harness.state(state)
        assert state.order.status is OrderStatus.PAID
        return state

    async def query(self, state: OrderState) -> None:
        payment = state.payments[0]
        row = await self.harness.pending_row(payment.channel_account, payment.out_trade_no)
        assert row is not None
        await self.harness.make_due()
        await query_scheduled(self.harness.resources, payment.key, row.arm_no)

    def key(self, state: OrderState) -> Key:
        return Key(self.account.merchant_id, state.payments[0].out_trade_no)

    def event(self, order: OrderState, **body: Any) -> Event:
        """Let the channel open or change a dispute."""
        event = self.simulation.dispute(self.key(order), DisputeBody(**body))
        assert isinstance(event, Event)
        return event

    def message(self, event: Event) -> Message:
        account = self.simulation.accounts[self.account.merchant_id]
        message = self.channel.callback(event, account, self.simulation.now(), "http://127.0.0.1:9")
        assert message is not None
        return message

    async def deliver(self, event: Event) -> None:
        message = self.message(event)
        await receive_callback(self.harness.resources, self.name, message.headers, message.body)

    async def disputed(self, order: OrderState, **body: Any) -> Event:
        event = self.event(order, **body)
        await self.deliver(event)
        return event

    async def dispute(self, order: OrderState) -> Dispute:
        [dispute] = (await self.harness.state(order)).disputes
        return dispute

    async def refreshed(self, order: OrderState) -> Payment:
        """The payment after a query."""
        payment = order.payments[0]
        account = await self.harness.resources.accounts.get(self.name)
        by, urgency = Source.REFRESH, Urgency.REFRESH
        await query_now(self.harness.resources, account, payment, by=by, urgency=urgency, leased=None)
        return (await self.harness.state(order)).payments[0]

    async def says(self, order: OrderState) -> PublicStatus:
        state = await self.harness.state(order)
        return public_status(state.order, state.payments, state.disputes)

    async def cases(self, order: OrderState) -> list[str]:
        return await self.harness.cases(order.order.order_no)

    async def notified(self, order: OrderState) -> list[str]:
        sql = "SELECT type FROM notifications WHERE order_no = $1 ORDER BY version"
        return [row["type"] for row in await self.harness.resources.db.fetch(sql, order.order.order_no)]


def next_state(event: Event, kind: str, state: str) -> dict[str, Any]:
    """The body of the same dispute, further on."""
    assert event.dispute is not None
    return {"dispute_id": event.dispute.dispute_id, "kind": kind, "state": state}


@pytest.mark.parametrize("channel", CLAIMS)
async def test_a_claim_is_kept_until_it_is_won(harness: FlowHarness, channel: str) -> None:
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    event = await there.disputed(order)
    dispute = await there.dispute(order)
    assert (dispute.kind, dispute.state, dispute.amount) == ("claim", "open", order.order.amount)
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.DISPUTED, [CaseReason.DISPUTED])
    await there.disputed(order, **next_state(event, "claim", "won"))
    assert (await there.dispute(order)).state == "won"
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.PAID, [])
    assert await there.notified(order) == ["order.paid", "order.disputed", "order.dispute_ended"]


@pytest.mark.parametrize("channel", CLAIMS)
async def test_a_lost_claim_leaves_its_case(harness: FlowHarness, channel: str) -> None:
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    event = await there.disputed(order)
    await there.disputed(order, **next_state(event, "claim", "lost"))
    assert (await there.dispute(order)).state == "lost"
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.DISPUTED, [CaseReason.DISPUTED])


@pytest.mark.parametrize("channel", INQUIRIES)
async def test_an_inquiry_or_complaint_is_told_and_moves_no_money(harness: FlowHarness, channel: str) -> None:
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    event = await there.disputed(order, kind="inquiry")
    dispute = await there.dispute(order)
    assert (dispute.kind, dispute.state) == ("inquiry", "open")
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.PAID, [CaseReason.DISPUTED])
    await there.disputed(order, **next_state(event, "inquiry", "closed"))
    assert (await there.dispute(order)).state.is_final
    assert await there.cases(order) == []


@pytest.mark.parametrize("channel", CLAIMS)
async def test_late_messages_never_go_back(harness: FlowHarness, channel: str) -> None:
    """The first message arrives after the last one, and twice."""
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    opened = there.event(order)
    await there.disputed(order, **next_state(opened, "claim", "won"))
    for _ in range(2):
        await there.deliver(opened)
    assert (await there.dispute(order)).state == "won"
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.PAID, [])


@pytest.mark.parametrize("channel", FAILED_REFUNDS)
async def test_a_refund_that_failed_later_is_a_case(harness: FlowHarness, channel: str) -> None:
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    await there.disputed(order, kind="refund", state="lost", amount=100)
    dispute = await there.dispute(order)
    assert (dispute.kind, dispute.state, dispute.amount) == ("refund", "lost", 100)
    assert await there.cases(order) == [CaseReason.REFUND_FAILED]
    assert await there.notified(order) == ["order.paid", "order.refund_failed"]


async def test_a_refund_that_went_to_the_balance_is_only_kept(harness: FlowHarness) -> None:
    """Alipay: the bank card did not take it, and the buyer has it all the same."""
    there = AtChannel(harness, "alipay")
    order = await there.paid_order()
    await there.disputed(order, kind="refund", state="lost", amount=100)
    dispute = await there.dispute(order)
    assert (dispute.state, dispute.outcome) == ("closed", "paid to the Alipay balance")
    assert (await there.cases(order), await there.notified(order)) == ([], ["order.paid"])


@pytest.mark.parametrize("channel", REVERSALS)
async def test_a_reversal_withholds_the_money(harness: FlowHarness, channel: str) -> None:
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    await there.disputed(order, kind="reversal", state="lost")
    assert (await there.dispute(order)).kind == "reversal"
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.DISPUTED, [CaseReason.DISPUTED])


@pytest.mark.parametrize(
    ("channel", "kind"), [(each, "claim") for each in CLAIMS] + [(each, "reversal") for each in REVERSALS]
)
async def test_money_that_a_dispute_takes_is_never_refunded(harness: FlowHarness, channel: str, kind: str) -> None:
    """At PayPal a reversal is a refund in the order's list, and a disputed capture is PARTIALLY_REFUNDED."""
    there = AtChannel(harness, channel)
    order = await there.paid_order()
    await there.disputed(order, kind=kind, state="lost" if kind == "reversal" else "open")
    payment = await there.refreshed(order)
    assert (payment.refunded_amount, await there.cases(order)) == (0, [CaseReason.DISPUTED])
    assert await there.says(order) is PublicStatus.DISPUTED


@pytest.mark.parametrize("is_paid", [True, False], ids=["paid", "not seen paid"])
async def test_a_reversal_that_a_query_sees_first_is_given_back_by_a_won_claim(
    harness: FlowHarness, *, is_paid: bool
) -> None:
    """It was counted as refunded for ever: an open order was never paid, and the case `refunded_outside` stayed."""
    there = AtChannel(harness, "paypal")
    order = await (there.paid_order() if is_paid else there.placed_order())
    if not is_paid:
        there.simulation.pay(there.key(order), SILENT)
        there.simulation.capture(there.account, there.key(order).number, there.simulation.now())
    reversal = there.event(order, kind="reversal", state="lost")
    assert (await there.refreshed(order)).refunded_amount == order.order.amount
    assert await there.cases(order) == [CaseReason.REFUNDED_OUTSIDE]
    await there.deliver(reversal)
    opened = await there.disputed(order)
    payment = (await harness.state(order)).payments[0]
    assert (payment.refunded_amount, await there.cases(order)) == (0, [CaseReason.DISPUTED])
    await there.disputed(order, **next_state(opened, "claim", "won"))
    state = await harness.state(order)
    assert (state.order.status, state.payments[0].remaining_amount) == (OrderStatus.PAID, order.order.amount)
    assert (await there.says(order), await there.cases(order)) == (PublicStatus.PAID, [])
    assert "order.disputed" in await there.notified(order)
    assert (await there.notified(order))[-1] == ("order.dispute_ended" if is_paid else "order.paid")


async def test_a_forged_reversal_that_names_a_refund_of_the_console_is_none(harness: FlowHarness) -> None:
    """The merchant's own refund looked like a reversal: the order was disputed, and a case asked about it."""
    there = AtChannel(harness, "paypal")
    order = await there.paid_order()
    genuine = there.event(order, kind="inquiry")
    there.simulation.refund_in_console(there.key(order), 100)
    [refund] = there.simulation.ledger.refunds()
    capture = (await harness.state(order)).payments[0].channel_transaction_id
    forged = {
        "id": genuine.callback_id,
        "event_type": "PAYMENT.CAPTURE.REVERSED",
        "resource": refund_object(refund) | {"links": [{"rel": "up", "href": f"https://x/captures/{capture}"}]},
    }
    account = there.simulation.accounts[there.account.merchant_id]
    body = msgspec.json.encode(forged)
    headers = signed_headers(wire_of(account), body, there.simulation.now())
    await receive_callback(harness.resources, there.name, headers, body)
    assert (await harness.state(order)).disputes == ()
    assert CaseReason.DISPUTED not in await there.cases(order)


async def test_an_event_of_paypal_only_names_its_dispute(harness: FlowHarness) -> None:
    """Its signature covers a checksum. What the event says is not believed: the dispute is read."""
    there = AtChannel(harness, "paypal")
    order = await there.paid_order()
    real = there.event(order)
    assert real.dispute is not None
    await there.deliver(replace(real, dispute=replace(real.dispute, state="won", amount=1)))
    dispute = await there.dispute(order)
    assert (dispute.state, dispute.amount) == ("open", order.order.amount)


async def test_a_dispute_that_paypal_does_not_know_changes_nothing(harness: FlowHarness) -> None:
    there = AtChannel(harness, "paypal")
    order = await there.paid_order()
    real = there.event(order)
    assert real.dispute is not None
    await there.deliver(replace(real, dispute=replace(real.dispute, dispute_id="0" * 20)))
    assert (await harness.state(order)).disputes == ()


async def test_a_dispute_before_our_query_pays_nothing_until_it_is_won(harness: FlowHarness) -> None:
    """The callback was lost, and the buyer disputed before anybody asked."""
    there = AtChannel(harness, "sandbox")
    order = await there.placed_order()
    there.simulation.pay(there.key(order), SILENT)
    event = await there.disputed(order)
    state = await harness.state(order)
    assert (state.order.status, state.payments[0].status) == (OrderStatus.PAYING, "paid")
    assert "order.paid" not in await there.notified(order)
    await there.disputed(order, **next_state(event, "claim", "won"))
    assert (await harness.state(order)).order.status is OrderStatus.PAID
    assert (await there.notified(order))[-1] == "order.paid"


async def test_a_refund_that_waits_is_not_sent_while_its_money_is_disputed(harness: FlowHarness) -> None:
    """Late money was to go back, and the buyer disputes it too: the money would have gone twice."""
    state = await harness.order_with_late_money()
    [refund] = state.refunds
    payment = state.payments[0]
    opened = send_dispute(harness, payment)
    await harness.receive(payment.channel_account, opened)
    assert await refund_scheduled(harness.resources, refund.refund_no, 1) is Outcome.UNCLEAR
    assert harness.call_count("refund") == 0
    dispute_id = (await harness.state(state)).disputes[0].dispute_id
    await harness.receive(payment.channel_account, send_dispute(harness, payment, dispute_id=dispute_id, state="won"))
    await harness.make_due()
    assert await refund_scheduled(harness.resources, refund.refund_no, 2) is Outcome.REFUNDED
    assert harness.call_count("refund") == 1


async def test_a_refund_whose_money_is_lost_to_a_dispute_has_failed(harness: FlowHarness) -> None:
    """The buyer has the money by the dispute. The refund waited for it for ever, once a day."""
    state = await harness.order_with_late_money()
    [refund] = state.refunds
    payment = state.payments[0]
    await harness.receive(payment.channel_account, send_dispute(harness, payment, state="lost"))
    assert await refund_scheduled(harness.resources, refund.refund_no, 1) is Outcome.REFUND_FAILED
    assert harness.call_count("refund") == 0
    assert await harness.cases(state.order.order_no) == ["disputed", "paid_late", "refund_failed"]


def send_dispute(harness: FlowHarness, payment: Payment, **body: Any) -> CallbackRequest:
    """The sandbox's message about a dispute of this payment."""
    simulation, key = harness.simulation, harness.key_of(payment)
    event = simulation.dispute(key, DisputeBody(**body))
    assert isinstance(event, Event)
    account = simulation.accounts[key.merchant_id]
    message = simulation.channels["sandbox"].callback(event, account, simulation.now(), "http://127.0.0.1:9")
    assert message is not None
    return CallbackRequest(headers=message.headers, body=message.body)


async def test_undelivered_disputes_are_fetched(harness: FlowHarness) -> None:
    """Stripe has disabled our endpoint, and lists what it could not deliver."""
    there = AtChannel(harness, "stripe")
    order = await there.paid_order()
    event = there.event(order)
    there.simulation.faults.force(event.number, AtFault(callback="lost"))
    there.simulation.sender.schedule(event)
    await ask_undelivered(harness.resources)
    assert (await there.dispute(order)).state == "open"


async def test_a_channel_that_refuses_to_show_disputes_is_a_case(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PayPal's app lacks the feature: nobody else tells of the dispute."""
    there = AtChannel(harness, "paypal")
    order = await there.paid_order()
    event = there.event(order)
    opened = (await harness.resources.accounts.get(there.name)).channel

    async def refused(_: object) -> object:
        raise ChannelRefused("NOT_AUTHORIZED")

    monkeypatch.setattr(opened, "query_dispute", refused)
    await there.deliver(event)
    rows, _ = await list_cases(harness.resources.db, reason=CaseReason.DISPUTED)
    assert [(row.account, row.order_no) for row in rows] == [(there.name, None)]
    assert "NOT_AUTHORIZED" in rows[0].detail


async def test_a_dispute_that_cannot_be_read_now_is_read_later(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = AtChannel(harness, "paypal")
    order = await there.paid_order()
    event = there.event(order)
    opened = (await harness.resources.accounts.get(there.name)).channel

    async def unavailable(_: object) -> object:
        raise ChannelUnavailable("timed_out")

    with monkeypatch.context() as patched:
        patched.setattr(opened, "query_dispute", unavailable)
        await there.deliver(event)
    assert (await harness.state(order)).disputes == ()
    sql = "SELECT id::text, arm_no FROM callbacks WHERE handled_at IS NULL AND channel_account = $1"
    [row] = await harness.resources.db.fetch(sql, there.name)
    await harness.make_due()
    await compensate_callback(harness.resources, row["id"], row["arm_no"])
    assert (await there.dispute(order)).state == "open"
