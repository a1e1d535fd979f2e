import asyncio
from datetime import timedelta

import pytest

from core.account import AccountConfig
from core.decision import Outcome
from core.errors import (
    NotFound,
    NumberTaken,
    OrderClosed,
    OrderConflict,
    OrderPaid,
    PaymentRefused,
    PaymentUnclear,
    UnknownAccount,
)
from core.order import OrderStatus, Origin, PaymentStatus, PublicStatus, public_status
from flows.place import PaymentRequest, Watch, place_order, start_payment
from simulator.kernel.faults import CallKind, FaultProfile
from simulator.kernel.ledger import Key as LedgerKey
from storage.postgres.accounts import put_account
from tests.flows.conftest import FlowHarness, order_terms


async def test_placing_arms_the_query_and_the_deadline_and_hands_off_a_checkout(harness: FlowHarness) -> None:
    placed = await harness.place()
    (payment,) = placed.state.payments
    assert placed.outcome is Outcome.PLACED
    assert payment.checkout is not None
    assert payment.checkout.value.startswith(harness.url)
    query = await harness.row("main", payment.out_trade_no)
    deadline = await harness.row("", placed.state.order.order_no)
    assert query is not None
    assert deadline is not None
    assert (query.attempt, 55 < query.due_in_s <= 60) == (1, True)
    assert 590 < deadline.due_in_s <= 600
    assert public_status(placed.state.order, placed.state.payments) is PublicStatus.PROCESSING


async def test_a_replay_is_the_same_order_and_creates_once(harness: FlowHarness) -> None:
    terms, payment = order_terms(), PaymentRequest(account="main")
    first = await place_order(harness.resources, terms, payment, expires_in_s=600)
    again = await place_order(harness.resources, terms, payment, expires_in_s=600)
    assert again.outcome is Outcome.SAME
    assert again.state.payments == first.state.payments
    assert harness.calls("create") == 1


async def test_ten_replays_at_once_are_one_order_and_one_payment(harness: FlowHarness) -> None:
    terms, payment = order_terms(), PaymentRequest(account="main")
    placed = await asyncio.gather(
        *(place_order(harness.resources, terms, payment, expires_in_s=600) for _ in range(10)),
    )
    assert [one.outcome for one in placed].count(Outcome.PLACED) == 1
    assert len({one.state.payments[0].out_trade_no for one in placed}) == 1
    assert len(list(harness.far_side.ledger.payments(harness.far_side.now()))) == 1


async def test_other_terms_are_a_conflict_and_nothing_is_created(harness: FlowHarness) -> None:
    terms = order_terms()
    await place_order(harness.resources, terms, PaymentRequest(account="main"), expires_in_s=600)
    with pytest.raises(OrderConflict):
        await place_order(
            harness.resources,
            order_terms(order_no=terms.order_no, amount=1),
            PaymentRequest(account="main"),
            expires_in_s=600,
        )
    assert harness.calls("create") == 1


@pytest.mark.parametrize(
    "profile",
    [FaultProfile(create_answer_lost=1.0), FaultProfile(answered_5xx=1.0), FaultProfile(html_error=1.0)],
    ids=["answer lost", "5xx", "HTML"],
)
async def test_a_creation_whose_outcome_is_unknown_leaves_an_armed_order_and_a_replay_hands_it_off(
    harness: FlowHarness, profile: FaultProfile
) -> None:
    harness.far_side.faults.profile = profile
    terms, payment = order_terms(), PaymentRequest(account="main")
    unknown = (await place_order(harness.resources, terms, payment, expires_in_s=600)).state
    assert unknown.order.status is OrderStatus.PAYING
    assert unknown.payments[0].checkout is None
    assert await harness.row("main", unknown.payments[0].out_trade_no) is not None

    harness.far_side.faults.profile = FaultProfile()
    again = (await place_order(harness.resources, terms, payment, expires_in_s=600)).state
    assert again.payments[0].out_trade_no == unknown.payments[0].out_trade_no
    assert again.payments[0].checkout is not None
    assert len(list(harness.far_side.ledger.payments(harness.far_side.now()))) == 1


async def test_a_refused_creation_is_payment_refused_and_ends_the_payment(harness: FlowHarness) -> None:
    """The channel said no, and asked again it knows no such payment: together that is definite."""
    terms = order_terms(subject="no control characters \x01")
    with pytest.raises(PaymentRefused, match="INVALID_PARAMETER"):
        await place_order(harness.resources, terms, PaymentRequest(account="main"), expires_in_s=600)
    state = await harness.state(terms.order_no)
    assert state.payments[0].status is PaymentStatus.CLOSED
    assert state.order.status is OrderStatus.PAYING
    assert await harness.row("main", state.payments[0].out_trade_no) is None


