"""Refunds in a real Postgres: written with what wants them, leased by one, never of more than came."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import asyncpg
import pytest

from core.decision import Decision, Outcome
from core.evidence import Source
from core.lifecycle import LatePolicy, RefundRequest, Rules, on_query, on_refund, on_refund_requested
from core.order import CaseReason, OrderState, Origin, PaymentKey, PaymentStatus, RefundReason, RefundStatus
from storage.postgres.backlog import read_backlog
from storage.postgres.cases import list_cases
from storage.postgres.database import Database
from storage.postgres.door.transition import Committed, transition
from storage.postgres.leases import DueRow
from storage.postgres.refunds import (
    LeasedRefund,
    claim,
    claim_overdue,
    find_by_channel_numbers,
    reschedule,
    walk_due,
)
from tests.servers import eventually
from tests.storage.postgres.tools import (
    RULES,
    closed,
    commit_evidence,
    count,
    get_state,
    if_there,
    moved,
    noted,
    number,
    opened,
    paid,
    pass_time,
    placed,
    rows,
    started,
    terms_of,
    versions,
)

LATE = Rules(late_policy=LatePolicy.REFUND)
KEY = number("A-1")
REFUND_NO = "ralipay-A-1"


async def closed_order(db: Database, order_no: str = "A-1", *, origin: Origin = Origin.OURS) -> None:
    """An unpaid order, closed on its channel's evidence."""
    await placed(db, order_no, payment=terms_of(number(order_no), origin=origin))
    await commit_evidence(db, order_no, closed(order_no))
    close = """UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 WHERE order_no = $1"""
    assert await db.execute(close, order_no) == 1


async def came_late(db: Database, order_no: str = "A-1", rules: Rules = LATE) -> Committed:
    evidence = paid(order_no)
    return await moved(db, order_no, lambda state: on_query(state, number(order_no), evidence, rules, Source.QUERY))


async def wanted(db: Database, order_no: str = "A-1") -> str:
    """The number of a refund that a late payment's policy has requested."""
    await closed_order(db, order_no)
    [refund_no] = (await came_late(db, order_no)).refund_nos
    return refund_no


async def answered(
    db: Database, status: RefundStatus | None, note: str = "", channel_refund_no: str | None = None
) -> Committed:
    decide = partial(on_refund, refund_no=REFUND_NO, refund_status=status, rules=RULES, note=note)
    return await moved(db, "A-1", lambda state: decide(state, channel_refund_no=channel_refund_no))


async def due_within(db: Database, seconds: float) -> list[DueRow]:
    return [row async for batch in walk_due(db, until_s=seconds) for row in batch]


async def leased(db: Database, refund_no: str = REFUND_NO, arm_no: int = 1, lease_s: float = 30.0) -> LeasedRefund:
    found = await claim(db, refund_no, lease_s, arm_no=arm_no)
    assert found is not None
    return found


# -- written with the decision that wants it ---------------------------------------------------------------------------


async def test_late_money_its_case_and_its_refund_are_written_in_one_statement(db: Database) -> None:
    await closed_order(db)
    committed = await came_late(db)
    assert (committed.refund_nos, committed.decision.outcome) == ((REFUND_NO,), Outcome.PAID_LATE)
    state = await get_state(db)
    [refund] = state.refunds
    assert (refund.key, refund.order_no, refund.amount, refund.currency) == (KEY, "A-1", 8888, "CNY")
    assert (refund.status, refund.reason, refund.attempt) == (RefundStatus.REQUESTED, RefundReason.LATE, 1)
    assert state.payments[0].status is PaymentStatus.PAID
    assert state.open_cases == {(KEY, CaseReason.PAID_LATE)}
    assert refund == (committed.state_after or state).refunds[0]
    assert await due_within(db, 0.0) == [(REFUND_NO, 1, 0.0)]


