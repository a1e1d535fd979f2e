"""Watched payments: whose money an object is, that has several ids."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from core.decision import Outcome
from core.errors import InvalidRequest, NumberTaken
from core.evidence import Evidence, Paid, Unpaid
from core.order import OrderState, OrderStatus, Payment, PaymentKey
from flows.compensation import compensate_callback
from flows.place import PaymentRequest, Watch, place_order, start_payment
from simulator.kernel.faults import FaultProfile
from simulator.kernel.ledger import Payment as LedgerPayment
from simulator.kernel.ledger import Terms
from storage.postgres.accounts import put_account
from storage.postgres.inbox import insert_callback
from tests.flows.conftest import AMOUNT, FlowHarness, order_terms
from tests.flows.test_disputes import SILENT, AtChannel


async def watched(harness: FlowHarness, number: str, reference: str | None = None) -> OrderState:
    watch = Watch(out_trade_no=number, channel_reference=reference)
    request = PaymentRequest(account="main", watch=watch)
    return (await place_order(harness.resources, order_terms(), request, expires_in_s=600)).state


def money(number: str, *ids: str, **changes: Any) -> Paid:
    evidence = Paid(
        channel_account="main",
        out_trade_no=number,
        ids=ids,
        amount=AMOUNT,
        currency="CNY",
        channel_transaction_id="t-1",
    )
    return replace(evidence, **changes)


async def set_response(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, evidence: Evidence) -> None:
    """Let the channel answer every query with this evidence."""

    async def query(payment: Payment) -> Evidence:
        return replace(evidence, out_trade_no=payment.out_trade_no)

    monkeypatch.setattr((await harness.resources.accounts.get("main")).channel, "query_payment", query)


async def status_and_cases(harness: FlowHarness, state: OrderState) -> tuple[OrderStatus, list[str]]:
    return (await harness.state(state)).order.status, await harness.cases(state.order.order_no)


async def test_ids_that_name_nothing_here_contradict_nothing(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await watched(harness, "shop-000001", "5C1")
    await set_response(harness, monkeypatch, money("", '{"order_id":7}', "WC-1001", "5C1"))
    assert await harness.run_query_job(state) is Outcome.PAID
    assert await status_and_cases(harness, state) == (OrderStatus.PAID, [])


async def test_an_object_that_names_an_order_of_ours_pays_that_order(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await harness.placed_order()
    state = await watched(harness, "shop-000001", "5C1")
    await set_response(harness, monkeypatch, money("", ours.payments[0].out_trade_no, "5C1"))
    assert await harness.run_query_job(state) is Outcome.MISMATCH
    assert await status_and_cases(harness, state) == (OrderStatus.PAYING, ["number_mismatch"])
    assert await status_and_cases(harness, ours) == (OrderStatus.PAID, [])
    assert await harness.run_query_job(state) is Outcome.MISMATCH
    assert await status_and_cases(harness, ours) == (OrderStatus.PAID, [])


async def test_money_that_disagrees_with_the_order_that_it_names_is_a_case_there_too(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await harness.placed_order()
    state = await watched(harness, "shop-000001", "5C1")
    await set_response(harness, monkeypatch, money("", ours.payments[0].out_trade_no, "5C1", amount=1))
    assert await harness.run_query_job(state) is Outcome.MISMATCH
    assert await status_and_cases(harness, ours) == (OrderStatus.PAYING, ["amount_mismatch"])


async def test_an_unpaid_object_says_nothing_about_the_payment_that_it_names(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That payment may have another object, which is open."""
    ours = await harness.placed_order()
    state = await watched(harness, "shop-000001", "5C1")
    ids = (ours.payments[0].out_trade_no, "5C1")
    await set_response(harness, monkeypatch, Unpaid(channel_account="main", out_trade_no="", ids=ids))
    assert await harness.run_query_job(state) is Outcome.MISMATCH
    assert await status_and_cases(harness, state) == (OrderStatus.PAYING, ["number_mismatch"])
    assert (await harness.state(ours)).order.version == ours.order.version


