"""A number that nodrop does not know: what its channel says, and its money attached to an order through the door."""

from datetime import timedelta
from uuid import uuid4

import pytest

from core.account import AccountConfig
from core.acts import Preview
from core.errors import ChannelUnavailable, InvalidRequest, NotFound, NotPossible, PreviewOutdated, UnknownAccount
from core.evidence import Missing, Paid, Unclear, Unpaid
from core.lifecycle import LatePolicy
from core.order import OrderState, OrderStatus, Origin, PaymentStatus
from flows.attach import attach_payment, look_up, preview_attach
from flows.close import request_close
from flows.place import new_number
from flows.refund_request import RefundWish, request_refund
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key, Refusal, Terms
from storage.postgres.accounts import put_account
from tests.flows.conftest import AMOUNT, HOOK, FlowHarness


def bought_elsewhere(
    harness: FlowHarness,
    number: str | None = None,
    *,
    amount: int = AMOUNT,
    currency: str = "CNY",
    is_paid: bool = True,
    merchant: str = "m-main",
) -> str:
    """Its number: another system has made the payment at the account, and the buyer has paid it."""
    number = number or f"elsewhere-{uuid4().hex[:12]}"
    now = harness.simulation.now()
    terms = Terms(
        out_trade_no=number,
        amount=amount,
        currency=currency,
        subject="Tea",
        expires_at=now + timedelta(days=1),
        callback_url="http://127.0.0.1:9/callbacks/main",
        return_url="http://127.0.0.1:9",
    )
    harness.simulation.create(harness.simulation.accounts[merchant], terms, now)
    if is_paid:
        harness.simulation.pay(Key(merchant, number), AtFault(callback="event_never_generated"))
    return number


async def attach(harness: FlowHarness, state: OrderState, number: str, *, version: int | None = None) -> OrderState:
    order_no = state.order.order_no
    return await attach_payment(
        harness.resources, order_no, "main", number, by="ann", reason="the buyer wrote", expected_version=version
    )


async def preview(harness: FlowHarness, state: OrderState, number: str) -> Preview:
    return (await preview_attach(harness.resources, state.order.order_no, "main", number))[1]


async def open_order(harness: FlowHarness) -> OrderState:
    return (await harness.place(None, notify_url=HOOK)).state


# -- asking ------------------------------------------------------------------------------------------------------------


async def test_the_channel_says_what_a_number_stands_for(harness: FlowHarness) -> None:
    paid = await look_up(harness.resources, "main", f" {bought_elsewhere(harness)} ")
    assert isinstance(paid.evidence, Paid)
    assert (paid.origin, paid.known, paid.is_known_beside) == (Origin.WATCHED, None, False)
    assert "paid, 88.88 CNY" in paid.line.text
    unpaid = await look_up(harness.resources, "main", bought_elsewhere(harness, is_paid=False))
    assert isinstance(unpaid.evidence, Unpaid)
    assert isinstance((await look_up(harness.resources, "main", "nobody-knows-it")).evidence, Missing)


async def test_a_number_that_is_known_here_names_its_order(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    looked = await look_up(harness.resources, "main", state.payments[0].out_trade_no)
    assert looked.known is not None
    assert (looked.known.order_no, looked.origin) == (state.order.order_no, Origin.OURS)


async def test_a_channel_that_does_not_answer_is_no_conclusion(harness: FlowHarness) -> None:
    number = bought_elsewhere(harness)
    harness.simulation.faults.force(number, AtFault(call="answered_5xx"))
    looked = await look_up(harness.resources, "main", number)
    assert isinstance(looked.evidence, Unclear)
    state = await open_order(harness)
    refused = (await preview(harness, state, number)).refusal
    assert refused is not None
    assert refused.key == "attach.no_answer"


@pytest.mark.parametrize("number", ["", "  ", "a\nb", "x" * 256])
async def test_what_is_no_number_is_refused(harness: FlowHarness, number: str) -> None:
    with pytest.raises(InvalidRequest):
        await look_up(harness.resources, "main", number)


async def test_a_number_that_no_payment_has_and_an_unknown_account_are_refused(harness: FlowHarness) -> None:
    with pytest.raises(NotPossible, match="no payment has a number of this form"):
        await look_up(harness.resources, "main", "a b c d e f")
    with pytest.raises(UnknownAccount):
        await look_up(harness.resources, "none", "elsewhere-1")


# -- attaching ---------------------------------------------------------------------------------------------------------


async def test_money_that_nodrop_did_not_know_pays_the_order_that_an_operator_names(harness: FlowHarness) -> None:
    state, number = await open_order(harness), bought_elsewhere(harness)
    shown = await preview(harness, state, number)
    assert [line.key for line in shown.lines] == [
        "attach.says_paid",
        "attach.as_watched",
        "attach.pays",
        "order.is_notified",
    ]
    assert (await harness.state(state)).payments == ()

    after = await attach(harness, state, number, version=shown.version)

    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, ("main", number))
    [payment] = after.payments
    assert (payment.status, payment.origin) == (PaymentStatus.PAID, Origin.WATCHED)
    assert await harness.cases(state.order.order_no) == []
    assert await harness.fetch_value("SELECT count(*) FROM pending WHERE kind = 'query'") == 0
    kinds = await harness.fetch_value("SELECT string_agg(kind || ' ' || by, ', ' ORDER BY version) FROM order_events")
    assert kinds == "placed api, attached operator, paid operator"
    again = await attach(harness, state, number, version=1)
    assert again.order.version == after.order.version
    with pytest.raises(NotPossible, match="only watched"):
        await request_refund(
            harness.resources,
            RefundWish(order_no=state.order.order_no, out_trade_no=number, key="k"),
            by="ann",
            reason="x",
        )


