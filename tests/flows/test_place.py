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


async def test_placing_an_order_arms_query_and_deadline_and_returns_a_checkout(harness: FlowHarness) -> None:
    placed = await harness.place()
    (payment,) = placed.state.payments
    assert placed.outcome is Outcome.PLACED
    assert payment.checkout is not None
    assert payment.checkout.value.startswith(harness.url)
    query = await harness.pending_row("main", payment.out_trade_no)
    deadline = await harness.pending_row("", placed.state.order.order_no)
    assert query is not None
    assert deadline is not None
    assert (query.attempt, 55 < query.due_in_s <= 60) == (1, True)
    assert 590 < deadline.due_in_s <= 600
    assert public_status(placed.state.order, placed.state.payments) is PublicStatus.PROCESSING


async def test_a_replay_returns_the_same_order_and_creates_one_payment(harness: FlowHarness) -> None:
    terms, payment = order_terms(), PaymentRequest(account="main")
    first = await place_order(harness.resources, terms, payment, expires_in_s=600)
    repeated = await place_order(harness.resources, terms, payment, expires_in_s=600)
    assert repeated.outcome is Outcome.SAME
    assert repeated.state.payments == first.state.payments
    assert harness.call_count("create") == 1


async def test_ten_simultaneous_requests_place_one_order_and_one_payment(harness: FlowHarness) -> None:
    terms, payment = order_terms(), PaymentRequest(account="main")
    results = await asyncio.gather(
        *(place_order(harness.resources, terms, payment, expires_in_s=600) for _ in range(10)),
    )
    assert [placed.outcome for placed in results].count(Outcome.PLACED) == 1
    assert len({placed.state.payments[0].out_trade_no for placed in results}) == 1
    assert len(list(harness.simulation.ledger.payments(harness.simulation.now()))) == 1


async def test_other_terms_are_a_conflict_and_create_nothing(harness: FlowHarness) -> None:
    terms = order_terms()
    await place_order(harness.resources, terms, PaymentRequest(account="main"), expires_in_s=600)
    with pytest.raises(OrderConflict):
        await place_order(
            harness.resources,
            order_terms(order_no=terms.order_no, amount=1),
            PaymentRequest(account="main"),
            expires_in_s=600,
        )
    assert harness.call_count("create") == 1


@pytest.mark.parametrize(
    "profile",
    [FaultProfile(create_answer_lost=1.0), FaultProfile(answered_5xx=1.0), FaultProfile(html_error=1.0)],
    ids=["answer lost", "5xx", "HTML"],
)
async def test_an_unclear_creation_leaves_an_armed_order_and_a_replay_gets_the_checkout(
    harness: FlowHarness, profile: FaultProfile
) -> None:
    harness.simulation.faults.profile = profile
    terms, payment = order_terms(), PaymentRequest(account="main")
    unknown = (await place_order(harness.resources, terms, payment, expires_in_s=600)).state
    assert unknown.order.status is OrderStatus.PAYING
    assert unknown.payments[0].checkout is None
    assert await harness.pending_row("main", unknown.payments[0].out_trade_no) is not None

    harness.simulation.faults.profile = FaultProfile()
    repeated = (await place_order(harness.resources, terms, payment, expires_in_s=600)).state
    assert repeated.payments[0].out_trade_no == unknown.payments[0].out_trade_no
    assert repeated.payments[0].checkout is not None
    assert len(list(harness.simulation.ledger.payments(harness.simulation.now()))) == 1


async def test_a_refused_creation_raises_payment_refused_and_closes_the_payment(harness: FlowHarness) -> None:
    """The channel refused the creation and a query finds no payment: both together are definite."""
    terms = order_terms(subject="no control characters \x01")
    with pytest.raises(PaymentRefused, match="INVALID_PARAMETER"):
        await place_order(harness.resources, terms, PaymentRequest(account="main"), expires_in_s=600)
    state = await harness.state(terms.order_no)
    assert state.payments[0].status is PaymentStatus.CLOSED
    assert state.order.status is OrderStatus.PAYING
    assert await harness.pending_row("main", state.payments[0].out_trade_no) is None


async def test_a_refused_creation_stays_open_until_a_query_finds_no_payment(
    harness: FlowHarness,
) -> None:
    harness.simulation.faults.profile = FaultProfile(affected=(CallKind.QUERY,), answered_5xx=1.0)
    terms = order_terms(subject="\x01")
    with pytest.raises(PaymentRefused):
        await place_order(harness.resources, terms, PaymentRequest(account="main"), expires_in_s=600)
    state = await harness.state(terms.order_no)
    assert state.payments[0].status is PaymentStatus.OPEN
    assert await harness.pending_row("main", state.payments[0].out_trade_no) is not None


