"""Callbacks while no query is answered, and callbacks that are not wholly signed."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from channels.base import Callback
from channels.sandbox.adapter import Sandbox
from core.admission import UNANSWERED_MAX, CallKind, Wait
from core.decision import Outcome
from core.errors import ChannelNotCalled, ChannelRefused
from core.order import OrderState, OrderStatus
from flows.compensation import compensate_callback
from flows.refresh import refresh_order
from simulator.kernel.faults import FaultProfile
from storage.postgres import pending
from tests.channels.reports import CallbackRequest
from tests.flows.conftest import HOOK, FlowHarness

ACCOUNT = "waits"
NO_ANSWERS = FaultProfile(answered_5xx=1.0)


@pytest_asyncio.fixture(loop_scope="session")
async def waits(harness: FlowHarness) -> str:
    """An account whose callbacks pay when no query is answered."""
    return await harness.add_account(ACCOUNT, trust_callback="when_unanswered")


async def times(harness: FlowHarness, state: OrderState) -> tuple[bool, bool] | None:
    """Whether the payment's row has had queries without an answer, and whether it ever had a verified answer."""
    sql = """SELECT unanswered_since IS NOT NULL AS unanswered, verified_at IS NOT NULL AS verified
               FROM pending WHERE out_trade_no = $1"""
    row = await harness.resources.db.fetchrow(sql, state.payments[0].out_trade_no)
    return None if row is None else (row["unanswered"], row["verified"])


async def pass_time(harness: FlowHarness, seconds: float = 31.0) -> None:
    """As if the first query without an answer, and what came before it, lay so much further back."""
    for table, column in (("pending", "unanswered_since"), ("pending", "verified_at"), ("callbacks", "received_at")):
        sql = f"UPDATE {table} SET {column} = {column} - make_interval(secs => $1)"  # noqa: S608 - our own names
        await harness.resources.db.execute(sql, seconds)


async def compensate(harness: FlowHarness) -> list[Outcome]:
    """Handle every open callback again; their outcomes, the oldest callback's first."""
    sql = """SELECT id::text, arm_no FROM callbacks WHERE handled_at IS NULL AND dead_at IS NULL
              ORDER BY received_at, id"""
    rows = await harness.resources.db.fetch(sql)
    await harness.make_due()
    return [await compensate_callback(harness.resources, row["id"], row["arm_no"]) for row in rows]


async def paid_unanswered(harness: FlowHarness) -> OrderState:
    """An order that its callback has paid because no query was answered."""
    state = await harness.placed_order(ACCOUNT, notify_url=HOOK)
    harness.pay(state.payments[0])
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive(ACCOUNT, genuine(harness, state))
    await pass_time(harness)
    assert await compensate(harness) == [Outcome.PAID]
    return await harness.state(state)


def genuine(harness: FlowHarness, state: OrderState, **report: Any) -> CallbackRequest:
    payment = state.payments[0]
    return harness.callback(payment, **{"transaction": harness.transaction_of(payment) or "t" * 24, **report})


# -- accounts whose callbacks pay when no query is answered ------------------------------------------------------------


@pytest.mark.usefixtures("waits")
async def test_a_callback_pays_once_queries_have_had_no_answer_for_long_enough(harness: FlowHarness) -> None:
    state = await harness.placed_order(ACCOUNT, notify_url=HOOK)
    harness.pay(state.payments[0])
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive(ACCOUNT, genuine(harness, state))
    assert ((await harness.state(state)).order.status, await times(harness, state)) == (
        OrderStatus.PAYING,
        (True, False),
    )
    assert await compensate(harness) == [Outcome.UNCLEAR]
    await pass_time(harness)
    assert await compensate(harness) == [Outcome.PAID]
    paid = await harness.state(state)
    assert paid.order.status is OrderStatus.PAID
    assert paid.payments[0].unconfirmed_since is not None
    assert paid.pending_of(state.payments[0].key) is not None
    sql = "SELECT convert_from(body, 'UTF8')::jsonb->'data'->>'confirmed' FROM notifications"
    assert await harness.fetch_value(sql) == "false"