async def test_a_number_of_our_own_form_becomes_one_of_ours_and_can_be_refunded(harness: FlowHarness) -> None:
    """The database was restored from a backup that did not have the payment yet."""
    state = await open_order(harness)
    number = bought_elsewhere(harness, new_number(harness.simulation.now()))
    assert (await preview(harness, state, number)).lines[1].key == "attach.as_ours"
    after = await attach(harness, state, number)
    assert (after.order.status, after.payments[0].origin) == (OrderStatus.PAID, Origin.OURS)
    wish = RefundWish(order_no=state.order.order_no, out_trade_no=number, key="k", amount=100)
    assert (await request_refund(harness.resources, wish, by="ann", reason="x")).refund is not None


async def test_money_for_a_closed_order_is_late_and_for_a_paid_one_double(harness: FlowHarness) -> None:
    await harness.add_account("main", late_policy=LatePolicy.FLAG)
    harness.resources.accounts._read_at = -1e9
    closed = await open_order(harness)
    await request_close(harness.resources, closed.order.order_no)
    after = await attach(harness, closed, bought_elsewhere(harness))
    assert (after.order.status, await harness.cases(closed.order.order_no)) == (OrderStatus.CLOSED, ["paid_late"])

    paid = await open_order(harness)
    await attach(harness, paid, bought_elsewhere(harness))
    twice = await attach(harness, paid, bought_elsewhere(harness))
    assert twice.order.paid_by == twice.payments[0].key
    assert await harness.cases(paid.order.order_no) == ["double_payment"]


@pytest.mark.parametrize(
    ("key", "payment"),
    [
        ("attach.no_money", {"is_paid": False}),
        ("attach.other_amount", {"amount": AMOUNT - 1}),
        ("attach.other_amount", {"currency": "USD"}),
    ],
)
async def test_money_that_does_not_agree_is_not_attached(
    harness: FlowHarness, key: str, payment: dict[str, object]
) -> None:
    state, number = await open_order(harness), bought_elsewhere(harness, **payment)  # type: ignore[arg-type]
    with pytest.raises(NotPossible) as refused:
        await attach(harness, state, number)
    assert refused.value.line.key == key
    assert (await harness.state(state)).payments == ()


async def test_money_of_another_order_is_not_attached_to_a_second_one(harness: FlowHarness) -> None:
    first, second, number = await open_order(harness), await open_order(harness), bought_elsewhere(harness)
    await attach(harness, first, number)
    with pytest.raises(NotPossible) as refused:
        await attach(harness, second, number)
    assert (
        refused.value.line.text == f"This money is known here: it is of order {first.order.order_no}, payment {number}."
    )
    ours = await harness.placed_order()
    harness.pay(ours.payments[0])
    with pytest.raises(NotPossible, match="known here"):
        await attach(harness, second, ours.payments[0].out_trade_no)


async def test_money_of_the_other_world_is_not_attached(harness: FlowHarness) -> None:
    await harness.add_account("real", live=True)
    state = (await harness.place("real")).state
    with pytest.raises(NotPossible) as refused:
        await attach(harness, state, bought_elsewhere(harness))
    assert refused.value.line.key == "attach.other_world"


async def test_test_money_does_not_pay_an_order_whose_buyer_may_choose_real_accounts(
    harness: FlowHarness,
) -> None:
    """It has no payment yet, so nothing but the merchant's choice says of which world it is."""
    await harness.add_account("real", live=True)
    state = (await harness.place(None, accounts=("real",))).state
    number = bought_elsewhere(harness)
    with pytest.raises(NotPossible) as refused:
        await attach(harness, state, number)
    assert refused.value.line.key == "attach.other_world"
    assert (await harness.state(state)).payments == ()
    test_order = (await harness.place(None, accounts=("main",))).state
    assert (await attach(harness, test_order, number)).order.status is OrderStatus.PAID


async def test_an_order_that_moved_since_the_preview_is_shown_again(harness: FlowHarness) -> None:
    state, number = await open_order(harness), bought_elsewhere(harness)
    await request_close(harness.resources, state.order.order_no)
    with pytest.raises(PreviewOutdated) as outdated:
        await attach(harness, state, number, version=state.order.version)
    assert "attach.comes_late" in [line.key for line in outdated.value.preview.lines]
    assert (await harness.state(state)).payments == ()