async def test_an_unknown_account_is_refused_before_anything_is_written(harness: FlowHarness) -> None:
    terms = order_terms()
    with pytest.raises(UnknownAccount):
        await place_order(harness.resources, terms, PaymentRequest(account="unknown"), expires_in_s=600)
    assert await harness.fetch_value("SELECT count(*) FROM orders") == 0


async def test_without_an_account_an_order_waits_for_its_first_payment(harness: FlowHarness) -> None:
    placed = await harness.place(None)
    assert placed.state.order.status is OrderStatus.CREATED
    assert await harness.pending_row("", placed.state.order.order_no) is not None
    started = await start_payment(harness.resources, placed.state.order.order_no, PaymentRequest(account="main"))
    assert started.outcome is Outcome.STARTED
    assert started.state.payments[0].checkout is not None


async def test_a_watched_payment_is_registered_and_never_created(harness: FlowHarness) -> None:
    watch = PaymentRequest(account="main", watch=Watch(out_trade_no="watched-0001"))
    state = (await place_order(harness.resources, order_terms(), watch, expires_in_s=600)).state
    assert state.payments[0].origin is Origin.WATCHED
    assert harness.call_count("create") == 0
    with pytest.raises(NumberTaken):
        await place_order(harness.resources, order_terms(), watch, expires_in_s=600)


# -- another attempt ---------------------------------------------------------------------------------------------------


async def test_a_second_request_for_the_same_account_and_method_reuses_the_open_payment(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    repeated = await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="main"))
    assert repeated.outcome is Outcome.REUSED
    assert [row.out_trade_no for row in repeated.state.payments] == [state.payments[0].out_trade_no]


async def test_another_account_starts_a_second_payment_after_a_query_of_the_first(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed_order()
    second = await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert second.outcome is Outcome.STARTED
    assert [row.channel_account for row in second.state.payments] == ["main", "other"]
    assert second.state.payments[1].checkout is not None
    assert harness.call_count("query") == 1


async def test_no_second_payment_starts_when_the_first_is_paid(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    with pytest.raises(OrderPaid):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert (await harness.state(state)).order.status is OrderStatus.PAID


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "truncated", "wrong_amount_in_query"])
async def test_no_second_payment_starts_while_an_earlier_one_is_unclear(harness: FlowHarness, fault: str) -> None:
    await harness.add_account("other")
    state = await harness.placed_order()
    harness.call_fault(state.payments[0], fault)
    with pytest.raises(PaymentUnclear):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert len((await harness.state(state)).payments) == 1


async def test_no_second_payment_starts_while_money_is_being_settled(harness: FlowHarness) -> None:
    """A slow method settles after days. A second payment would pay the order twice."""
    opened = harness.simulation.channels["stripe"].open_account("stripe", f"{harness.url}/nobody")
    harness.simulation.accounts[opened.account.merchant_id] = opened.account
    url = harness.simulation.urls["stripe"]
    config = AccountConfig(name="stripe", channel="stripe", base_url=url, credentials=opened.credentials)
    await put_account(harness.resources.db, harness.sealer, config)
    state = await harness.placed_order("stripe")
    harness.simulation.faults.profile = FaultProfile(settles_later=1.0, settle_after_s=3600.0)
    harness.simulation.pay(LedgerKey(opened.account.merchant_id, state.payments[0].out_trade_no))
    with pytest.raises(PaymentUnclear):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="main"))
    assert len((await harness.state(state)).payments) == 1


async def test_no_second_payment_starts_beside_one_whose_account_is_gone(harness: FlowHarness) -> None:
    """Nobody can be asked whether it is paid."""
    await harness.add_account("other")
    state = await harness.placed_order()
    await harness.fetch_value("DELETE FROM accounts WHERE name = 'main' RETURNING name")
    harness.resources.accounts._read_at = -1e9
    with pytest.raises(PaymentUnclear):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    assert len((await harness.state(state)).payments) == 1


async def test_an_expired_order_starts_no_payment(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.pass_deadline(await harness.placed_order())
    with pytest.raises(OrderClosed):
        await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))
    with pytest.raises(NotFound):
        await start_payment(harness.resources, "F-unknown", PaymentRequest(account="main"))


async def test_a_payment_expires_with_its_order(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert state.payments[0].payable_until - state.order.expires_at < timedelta(seconds=1)
