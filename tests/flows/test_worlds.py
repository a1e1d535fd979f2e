"""Accounts that were stored before their world was checked go on, and a person is asked once."""

import pytest

from core.errors import InvalidRequest, NotPossible
from core.lifecycle import LatePolicy
from core.order import CaseReason, OrderState, OrderStatus, Origin, PaymentStatus, RefundStatus
from core.paying import Device
from flows.attach import attach_payment
from flows.choice import ways_to_pay
from flows.place import PaymentRequest, Watch, start_payment
from flows.refund import refund_scheduled
from flows.refund_request import RefundWish, preview_refund, request_refund
from flows.worlds import open_world_cases
from storage.postgres.cases import list_cases, resolve_case
from tests.flows.conftest import FlowHarness
from tests.flows.test_attach import bought_elsewhere


async def wrong_worlds(harness: FlowHarness) -> list[tuple[str | None, str]]:
    rows, _ = await list_cases(harness.resources.db, reason=CaseReason.WRONG_WORLD)
    return [(row.account, row.detail) for row in rows]


async def test_a_stored_sandbox_that_is_live_goes_on_with_a_case(harness: FlowHarness) -> None:
    await harness.add_account("odd", live=True)
    state: OrderState = await harness.placed_order("odd")
    assert state.payments[0].live is True
    assert await open_world_cases(harness.resources) == 1
    assert await wrong_worlds(harness) == [("odd", "live is true, and sandbox moves no real money")]


async def test_a_person_is_asked_again_only_after_the_account_was_changed(harness: FlowHarness) -> None:
    await harness.add_account("odd", live=True)
    assert await open_world_cases(harness.resources) == 1
    assert await open_world_cases(harness.resources) == 0
    rows, _ = await list_cases(harness.resources.db, reason=CaseReason.WRONG_WORLD)
    assert await resolve_case(harness.resources.db, rows[0].id, resolution="it is meant", by="kim")
    assert await open_world_cases(harness.resources) == 0
    await harness.add_account("odd", live=True)
    assert await open_world_cases(harness.resources) == 1


async def test_an_account_of_the_right_world_has_no_case(harness: FlowHarness) -> None:
    assert await open_world_cases(harness.resources) == 0


async def test_an_order_knows_the_world_of_its_account(harness: FlowHarness) -> None:
    assert (await harness.placed_order("main")).live is False


# -- one order, one world ----------------------------------------------------------------------------------------------


async def start(harness: FlowHarness, state: OrderState, account: str, watch: Watch | None = None) -> OrderState:
    request = PaymentRequest(account=account, watch=watch)
    return (await start_payment(harness.resources, state.order.order_no, request)).state


async def test_test_money_is_not_started_for_an_order_of_real_money_nor_the_reverse(harness: FlowHarness) -> None:
    await harness.add_account("real", live=True)
    real, test = await harness.placed_order("real"), await harness.placed_order("main")
    with pytest.raises(InvalidRequest, match="moves test money, and the order is about real money"):
        await start(harness, real, "main")
    with pytest.raises(InvalidRequest, match="moves real money, and the order is about test money"):
        await start(harness, test, "real")
    with pytest.raises(InvalidRequest):  # nor is one of another system watched
        await start(harness, real, "main", Watch(out_trade_no=bought_elsewhere(harness)))
    assert [len((await harness.state(state)).payments) for state in (real, test)] == [1, 1]


async def test_the_accounts_to_choose_from_say_the_world_before_there_is_a_payment(harness: FlowHarness) -> None:
    await harness.add_account("real", live=True)
    state = (await harness.place(None, accounts=("real",))).state
    with pytest.raises(InvalidRequest, match="real money"):
        await start(harness, state, "main")
    assert (await harness.state(state)).order.status is OrderStatus.CREATED
    assert len((await start(harness, state, "real")).payments) == 1


async def test_two_starts_at_once_are_of_one_world(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sees the other's payment before it commits; the decision does."""
    from flows import place

    await harness.add_account("real", live=True)
    state = (await harness.place(None)).state

    async def beside(*args: object, **more: object) -> object:
        monkeypatch.undo()
        await start(harness, state, "real")
        return (), {}

    monkeypatch.setattr(place, "_query_earlier", beside)
    with pytest.raises(InvalidRequest, match="real money"):
        await start(harness, state, "main")
    [payment] = (await harness.state(state)).payments
    assert payment.live is True


async def test_a_page_offers_no_account_of_the_other_world(harness: FlowHarness) -> None:
    await harness.add_account("second")
    state = (await harness.place("main", accounts=("main", "second"))).state
    assert {way.account for way in await ways_to_pay(harness.resources, state, Device.DESK)} == {"main", "second"}
    await changed_world(harness, "second", live=True)
    assert {way.account for way in await ways_to_pay(harness.resources, state, Device.DESK)} == {"main"}


async def test_money_of_the_other_world_is_not_attached_beside_a_mix(harness: FlowHarness) -> None:
    """An order that an earlier version let have both: no more of either comes to it."""
    await harness.add_account("real", live=True)
    await harness.add_account("second")
    state = await harness.placed_order("main")
    state = await start(harness, state, "second")
    await harness.fetch_value("UPDATE payments SET live = true WHERE channel_account = 'second' RETURNING 1")
    for account in ("main", "real"):
        number = bought_elsewhere(harness, merchant=f"m-{account}")
        with pytest.raises(NotPossible) as refused:
            await attach_payment(harness.resources, state.order.order_no, account, number, by="ann", reason="x")
        assert refused.value.line.key == "attach.other_world"


# -- an account that has changed its world -----------------------------------------------------------------------------


async def changed_world(harness: FlowHarness, name: str, *, live: bool, **config: object) -> None:
    """The commands refuse that once the account has payments; a restored database or an older version may have it."""
    await harness.add_account(name, live=live, **config)
    harness.resources.accounts._read_at = -1e9


async def test_a_payment_is_not_asked_about_in_the_other_world(harness: FlowHarness) -> None:
    """There it is missing, which would close a payment whose buyer can still pay it where it was made."""
    state = await harness.placed_order()
    await changed_world(harness, "main", live=True)
    before = harness.call_count("query")
    await harness.run_query_job(state)
    after = await harness.pass_deadline(await harness.state(state))
    await harness.run_close_job(after)
    assert harness.call_count("query") == before
    [payment] = (await harness.state(state)).payments
    assert (payment.status, payment.origin) == (PaymentStatus.OPEN, Origin.OURS)
    await changed_world(harness, "main", live=False)
    harness.pay(payment)
    await harness.make_due()
    await harness.run_query_job(await harness.state(state))
    assert (await harness.state(state)).order.status is OrderStatus.PAID


async def test_money_is_not_given_back_in_the_other_world(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money(LatePolicy.REFUND)
    [refund] = (await harness.state(state)).refunds
    await changed_world(harness, "late-refund", live=True)
    calls = harness.call_count("refund")
    await refund_scheduled(harness.resources, refund.refund_no, 1)
    assert harness.call_count("refund") == calls
    assert (await harness.state(state)).refunds[0].status is RefundStatus.REQUESTED
    wish = RefundWish(order_no=state.order.order_no, out_trade_no=refund.key.out_trade_no, key="k", amount=1)
    shown = await preview_refund(harness.resources, wish)
    assert shown.refusal is not None
    assert shown.refusal.key == "refund.other_world"
    with pytest.raises(NotPossible, match="changed between test and real money"):
        await request_refund(harness.resources, wish, by="ann", reason="x")