async def test_an_order_that_is_not_there_and_an_empty_reason_attach_nothing(harness: FlowHarness) -> None:
    with pytest.raises(NotFound):
        await preview_attach(harness.resources, "none", "main", bought_elsewhere(harness))
    with pytest.raises(InvalidRequest):
        await attach_payment(harness.resources, "none", "main", "elsewhere-1", by="ann", reason=" ")


async def test_a_channel_that_falls_silent_between_the_two_queries_leaves_the_payment_open(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pending row asks on: nothing is lost, and nothing is paid without an answer."""
    from flows import attach as attach_flow

    state, number = await open_order(harness), bought_elsewhere(harness)

    async def silent(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(attach_flow, "query_now", silent)
    after = await attach(harness, state, number)
    assert (after.order.status, after.payments[0].status) == (OrderStatus.PAYING, PaymentStatus.OPEN)
    await harness.fetch_value("UPDATE pending SET leased_until = NULL RETURNING 1")
    await harness.run_query_job(after)
    assert (await harness.state(state)).order.status is OrderStatus.PAID


# -- other numbers that a buyer holds ----------------------------------------------------------------------------------


async def account_at(harness: FlowHarness, channel: str) -> str:
    """An account of this channel, as its name; returns the merchant's id there."""
    opened = harness.simulation.channels[channel].open_account(channel, f"{harness.url}/nobody")
    merchant_id: str = opened.account.merchant_id
    harness.simulation.accounts[merchant_id] = opened.account
    config = AccountConfig(
        name=channel,
        channel=channel,
        base_url=harness.simulation.urls[channel],
        credentials=opened.credentials,
        custom_host=True,
    )
    await put_account(harness.resources.db, harness.sealer, config)
    return merchant_id


async def paid_elsewhere(harness: FlowHarness, channel: str) -> tuple[str, str]:
    """The merchant's and the channel's number of a payment that another system has made there."""
    merchant = await account_at(harness, channel)
    number = bought_elsewhere(harness, "shop-2026-000123", merchant=merchant)
    payment = harness.simulation.ledger.find(Key(merchant, number), harness.simulation.now())
    assert payment is not None
    assert payment.transaction_id is not None
    return number, payment.transaction_id


@pytest.mark.parametrize("channel", ["alipay", "wechatpay"])
async def test_money_is_attached_by_the_channels_own_number(harness: FlowHarness, channel: str) -> None:
    """The buyer has a screenshot with the number of Alipay or WeChat Pay, and nothing else."""
    number, transaction = await paid_elsewhere(harness, channel)
    looked = await look_up(harness.resources, channel, transaction)
    assert isinstance(looked.evidence, Paid)
    assert (looked.number, looked.out_trade_no, looked.reference, looked.known) == (transaction, number, None, None)

    state = await open_order(harness)
    wanted = (harness.resources, state.order.order_no, channel, transaction)
    after = await attach_payment(*wanted, by="ann", reason="a screenshot")
    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, (channel, number))
    again = await look_up(harness.resources, channel, transaction)
    assert again.known is not None
    assert again.known.order_no == state.order.order_no


async def test_a_refunds_number_leads_to_its_payment(harness: FlowHarness) -> None:
    number, _ = await paid_elsewhere(harness, "wechatpay")
    [merchant] = {row.merchant_id for row in harness.simulation.ledger.payments(harness.simulation.now())}
    refund = harness.simulation.refund_in_console(Key(merchant, number), 100)
    assert not isinstance(refund, Refusal)
    looked = await look_up(harness.resources, "wechatpay", refund.refund_no)
    assert (looked.out_trade_no, looked.evidence.amount) == (number, AMOUNT)


async def test_a_number_that_neither_way_names_a_payment_is_missing(harness: FlowHarness) -> None:
    await account_at(harness, "alipay")
    await account_at(harness, "stripe")
    for channel, number in (("alipay", "2026112322001478901234567890"), ("stripe", "ch_nobody")):
        assert isinstance((await look_up(harness.resources, channel, number)).evidence, Missing)
    evidence = (await look_up(harness.resources, "stripe", "hello")).evidence
    assert isinstance(evidence, Unclear)
    assert evidence.reason == "no_channel_reference"


async def test_no_answer_about_the_other_number_is_no_conclusion(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the merchant's number it is missing, which says nothing of the channel's."""
    _, transaction = await paid_elsewhere(harness, "alipay")
    account = await harness.resources.accounts.get("alipay")

    async def broken(_number: str) -> None:
        raise ChannelUnavailable("status_500")

    monkeypatch.setattr(account.channel, "find_number", broken)
    evidence = (await look_up(harness.resources, "alipay", transaction)).evidence
    assert isinstance(evidence, Unclear)
    assert evidence.reason == "status_500"