@pytest.mark.usefixtures("waits")
async def test_a_query_confirms_it_later(harness: FlowHarness) -> None:
    state = await paid_unanswered(harness)
    assert await harness.run_query_job(state) is Outcome.UNCLEAR
    harness.simulation.faults.profile = FaultProfile()
    assert await harness.run_query_job(state) is Outcome.CONFIRMED
    confirmed = await harness.state(state)
    assert confirmed.payments[0].unconfirmed_since is None
    assert confirmed.pending_of(state.payments[0].key) is None


@pytest.mark.usefixtures("waits")
async def test_a_refresh_confirms_it_too(harness: FlowHarness) -> None:
    state = await paid_unanswered(harness)
    harness.simulation.faults.profile = FaultProfile()
    after = await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert after.payments[0].unconfirmed_since is None


@pytest.mark.usefixtures("waits")
async def test_an_answer_that_says_otherwise_is_a_case(harness: FlowHarness) -> None:
    state = await harness.placed_order(ACCOUNT)
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive(ACCOUNT, genuine(harness, state))
    await pass_time(harness)
    assert await compensate(harness) == [Outcome.PAID]
    harness.simulation.faults.profile = FaultProfile()
    assert await harness.run_query_job(state) is Outcome.CONTRADICTED
    assert await harness.cases(state.order.order_no) == ["callback_contradicted"]
    assert await harness.pending_row(ACCOUNT, state.payments[0].out_trade_no) is not None


@pytest.mark.usefixtures("waits")
async def test_a_second_callback_of_the_money_asks_and_confirms(harness: FlowHarness) -> None:
    state = await paid_unanswered(harness)
    harness.simulation.faults.profile = FaultProfile()
    await harness.receive(ACCOUNT, genuine(harness, state))
    assert (await harness.state(state)).payments[0].unconfirmed_since is None


@pytest.mark.usefixtures("waits")
async def test_a_refund_that_was_heard_of_keeps_the_callback_from_paying(harness: FlowHarness) -> None:
    state = await harness.placed_order(ACCOUNT)
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive(ACCOUNT, genuine(harness, state))
    await harness.receive(ACCOUNT, genuine(harness, state, status="refunded", refunded=100))
    await pass_time(harness)
    assert await compensate(harness) == [Outcome.UNCLEAR, Outcome.UNCLEAR]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


@pytest.mark.usefixtures("waits")
async def test_an_answer_after_the_callback_keeps_it_from_paying(harness: FlowHarness) -> None:
    """The channel has said *unpaid* since: that its queries fail later proves nothing."""
    state = await harness.placed_order(ACCOUNT)
    await harness.receive(ACCOUNT, genuine(harness, state))
    assert await times(harness, state) == (False, True)
    harness.simulation.faults.profile = NO_ANSWERS
    await compensate(harness)
    await pass_time(harness)
    assert await compensate(harness) == [Outcome.UNCLEAR]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING


@pytest.mark.usefixtures("waits")
async def test_an_open_breaker_does_not_hold_back_the_query_of_a_callback(harness: FlowHarness) -> None:
    state = await harness.placed_order(ACCOUNT)
    harness.pay(state.payments[0])
    for _ in range(UNANSWERED_MAX):
        await harness.resources.admission.report(ACCOUNT, CallKind.QUERY, answered=False)
    await harness.receive(ACCOUNT, genuine(harness, state))
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert await harness.resources.admission.open_breakers([ACCOUNT]) == []


