"""Cases answered by choices that fit them: the act is done, the case ends when it should, and only once."""

import asyncio

import pytest

from core.case_choices import Choice
from core.errors import InvalidRequest, NotFound, NotPossible
from core.lifecycle import LatePolicy
from core.order import OrderStatus, RefundStatus
from flows.account_switch import preview_switch, switch_account
from flows.case_resolution import Answer, answer_case, preview_answer
from flows.refund import refund_scheduled
from storage.postgres.cases import list_cases
from tests.flows.conftest import FlowHarness
from tests.flows.test_attach import bought_elsewhere, open_order

_OPEN = """
INSERT INTO cases (channel_account, out_trade_no, reason, order_no) VALUES ($1, $2, $3, $4) RETURNING id"""


async def case_of(harness: FlowHarness, order_no: str) -> int:
    [row] = (await list_cases(harness.resources.db, order_no=order_no))[0]
    return row.id


async def opened(harness: FlowHarness, reason: str, *, number: str | None = None, order_no: str | None = None) -> int:
    return int(str(await harness.fetch_value(_OPEN, "main", number, reason, order_no)))


async def test_late_money_is_accepted_and_the_case_ends(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money(LatePolicy.FLAG)
    case_id = await case_of(harness, state.order.order_no)
    accept = Answer(choice=Choice.ACCEPT)
    preview = await preview_answer(harness.resources, case_id, accept)
    assert [line.key for line in preview.lines] == ["accept.pays", "accept.is_notified", "case.ends"]

    answered = await answer_case(harness.resources, case_id, accept, by="ann", reason="goods are sent")

    assert answered.state is not None
    assert answered.state.order.status is OrderStatus.PAID
    assert (answered.case.resolution, answered.case.by) == ("accepted", "ann")
    with pytest.raises(NotPossible, match="ann has resolved this case: accepted"):
        await answer_case(harness.resources, case_id, accept, by="bob", reason="again")
    refused = (await preview_answer(harness.resources, case_id, accept)).refusal
    assert refused is not None
    assert refused.key == "case.is_resolved"


async def test_late_money_is_refunded_and_the_case_ends_once_it_is_back(harness: FlowHarness) -> None:
    state = await harness.order_with_late_money(LatePolicy.FLAG)
    case_id = await case_of(harness, state.order.order_no)
    refund = Answer(choice=Choice.REFUND, key=f"case-{case_id}")
    preview = await preview_answer(harness.resources, case_id, refund)
    assert [line.key for line in preview.lines][-1] == "case.ends_with_refund"
    answered = await answer_case(harness.resources, case_id, refund, by="ann", reason="sold out")
    assert (answered.case.resolved_at, answered.approval) == (None, None)
    assert answered.state is not None
    await refund_scheduled(harness.resources, answered.state.refunds[0].refund_no, 1)
    assert (await harness.state(state)).refunds[0].status is RefundStatus.SUCCEEDED
    assert await harness.cases(state.order.order_no) == []


async def test_a_query_resolves_nothing_by_itself(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    order_no = state.order.order_no
    case_id = await opened(harness, "attempts_exhausted", number=state.payments[0].out_trade_no, order_no=order_no)
    harness.pay(state.payments[0])
    query = Answer(choice=Choice.QUERY)
    assert [line.key for line in (await preview_answer(harness.resources, case_id, query)).lines] == [
        "query.asks",
        "query.commits",
        "case.stays",
    ]
    answered = await answer_case(harness.resources, case_id, query, by="ann", reason="the buyer wrote")
    assert answered.state is not None
    assert (answered.state.order.status, answered.case.resolved_at) == (OrderStatus.PAID, None)
    refused = await preview_answer(harness.resources, case_id, query)
    assert ([line.key for line in refused.lines], refused.is_possible) == ([], False)


async def test_unknown_money_is_attached_to_an_order_and_the_case_ends(harness: FlowHarness) -> None:
    state, number = await open_order(harness), bought_elsewhere(harness)
    case_id = await opened(harness, "unknown_order", number=number)
    attach = Answer(choice=Choice.ATTACH, order_no=state.order.order_no)
    assert [line.key for line in (await preview_answer(harness.resources, case_id, attach)).lines][-1] == "case.ends"
    answered = await answer_case(harness.resources, case_id, attach, by="ann", reason="the buyer named the order")
    assert answered.state is not None
    assert answered.state.order.status is OrderStatus.PAID
    assert answered.case.resolution == "the buyer named the order"
    other = await opened(harness, "unknown_order", number="elsewhere-9")
    with pytest.raises(NotFound):
        await answer_case(harness.resources, other, Answer(choice=Choice.ATTACH), by="ann", reason="x")


async def test_of_two_operators_on_one_case_the_second_is_told_who_was_first(harness: FlowHarness) -> None:
    case_id = await opened(harness, "statement_total")
    note = Answer(choice=Choice.NOTE)
    assert [line.key for line in (await preview_answer(harness.resources, case_id, note)).lines] == ["case.notes"]
    results = await asyncio.gather(
        answer_case(harness.resources, case_id, note, by="ann", reason="the channel's slip"),
        answer_case(harness.resources, case_id, note, by="bob", reason="seen"),
        return_exceptions=True,
    )
    [error] = [each for each in results if isinstance(each, BaseException)]
    [done] = [each for each in results if not isinstance(each, BaseException)]
    assert isinstance(error, NotPossible)
    assert error.line.figures["by"] == done.case.by


@pytest.mark.parametrize(
    ("reason", "choice", "key"),
    [
        ("statement_total", Choice.REFUND, "case.no_choice"),
        ("paid_late", Choice.ATTACH, "case.no_choice"),
        ("unknown_order", Choice.ATTACH, "case.no_payment"),
        ("attempts_exhausted", Choice.QUERY, "case.no_choice"),
    ],
)
async def test_a_choice_that_does_not_fit_does_nothing(
    harness: FlowHarness, reason: str, choice: Choice, key: str
) -> None:
    case_id = await opened(harness, reason)
    answer = Answer(choice=choice)
    with pytest.raises(NotPossible) as refused:
        await answer_case(harness.resources, case_id, answer, by="ann", reason="x")
    assert refused.value.line.key == key
    shown = (await preview_answer(harness.resources, case_id, answer)).refusal
    assert shown is not None
    assert shown.key == key
    assert await harness.cases() == [reason]


async def test_a_case_that_is_not_there_and_an_empty_reason_are_refused(harness: FlowHarness) -> None:
    with pytest.raises(NotFound):
        await answer_case(harness.resources, 1, Answer(choice=Choice.NOTE), by="ann", reason="x")
    with pytest.raises(NotFound):
        await preview_answer(harness.resources, 1, Answer(choice=Choice.NOTE))
    with pytest.raises(InvalidRequest):
        await answer_case(harness.resources, 1, Answer(choice=Choice.NOTE), by="ann", reason=" ")
    gone = await opened(harness, "attempts_exhausted", number="n", order_no="none")
    with pytest.raises(NotFound):
        await preview_answer(harness.resources, gone, Answer(choice=Choice.QUERY))


# -- accounts ----------------------------------------------------------------------------------------------------------


async def test_switching_an_account_off_says_what_stops_and_what_goes_on(harness: FlowHarness) -> None:
    db = harness.resources.db
    await harness.order_with_late_money()
    await harness.placed_order()
    preview = await preview_switch(db, "main", enabled=False)
    assert [line.key for line in preview.lines] == ["account.stops", "account.goes_on"]
    assert preview.lines[1].figures == {"pending": "1", "refunds": "0"}
    assert preview.warnings == ()
    late = await preview_switch(db, "late-refund", enabled=False)
    assert late.lines[1].figures["refunds"] == "1"

    await switch_account(db, "main", enabled=False)
    assert (await preview_switch(db, "main", enabled=True)).lines[0].key == "account.starts"
    off = (await preview_switch(db, "main", enabled=False)).refusal
    assert off is not None
    assert off.key == "account.is_off"
    last = await preview_switch(db, "late-refund", enabled=False)
    assert [line.key for line in last.warnings] == ["account.is_last"]
    for act in (preview_switch(db, "none", enabled=True), switch_account(db, "none", enabled=True)):
        with pytest.raises(NotFound):
            await act