async def test_the_number_of_another_watched_payment_is_a_case_and_pays_nothing(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is watched by another id of the channel: this object is not its own."""
    other = await watched(harness, "shop-000002", "5C2")
    state = await watched(harness, "shop-000001", "5C1")
    await set_response(harness, monkeypatch, money("", "shop-000002", "5C1"))
    assert await harness.run_query_job(state) is Outcome.MISMATCH
    assert await status_and_cases(harness, state) == (OrderStatus.PAYING, ["number_mismatch"])
    assert await status_and_cases(harness, other) == (OrderStatus.PAYING, [])


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def compensated(harness: FlowHarness, evidence: Evidence, account: str = "main") -> Outcome:
    """Handle a stored callback of this evidence."""
    stored = await insert_callback(
        harness.resources.db,
        harness.sealer,
        account=account,
        notification_id="evt-1",
        headers={},
        body=b"{}",
        evidence=evidence,
        received_at=None,
        due_s=0.0,
        kept_s=86_400.0,
    )
    return await compensate_callback(harness.resources, stored.id, stored.arm_no)


@pytest.mark.parametrize("ids", [("WC-1001", "5C1"), ("shop-000001", "customer 7"), ("customer 7", "5C1")])
async def test_a_callback_finds_its_payment_by_any_id(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, ids: tuple[str, ...]
) -> None:
    state = await watched(harness, "shop-000001", "5C1")
    await set_response(harness, monkeypatch, money("", "WC-1001", "5C1"))
    assert await compensated(harness, money(ids[0], *ids)) is Outcome.PAID
    assert await status_and_cases(harness, state) == (OrderStatus.PAID, [])


# -- what may be watched -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["5C1", "shop-000001"])
async def test_an_id_that_is_known_here_is_watched_once(harness: FlowHarness, reference: str) -> None:
    await watched(harness, "shop-000001", "5C1")
    with pytest.raises(NumberTaken):
        await watched(harness, "shop-000002", reference)
    order_no = (await harness.place(None)).state.order.order_no
    request = PaymentRequest(account="main", watch=Watch(out_trade_no="shop-000002", channel_reference=reference))
    with pytest.raises(NumberTaken):
        await start_payment(harness.resources, order_no, request)
    assert await harness.fetch_value("SELECT count(*) FROM payments") == 1


async def test_the_same_watch_again_is_the_same_order(harness: FlowHarness) -> None:
    request = PaymentRequest(account="main", watch=Watch(out_trade_no="shop-000001", channel_reference="5C1"))
    terms = order_terms()
    for outcome in (Outcome.PLACED, Outcome.SAME):
        assert (await place_order(harness.resources, terms, request, expires_in_s=600)).outcome is outcome
    again = await start_payment(harness.resources, terms.order_no, request)
    assert again.outcome is Outcome.REUSED


async def test_a_number_that_the_channel_cannot_have_is_refused(harness: FlowHarness) -> None:
    with pytest.raises(InvalidRequest, match=r"watch\.out_trade_no"):
        await watched(harness, "1001")
    assert await harness.fetch_value("SELECT count(*) FROM orders") == 0


# -- two accounts of one merchant --------------------------------------------------------------------------------------


async def test_a_watch_under_a_second_name_of_the_account_pays_nothing(harness: FlowHarness) -> None:
    account = harness.driver.account(harness.url)
    credentials = account.credentials | {"merchant_id": "m-main"}
    await put_account(harness.resources.db, harness.sealer, replace(account, name="twin", credentials=credentials))
    ours = await harness.placed_order()
    harness.pay(ours.payments[0])
    assert await harness.run_query_job(ours) is Outcome.PAID
    number = ours.payments[0].out_trade_no
    request = PaymentRequest(account="twin", watch=Watch(out_trade_no=number))
    second = (await place_order(harness.resources, order_terms(), request, expires_in_s=600)).state
    assert second.payments[0].key == PaymentKey("twin", number)
    assert await harness.run_query_job(second) is Outcome.MISMATCH
    assert await status_and_cases(harness, second) == (OrderStatus.PAYING, ["transaction_claimed_twice"])


async def add_twin(harness: FlowHarness, **config: Any) -> None:
    """A second name of the account."""
    account = harness.driver.account(harness.url)
    credentials = account.credentials | {"merchant_id": "m-main"}
    twin = replace(account, name="twin", credentials=credentials, **config)
    await put_account(harness.resources.db, harness.sealer, twin)


async def watched_at_twin(harness: FlowHarness, payment: Payment, **terms: Any) -> OrderState:
    request = PaymentRequest(account="twin", watch=Watch(out_trade_no=payment.out_trade_no))
    return (await place_order(harness.resources, order_terms(**terms), request, expires_in_s=600)).state


async def test_money_watched_under_a_second_name_pays_the_order_that_it_names(harness: FlowHarness) -> None:
    """The watch is queried before the order that the money is of, whose callback was lost."""
    await add_twin(harness)
    ours = await harness.placed_order()
    second = await watched_at_twin(harness, ours.payments[0])
    harness.pay(ours.payments[0])
    assert await harness.run_query_job(second) is Outcome.MISMATCH
    assert await status_and_cases(harness, second) == (OrderStatus.PAYING, ["transaction_claimed_twice"])
    assert await status_and_cases(harness, ours) == (OrderStatus.PAID, [])


async def test_money_that_the_order_under_another_name_cannot_take_pays_no_watch(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_twin(harness)
    ours = await harness.placed_order(amount=AMOUNT + 1)
    second = await watched_at_twin(harness, ours.payments[0])

    async def query(payment: Payment) -> Evidence:
        return money(payment.out_trade_no, channel_account="twin")

    monkeypatch.setattr((await harness.resources.accounts.get("twin")).channel, "query_payment", query)
    assert await harness.run_query_job(second) is Outcome.MISMATCH
    assert await status_and_cases(harness, second) == (OrderStatus.PAYING, ["account_mismatch"])
    assert await status_and_cases(harness, ours) == (OrderStatus.PAYING, ["amount_mismatch"])


async def test_a_trusted_callback_under_a_second_name_leads_to_a_query(harness: FlowHarness) -> None:
    await add_twin(harness, trust_callback=True)
    ours = await harness.placed_order()
    second = await watched_at_twin(harness, ours.payments[0])
    harness.pay(ours.payments[0])
    evidence = money(ours.payments[0].out_trade_no, channel_account="twin")
    assert await compensated(harness, evidence, account="twin") is Outcome.MISMATCH
    assert await status_and_cases(harness, second) == (OrderStatus.PAYING, ["transaction_claimed_twice"])
    assert await status_and_cases(harness, ours) == (OrderStatus.PAID, [])


async def test_a_callback_under_a_second_name_pays_nothing_while_no_query_is_answered(harness: FlowHarness) -> None:
    """It would pay the watch with the money of the order that it names, under another name of the account."""
    await add_twin(harness, trust_callback="when_unanswered")
    ours = await harness.placed_order()
    second = await watched_at_twin(harness, ours.payments[0])
    harness.pay(ours.payments[0])
    harness.simulation.faults.profile = FaultProfile(answered_5xx=1.0)
    evidence = money(ours.payments[0].out_trade_no, channel_account="twin")
    assert await compensated(harness, evidence, account="twin") is Outcome.UNCLEAR
    sql = "UPDATE pending SET unanswered_since = now() - interval '1 hour' WHERE channel_account = 'twin'"
    await harness.resources.db.execute(sql)
    await harness.resources.db.execute("UPDATE callbacks SET received_at = received_at - interval '1 hour'")
    await harness.make_due()
    [row] = await harness.resources.db.fetch("SELECT id::text, arm_no FROM callbacks")
    assert await compensate_callback(harness.resources, row["id"], row["arm_no"]) is Outcome.UNCLEAR
    assert await status_and_cases(harness, second) == (OrderStatus.PAYING, [])
    assert (await harness.state(ours)).order.status is OrderStatus.PAYING


async def test_a_watch_at_wechatpay_by_its_transaction_id_pays_the_order(harness: FlowHarness) -> None:
    """The object's own number is another system's: the id decides."""
    there = AtChannel(harness, "wechatpay")
    await put_account(harness.resources.db, harness.sealer, there.config)
    now = there.simulation.now()
    terms = Terms(
        out_trade_no="shop-000042",
        amount=AMOUNT,
        currency="CNY",
        subject="Tea",
        expires_at=now + timedelta(hours=1),
        callback_url="http://127.0.0.1:9/elsewhere",
        wire={"appid": there.config.credentials["appid"]},
    )
    created = there.simulation.create(there.account, terms, now)
    assert isinstance(created, LedgerPayment)
    paid = there.simulation.pay(created.key, SILENT)
    assert isinstance(paid, LedgerPayment)
    watch = Watch(out_trade_no="known-as-000001", channel_reference=paid.transaction_id)
    request = PaymentRequest(account=there.name, watch=watch)
    state = (await place_order(harness.resources, order_terms(), request, expires_in_s=600)).state
    await there.query(state)
    after = await harness.state(state)
    assert (after.order.status, after.payments[0].channel_transaction_id) == (OrderStatus.PAID, paid.transaction_id)
    assert await harness.cases(state.order.order_no) == []