async def test_a_refused_creation_stays_open_while_the_channel_does_not_confirm_that_it_is_missing(
    harness: FlowHarness,
) -> None:
    harness.far_side.faults.profile = FaultProfile(affected=(CallKind.QUERY,), answered_5xx=1.0)
    terms = order_terms(subject="\x01")
    with pytest.raises(PaymentRefused):
        await place_order(harness.resources, terms, PaymentRequest(account="main"), expires_in_s=600)
    state = await harness.state(terms.order_no)
    assert state.payments[0].status is PaymentStatus.OPEN
    assert await harness.row("main", state.payments[0].out_trade_no) is not None


async def test_an_unknown_account_is_said_before_anything_is_written(harness: FlowHarness) -> None:
    terms = order_terms()
    with pytest.raises(UnknownAccount):
        await place_order(harness.resources, terms, PaymentRequest(account="nobody"), expires_in_s=600)
    assert await harness.one("SELECT count(*) FROM orders") == 0


async def test_without_an_account_an_order_waits_for_its_first_payment(harness: FlowHarness) -> None:
    placed = await harness.place(None)
    assert placed.state.order.status is OrderStatus.CREATED
    assert await harness.row("", placed.state.order.order_no) is not None
    started = await start_payment(harness.resources, placed.state.order.order_no, PaymentRequest(account="main"))
    assert started.outcome is Outcome.STARTED
    assert started.state.payments[0].checkout is not None


async def test_a_watched_payment_is_registered_and_never_created(harness: FlowHarness) -> None:
    watch = PaymentRequest(account="main", watch=Watch(out_trade_no="watched-0001"))
    state = (await place_order(harness.resources, order_terms(), watch, expires_in_s=600)).state
    assert state.payments[0].origin is Origin.WATCHED
    assert harness.calls("create") == 0
    with pytest.raises(NumberTaken):
        await place_order(harness.resources, order_terms(), watch, expires_in_s=600)


# -- another attempt ---------------------------------------------------------------------------------------------------


async def test_the_same_account_and_method_uses_the_open_payment_again(harness: FlowHarness) -> None:
    state = await harness.placed()
    again = await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="main"))
    assert again.outcome is Outcome.REUSED
    assert [row.out_trade_no for row in again.state.payments] == [state.payments[0].out_trade_no]


async def test_another_account_starts_a_second_payment_after_the_first_was_asked_about(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed()
    second = await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert second.outcome is Outcome.STARTED
    assert [row.channel_account for row in second.state.payments] == ["main", "other"]
    assert second.state.payments[1].checkout is not None
    assert harness.calls("query") == 1


async def test_a_user_who_has_paid_is_not_asked_to_pay_again(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed()
    harness.pay(state.payments[0])
    with pytest.raises(OrderPaid):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert (await harness.state(state)).order.status is OrderStatus.PAID


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "truncated", "wrong_amount_in_query"])
async def test_while_an_earlier_payment_is_unclear_no_other_one_is_started(harness: FlowHarness, fault: str) -> None:
    await harness.add_account("other")
    state = await harness.placed()
    harness.call_fault(state.payments[0], fault)
    with pytest.raises(PaymentUnclear):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert len((await harness.state(state)).payments) == 1


async def test_while_money_is_under_way_nobody_is_asked_to_pay_another_way(harness: FlowHarness) -> None:
    """The buyer has sent it by a slow method, and the order is unpaid for days: a second payment would be double."""
    opened = harness.far_side.channels["stripe"].open_account("stripe", f"{harness.url}/nobody")
    harness.far_side.accounts[opened.account.merchant_id] = opened.account
    url = harness.far_side.urls["stripe"]
    config = AccountConfig(name="stripe", channel="stripe", base_url=url, credentials=opened.credentials)
    await put_account(harness.resources.db, harness.sealer, config)
    state = await harness.placed("stripe")
    harness.far_side.faults.profile = FaultProfile(settles_later=1.0, settle_after_s=3600.0)
    harness.far_side.pay(LedgerKey(opened.account.merchant_id, state.payments[0].out_trade_no))
    with pytest.raises(PaymentUnclear):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="main"))
    assert len((await harness.state(state)).payments) == 1


async def test_an_order_whose_time_is_over_takes_no_payment(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.overdue(await harness.placed())
    with pytest.raises(OrderClosed):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    with pytest.raises(NotFound):
        await start_payment(harness.resources, "F-nobody", PaymentRequest(account="main"))


async def test_the_channel_may_take_money_no_longer_than_the_order_lives(harness: FlowHarness) -> None:
    state = await harness.placed()
    assert state.payments[0].payable_until - state.order.expires_at < timedelta(seconds=1)