async def test_many_processes_that_see_the_same_money_make_one_refund(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await closed_order(one)
        committed = await asyncio.gather(*(came_late([one, two][n % 2]) for n in range(12)))
        assert [turn.refund_nos for turn in committed if turn.refund_nos] == [(REFUND_NO,)]
        assert await count(one, "refunds") == 1


async def test_a_lost_race_writes_no_refund(db: Database) -> None:
    """The decision was made on a state that is of before: it is made again, and the refund written once."""
    await closed_order(db)
    before = await get_state(db)
    await moved(db, "A-1", noted)
    decide = if_there(lambda state: on_query(state, KEY, paid(), LATE, Source.QUERY))
    assert (await transition(db, "A-1", decide, known=before)).refund_nos == (REFUND_NO,)
    assert await count(db, "refunds") == 1


@pytest.mark.parametrize("status", [RefundStatus.PROCESSING, RefundStatus.SUCCEEDED, RefundStatus.FAILED])
async def test_a_lost_race_moves_no_refund(db: Database, status: RefundStatus) -> None:
    """Only the first decision, on a state that is of before, moves it; the one that is committed leaves it alone."""
    await wanted(db)
    before = await get_state(db)
    await moved(db, "A-1", noted)

    def decide(state: OrderState | None) -> Decision:
        if state is before:
            return on_refund(before, REFUND_NO, status, RULES)
        return Decision(outcome=Outcome.NOTHING_NEW)

    assert (await transition(db, "A-1", decide, known=before)).version is None
    assert (await get_state(db)).refunds == before.refunds


async def test_two_operators_at_once_request_one_refund(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await closed_order(one)
        await came_late(one, rules=Rules(late_policy=LatePolicy.FLAG))
        request = partial(on_refund_requested, request=RefundRequest(key=KEY, by="anna"))
        requests = (moved([one, two][n % 2], "A-1", request) for n in range(8))
        outcomes = [committed.decision.outcome for committed in await asyncio.gather(*requests)]
        assert sorted(outcomes) == [*[Outcome.NOTHING_NEW] * 7, Outcome.REFUND_REQUESTED]
        assert await count(one, "refunds") == 1


async def test_a_refund_that_succeeds_answers_its_case_and_counts_in_its_payment(db: Database) -> None:
    await wanted(db)
    assert (await answered(db, RefundStatus.PROCESSING)).decision.outcome is Outcome.REFUND_PROCESSING
    committed = await answered(db, RefundStatus.SUCCEEDED)
    assert (committed.decision.outcome, committed.notification_id is not None) == (Outcome.REFUNDED, True)
    state = await get_state(db)
    assert state.refunds[0].status is RefundStatus.SUCCEEDED
    assert state.refunds[0].settled_at is not None
    assert (state.payments[0].refunded_amount, state.open_cases) == (8888, frozenset())
    [case] = (await list_cases(db, open_only=False))[0]
    assert (case.reason, case.resolution, case.by) == ("paid_late", "refunded", "refund")
    assert await versions(db, "A-1") == [1, 2, 4, 5, 6]  # 3 is the test's own closing, beside the door
    assert await due_within(db, 1e9) == []
    again = await answered(db, RefundStatus.SUCCEEDED)
    assert (again.version, again.decision.outcome) == (None, Outcome.NOTHING_NEW)


async def test_only_the_case_of_this_payment_is_answered(db: Database) -> None:
    """An order may have two late payments, and another order's case has the same reason."""
    other = PaymentKey("wechat", "wechat-A-1")
    await placed(db)
    await started(db, "A-1", other)
    await commit_evidence(db, "A-1", closed())
    await commit_evidence(db, "A-1", closed(key=other), key=other)
    await db.execute("UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1")
    await came_late(db)
    late = paid(key=other)
    await moved(db, "A-1", lambda state: on_query(state, other, late, Rules(late_policy=LatePolicy.FLAG), Source.QUERY))
    await wanted(db, "B-1")
    await answered(db, RefundStatus.SUCCEEDED)
    assert (await get_state(db)).open_cases == {(other, CaseReason.PAID_LATE)}
    assert (await get_state(db, "B-1")).open_cases == {(number("B-1"), CaseReason.PAID_LATE)}


async def test_a_refund_that_fails_is_kept_beside_the_one_that_follows(db: Database) -> None:
    await wanted(db)
    await answered(db, RefundStatus.FAILED, "refused: NOT_ENOUGH\0\ud800")
    state = await get_state(db)
    assert state.refunds[0].last_error.startswith("refused: NOT_ENOUGH")
    assert state.open_cases == {(KEY, CaseReason.PAID_LATE), (KEY, CaseReason.REFUND_FAILED)}
    await moved(db, "A-1", lambda found: on_refund_requested(found, RefundRequest(key=KEY, by="anna")))
    after = await get_state(db)
    assert [(row.refund_no, row.status) for row in after.refunds] == [
        (REFUND_NO, RefundStatus.FAILED),
        ("r2_alipay-A-1", RefundStatus.REQUESTED),
    ]


# -- the last line of defence ------------------------------------------------------------------------------------------

_INSERT = """
INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status, requested_at)
VALUES ($1, 'alipay', 'alipay-A-1', 'A-1', $2, $3, 'operator', 'requested', now())"""


async def refused(db: Database, sql: str, *args: Any) -> str:
    with pytest.raises(asyncpg.CheckViolationError) as error:
        await db.execute(sql, *args)
    return str(error.value.constraint_name)


async def test_refunds_of_a_payment_are_never_more_than_it(db: Database) -> None:
    await closed_order(db)
    await came_late(db, rules=Rules(late_policy=LatePolicy.FLAG))
    assert await refused(db, _INSERT, "r-1", 8889, "CNY") == "refunds_of_what_came"
    assert await refused(db, _INSERT, "r-1", 8888, "USD") == "refunds_of_what_came"
    await db.execute(_INSERT, "r-1", 8000, "CNY")
    assert await refused(db, _INSERT, "r-2", 889, "CNY") == "refunds_of_what_came"
    await db.execute("UPDATE refunds SET status = 'failed', settled_at = now()")
    await db.execute(_INSERT, "r-2", 8888, "CNY")


async def test_what_did_not_come_and_what_is_watched_is_not_refunded(db: Database) -> None:
    await placed(db)
    assert await refused(db, _INSERT, "r-1", 1, "CNY") == "refunds_of_what_came"
    await commit_evidence(db, "A-1", closed())
    assert await refused(db, _INSERT, "r-1", 1, "CNY") == "refunds_of_what_came"
    await db.execute("UPDATE payments SET origin = 'watched'")
    await commit_evidence(db, "A-1", paid())
    assert await refused(db, _INSERT, "r-1", 1, "CNY") == "refunds_of_what_came"


async def test_what_paid_an_order_is_refunded_by_operators_only(db: Database) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", paid())
    by_policy = _INSERT.replace("'operator'", "'late'")
    assert await refused(db, by_policy, "r-1", 1, "CNY") == "refunds_not_of_what_paid"
    await db.execute(_INSERT, "r-1", 8887, "CNY")
    assert await refused(db, _INSERT, "r-2", 2, "CNY") == "refunds_of_what_came"
    await db.execute(_INSERT, "r-2", 1, "CNY")


async def test_a_key_is_of_one_refund_of_its_order(db: Database) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", paid())
    keyed = _INSERT.replace("requested_at)", "requested_at, request_key)").replace("now())", "now(), 'ticket-77')")
    await db.execute(keyed, "r-1", 1, "CNY")
    assert await refused(db, keyed, "r-2", 1, "CNY") == "refunds_one_of_each_key"


async def test_parts_requested_at_once_are_together_no_more_than_came(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await placed(one)
        await commit_evidence(one, "A-1", paid())

        def requested(nth: int) -> Coroutine[Any, Any, Committed]:
            request = RefundRequest(key=KEY, by="anna", amount=3000, request_key=f"ticket-{nth}", reason="broken")
            return moved([one, two][nth % 2], "A-1", partial(on_refund_requested, request=request))

        outcomes = [committed.decision.outcome for committed in await asyncio.gather(*map(requested, range(8)))]
        assert sorted(outcomes) == [*[Outcome.NOT_REFUNDABLE] * 6, *[Outcome.REFUND_REQUESTED] * 2]
        refunds = (await get_state(one)).refunds
        assert [refund.amount for refund in refunds] == [3000, 3000]
        assert {refund.note for refund in refunds} == {"broken"}
        assert len({(refund.refund_no, refund.request_key) for refund in refunds}) == 2


@pytest.mark.parametrize("final", ["succeeded", "failed"])
async def test_what_is_definite_stays_so_and_stays_the_same_refund(db: Database, final: str) -> None:
    await wanted(db)
    for change in ("amount = 1", "currency = 'USD'", "out_trade_no = 'x'", "order_no = 'x'", "channel_account = 'x'"):
        assert await refused(db, f"UPDATE refunds SET {change}") == "refunds_same_terms"  # noqa: S608 - ours
    await db.execute("UPDATE refunds SET status = 'processing'")
    assert await refused(db, "UPDATE refunds SET status = 'requested'") == "refunds_legal_move"
    await db.execute("UPDATE refunds SET status = $1, settled_at = now()", final)
    for status in {"succeeded", "failed", "processing", "requested"} - {final}:
        assert await refused(db, "UPDATE refunds SET status = $1", status) == "refunds_legal_move"


# -- the channel's own number ------------------------------------------------------------------------------------------


async def test_the_channels_number_is_written_with_the_answer_and_kept(db: Database) -> None:
    await wanted(db)
    await answered(db, RefundStatus.PROCESSING, channel_refund_no="re_1")
    await answered(db, RefundStatus.PROCESSING)
    await answered(db, RefundStatus.SUCCEEDED, channel_refund_no="re_2")
    state = await get_state(db)
    [refund] = state.refunds
    assert (refund.status, refund.channel_refund_no) == (RefundStatus.SUCCEEDED, "re_1")
    assert (KEY, CaseReason.NUMBER_REUSED) in state.open_cases


async def test_no_statement_replaces_or_forgets_the_channels_number(db: Database) -> None:
    await wanted(db)
    assert await refused(db, "UPDATE refunds SET channel_refund_no = ''") == "refunds_channel_refund_no"
    await db.execute("UPDATE refunds SET channel_refund_no = 're_1'")
    for value in ("'re_2'", "NULL"):
        sql = f"UPDATE refunds SET channel_refund_no = {value}"  # noqa: S608 - ours
        assert await refused(db, sql) == "refunds_same_channel_number"


async def test_refunds_are_found_by_the_channels_number_at_their_account(db: Database) -> None:
    await wanted(db)
    await answered(db, RefundStatus.PROCESSING, channel_refund_no="re_1")
    assert await find_by_channel_numbers(db, "alipay", ["re_1", "re_2", "\0"]) == {(KEY, "re_1"): REFUND_NO}
    assert await find_by_channel_numbers(db, "other", ["re_1"]) == {}
    assert await find_by_channel_numbers(db, "alipay", []) == {}


# -- whose turn it is --------------------------------------------------------------------------------------------------


async def test_one_of_many_claims_succeeds(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        refund_no = await wanted(one)
        leases = await asyncio.gather(*(claim([one, two][n % 2], refund_no, 30.0, arm_no=1) for n in range(20)))
        [found] = [lease for lease in leases if lease is not None]
        assert (found.refund_no, found.key, found.order_no, found.amount) == (REFUND_NO, KEY, "A-1", 8888)
        assert (found.attempt, found.arm_no, found.may_be_known) == (1, 1, False)


async def test_a_second_lease_says_that_the_channel_may_know_the_refund(db: Database) -> None:
    """The first one may have died at any moment after its lease, also after the channel had heard it."""
    refund_no = await wanted(db)
    assert not (await leased(db, lease_s=0.05)).may_be_known
    second = await eventually(lambda: claim(db, refund_no, 0.05, arm_no=1))
    assert second is not None
    assert second.may_be_known
    assert await reschedule(db, second, attempt=2, delay_s=0.0) == 2
    assert (await leased(db, arm_no=2)).may_be_known


async def test_a_sweep_knows_it_as_well(db: Database) -> None:
    await wanted(db)
    await pass_time(db, "refunds", 60.0)
    [first] = await claim_overdue(db, grace_s=15.0, limit=9, lease_s=30.0)
    assert not first.may_be_known
    assert await claim_overdue(db, grace_s=15.0, limit=9, lease_s=30.0) == []
    await pass_time(db, "refunds", 60.0)
    [second] = await claim_overdue(db, grace_s=15.0, limit=9, lease_s=30.0)
    assert second.may_be_known


async def test_what_is_scheduled_anew_leaves_older_jobs_and_answers_with_nothing(db: Database) -> None:
    await wanted(db)
    first = await leased(db)
    assert await reschedule(db, first, attempt=2, delay_s=240.0, error="timeout") == 2
    assert await reschedule(db, first, attempt=2, delay_s=240.0, error="timeout") is None
    assert await claim(db, REFUND_NO, 30.0, arm_no=1) is None
    [(refund_no, arm_no, delay_s)] = await due_within(db, 300.0)
    assert (refund_no, arm_no) == (REFUND_NO, 2)
    assert 230.0 < delay_s <= 240.0
    [row] = await rows(db, "refunds", "attempt, last_error, leased_until")
    assert row == {"attempt": 2, "last_error": "timeout", "leased_until": None}


@pytest.mark.parametrize("status", [RefundStatus.SUCCEEDED, RefundStatus.FAILED])
async def test_a_definite_refund_is_not_claimed(db: Database, status: RefundStatus) -> None:
    await wanted(db)
    held = await leased(db)
    await answered(db, status)
    await pass_time(db, "refunds", 86_400.0)
    assert await claim(db, REFUND_NO, 30.0, arm_no=1) is None
    assert await reschedule(db, held, attempt=2, delay_s=0.0) is None
    assert await claim_overdue(db, grace_s=0.0, limit=9, lease_s=30.0) == []


async def test_two_sweeps_take_different_refunds_oldest_first(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        numbers = [await wanted(one, f"A-{n}") for n in range(12)]
        for n, refund_no in enumerate(numbers):
            await pass_time(one, "refunds", 86_400.0 * (20 - n), f"refund_no = '{refund_no}'")
        first = await claim_overdue(one, grace_s=15.0, limit=4, lease_s=30.0)
        assert [refund.refund_no for refund in first] == numbers[:4]
        batches = await asyncio.gather(
            *(claim_overdue([one, two][n % 2], grace_s=15.0, limit=3, lease_s=30.0) for n in range(4))
        )
        taken = [refund.refund_no for batch in batches for refund in batch]
        assert sorted(taken) == sorted(numbers[4:])


async def test_the_backlog_counts_what_is_not_definite(db: Database) -> None:
    await wanted(db)
    await wanted(db, "B-1")
    await pass_time(db, "refunds", 120.0, "order_no = 'A-1'")
    backlog = await read_backlog(db)
    assert backlog.refunds == 2
    assert 119.0 < backlog.refunds_oldest_due_s < 180.0
    await answered(db, RefundStatus.SUCCEEDED)
    assert (await read_backlog(db)).refunds == 1