@pytest.mark.usefixtures("waits")
async def test_a_query_that_was_not_sent_is_no_query_without_an_answer(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is used up, or Redis is away: nobody was asked."""
    state = await harness.placed_order(ACCOUNT)

    async def wait(*_: object, **__: object) -> Wait:
        return Wait(1.0, "changing_over")

    monkeypatch.setattr(harness.resources.admission, "admit", wait)
    await harness.receive(ACCOUNT, genuine(harness, state))
    assert await times(harness, state) == (False, False)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("error", [ChannelRefused("NO_RIGHT"), ChannelNotCalled("no_connection_free")], ids=str)
async def test_a_refusal_and_a_full_pool_are_no_silence_of_the_channel(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    state = await harness.placed_order(ACCOUNT)

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Sandbox, "query_payment", fail)
    await harness.receive(ACCOUNT, genuine(harness, state))
    assert await times(harness, state) == (False, False)


async def test_a_full_pool_of_this_process_opens_no_breaker(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await harness.placed_order()

    async def fail(*_: object) -> None:
        raise ChannelNotCalled("no_connection_free")

    monkeypatch.setattr(Sandbox, "query_payment", fail)
    for _ in range(UNANSWERED_MAX):
        assert await harness.run_query_job(state) is Outcome.UNCLEAR
    assert await harness.resources.admission.open_breakers(["main"]) == []


@pytest.mark.usefixtures("waits")
async def test_a_query_that_the_budget_cuts_off_had_no_answer(harness: FlowHarness) -> None:
    state = await harness.placed_order(ACCOUNT)
    harness.simulation.faults.profile = FaultProfile(timed_out=1.0, hang_s=30.0)
    with harness.short_timeouts(channel_s=30.0):
        await harness.receive(ACCOUNT, genuine(harness, state))
    assert await times(harness, state) == (True, False)


@pytest.mark.usefixtures("waits")
async def test_a_lease_of_another_process_leaves_the_callback_to_its_answer(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await harness.placed_order(ACCOUNT)
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive(ACCOUNT, genuine(harness, state))
    await pass_time(harness)

    async def claim(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr("flows.unanswered.pending", SimpleNamespace(claim=claim, note_answer=pending.note_answer))
    assert await compensate(harness) == [Outcome.UNCLEAR]


async def test_other_accounts_note_nothing_and_never_pay_so(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive("main", genuine(harness, state))
    await pass_time(harness)
    assert await compensate(harness) == [Outcome.UNCLEAR]
    assert await times(harness, state) == (False, False)


# -- callbacks that are not wholly signed ------------------------------------------------------------------------------

Verify = Callable[..., Awaitable[Callback]]


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel's signature covers no more than a part of the body."""
    verify: Verify = Sandbox.verify_callback

    async def verify_part(self: Sandbox, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        return replace(await verify(self, headers, body, received_at=received_at), is_hint=True)

    monkeypatch.setattr(Sandbox, "verify_callback", verify_part)


@pytest.mark.usefixtures("hints")
@pytest.mark.parametrize(
    "report",
    [{"amount": 1}, {"currency": "JPY"}, {"merchant": "m-other"}, {"status": "refunded", "refunded": 1}],
    ids=str,
)
async def test_a_hint_leads_to_a_query_and_has_no_other_effect(harness: FlowHarness, report: dict[str, Any]) -> None:
    state = await harness.placed_order()
    version = state.order.version
    await harness.receive("main", genuine(harness, state, **report))
    after = await harness.state(state)
    assert (after.order.version, after.open_cases, harness.call_count()) == (version, frozenset(), 1)
    assert await harness.fetch_value("SELECT outcome FROM callbacks WHERE is_hint") == "still_open"


@pytest.mark.usefixtures("hints")
async def test_the_query_of_a_hint_pays_the_order(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.receive("main", genuine(harness, state, amount=1))
    after = await harness.state(state)
    assert (after.order.status, after.open_cases) == (OrderStatus.PAID, frozenset())


@pytest.mark.usefixtures("hints")
async def test_a_hint_that_is_not_answered_ends_without_a_case(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.simulation.faults.profile = NO_ANSWERS
    await harness.receive("main", genuine(harness, state))
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await compensate(harness)
    assert await harness.cases() == []
    assert await harness.fetch_value("SELECT handled_at IS NOT NULL FROM callbacks") is True


@pytest.mark.usefixtures("hints")
@pytest.mark.parametrize("number", ["0123456789abcdef", "019aaf3c1a2b6f0d8e1c2b3a4958"])
async def test_a_hint_of_an_unknown_payment_is_dropped_after_a_day(harness: FlowHarness, number: str) -> None:
    """Anybody may have written its number, also one of our form."""
    state = await harness.placed_order()
    await harness.receive("main", genuine(harness, state, number=number))
    await harness.resources.db.execute("UPDATE callbacks SET kept_until = now()")
    await compensate(harness)
    assert await harness.cases() == []
    assert await harness.fetch_value("SELECT count(*) FROM callbacks") == 0
    assert await harness.fetch_value("SELECT count FROM callback_counts WHERE reason = 'unknown'") == 1
