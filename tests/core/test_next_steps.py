"""Any order in any state says what happens next, or why nothing does."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.dispute import Dispute, DisputeState
from core.next_steps import STEP_TEXTS, Step, WaitsFor, next_steps
from core.order import (
    CaseReason,
    Order,
    OrderState,
    OrderStatus,
    Payment,
    PaymentKey,
    PaymentStatus,
    Pending,
    RefundStatus,
)
from core.order_facts import LeaseFact, OrderFacts, RefundWork
from core.story import Entry, story_of
from tests.core.facts import PAID, PAYING, a_callback, a_case, a_notification, an_approval, at
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    EXPIRES_AT,
    NOW,
    a_dispute,
    a_payment,
    a_refund,
    a_row,
    a_state,
    an_order,
    closed_order,
    paid_order,
    paid_payment,
)


def steps(state: OrderState, **facts: Any) -> list[tuple[str, datetime | None]]:
    return [(step.text, step.at) for step in next_steps(OrderFacts(state=state, **facts))]


def pending(state: OrderState, *rows: Any) -> OrderState:
    return replace(state, pending=rows)


SOON = a_row(ALIPAY, due_at=at(30))


def test_an_open_order_waits_for_a_query_its_deadline_and_the_buyer() -> None:
    state = pending(PAYING, SOON, a_row(DEADLINE))
    assert steps(state) == [("query_due", at(30)), ("deadline_due", EXPIRES_AT), ("buyer_pays", EXPIRES_AT)]
    [query, *_] = next_steps(OrderFacts(state=state))
    assert (query.values["attempt"], query.values["account"], query.key) == ("2", "alipay", ALIPAY)


@pytest.mark.parametrize(
    ("row", "leases", "text"),
    [
        (SOON, {}, "query_due"),
        (a_row(ALIPAY, due_at=NOW), {}, "query_overdue"),
        (SOON, {ALIPAY: LeaseFact(until=at(20), process="w-1")}, "query_leased"),
        (SOON, {ALIPAY: LeaseFact(until=at(20))}, "query_leased"),
        (SOON, {ALIPAY: LeaseFact(until=at(-1), process="w-1")}, "query_due"),
    ],
)
def test_a_query_is_due_overdue_or_under_way(row: Pending, leases: dict[PaymentKey, LeaseFact], text: str) -> None:
    [step, *_] = next_steps(OrderFacts(state=pending(PAYING, row, a_row(DEADLINE)), leases=leases))
    assert step.text == text
    if text == "query_leased":
        assert step.values["process"] == (leases[ALIPAY].process or "-")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), "query_after_close"),
        (a_state(paid_order(), paid_payment(unconfirmed_since=NOW)), "query_confirm"),
        (a_state(an_order(), a_payment(), cases=frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)})), "query_daily"),
        (a_state(an_order()), "query_due"),
    ],
)
def test_a_query_says_what_it_is_for(state: OrderState, text: str) -> None:
    assert (text, at(30)) in steps(pending(state, SOON))


def test_an_open_payment_without_a_query_and_an_open_order_without_a_deadline_are_called_out() -> None:
    found = next_steps(OrderFacts(state=pending(PAYING)))
    assert [(step.text, step.waits_for) for step in found][:2] == [
        ("query_missing", WaitsFor.PERSON),
        ("deadline_missing", WaitsFor.PERSON),
    ]


@pytest.mark.parametrize(
    ("row", "leases", "text"),
    [
        (a_row(DEADLINE, attempt=2, due_at=at(60)), {}, "deadline_again"),
        (a_row(DEADLINE, due_at=at(-1)), {}, "deadline_overdue"),
        (a_row(DEADLINE), {DEADLINE: LeaseFact(until=at(9))}, "deadline_leased"),
    ],
)
def test_a_deadline_says_where_it_stands(row: Pending, leases: dict[PaymentKey, LeaseFact], text: str) -> None:
    assert text in [found for found, _ in steps(pending(PAYING, SOON, row), leases=leases)]


@pytest.mark.parametrize(
    ("changes", "text", "waits_for"),
    [
        ({}, "delivery_due", WaitsFor.WORKER),
        ({"last_status": "503"}, "delivery_again", WaitsFor.WORKER),
        ({"due_at": NOW}, "delivery_overdue", WaitsFor.WORKER),
        ({"leased_until": at(9)}, "delivery_leased", WaitsFor.WORKER),
        ({"is_queued": True}, "delivery_queued", WaitsFor.WORKER),
        ({"is_paused": True}, "delivery_paused", WaitsFor.PERSON),
        ({"dead_at": NOW}, "delivery_dead", WaitsFor.PERSON),
        ({"dead_at": NOW, "resending_since": NOW}, "delivery_due", WaitsFor.WORKER),
        ({"delivered_at": NOW, "resending_since": NOW}, "delivery_due", WaitsFor.WORKER),
        ({"delivered_at": NOW}, "nothing_paid_notified", WaitsFor.NOBODY),
        ({"dead_at": NOW, "superseded_at": NOW}, "nothing_paid", WaitsFor.NOBODY),
    ],
)
def test_a_notification_says_where_it_stands(changes: dict[str, Any], text: str, waits_for: WaitsFor) -> None:
    [step] = next_steps(OrderFacts(state=PAID, notifications=(a_notification(**changes),)))
    assert (step.text, step.waits_for) == (text, waits_for)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"due_at": at(60)}, "callback_due"),
        ({"due_at": at(-60)}, "callback_overdue"),
        ({"due_at": at(60), "leased_until": at(5)}, "callback_leased"),
        ({"due_at": at(60), "dead_at": NOW}, "nothing_paid"),
        ({"due_at": None}, "nothing_paid"),
    ],
)
def test_a_callback_that_is_not_handled_is_due_again(changes: dict[str, Any], text: str) -> None:
    assert [found for found, _ in steps(PAID, callbacks=(a_callback(handled_at=None, **changes),))] == [text]


@pytest.mark.parametrize(
    ("work", "text"),
    [
        ({f"r{ALIPAY.out_trade_no}": RefundWork(due_at=at(60))}, "refund_due"),
        ({f"r{ALIPAY.out_trade_no}": RefundWork(due_at=at(60), leased_until=at(9))}, "refund_leased"),
        ({}, "refund_overdue"),
    ],
)
def test_a_refund_that_is_not_definite_is_requested_or_queried(work: dict[str, RefundWork], text: str) -> None:
    state = a_state(closed_order(), paid_payment(), refunds=(a_refund(last_error="timeout"),))
    [step] = next_steps(OrderFacts(state=state, refund_work=work))
    assert (step.text, step.values["error"], step.values["amount"]) == (text, "timeout", "88.88 CNY")


def test_what_waits_for_a_person_comes_first() -> None:
    dispute = a_dispute(respond_by=at(86_400))
    state = replace(pending(PAYING, SOON, a_row(DEADLINE)), disputes=(dispute,))
    assert [text for text, _ in steps(state, cases=(a_case(), a_case(id=8, resolved_at=NOW)))] == [
        "case_waits",
        "dispute_answer",
        "query_due",
        "deadline_due",
        "buyer_pays",
    ]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ("approval_waits", at(3600), "anna")),
        ({"decision": "approved", "decided_by": "ben"}, ("approval_unfinished", at(3600), "ben")),
        ({"decision": "approved", "decided_by": "ben", "is_expired": True}, None),
        ({"decision": "approved", "decided_by": "ben", "refund_no": "r-1"}, None),
        ({"decision": "declined", "decided_by": "ben"}, None),
        ({"is_expired": True}, None),
    ],
)
def test_a_refund_that_waits_for_a_second_operator_is_a_next_step(
    changes: dict[str, Any], found: tuple[str, datetime | None, str] | None
) -> None:
    [step] = next_steps(OrderFacts(state=PAID, approvals=(an_approval(**changes),)))
    if found is None:
        assert step.text == "nothing_paid"
        return
    assert (step.text, step.at, step.values["person"]) == found
    assert (step.waits_for, step.approval_id, step.values["amount"]) == (WaitsFor.PERSON, 9, "8.88 CNY")


@pytest.mark.parametrize(
    ("dispute", "texts"),
    [
        (a_dispute(), ["dispute_decided"]),
        (a_dispute(state=DisputeState.UNDER_REVIEW, respond_by=at(60)), ["dispute_decided"]),
        (a_dispute(state=DisputeState.WON), ["nothing_paid"]),
    ],
)
def test_a_dispute_waits_for_its_channel_unless_it_is_to_be_answered(dispute: Dispute, texts: list[str]) -> None:
    assert [text for text, _ in steps(a_state(paid_order(), paid_payment(), disputes=(dispute,)))] == texts


@pytest.mark.parametrize(
    ("state", "texts"),
    [
        (a_state(an_order(status=OrderStatus.CREATED)), ["deadline_due", "buyer_starts"]),
        (a_state(an_order(status=OrderStatus.CREATED), now=EXPIRES_AT), ["deadline_overdue"]),
        (a_state(an_order(), a_payment(refused_at=NOW)), ["query_overdue", "deadline_due"]),
        (a_state(an_order(), a_payment(given_up_at=NOW)), ["query_overdue", "deadline_due"]),
        (a_state(an_order(), a_payment(payable_until=NOW)), ["query_overdue", "deadline_due"]),
    ],
)
def test_the_buyer_may_pay_only_while_the_channel_takes_money(state: OrderState, texts: list[str]) -> None:
    assert [text for text, _ in steps(state)] == texts


def test_a_payment_without_a_known_end_has_no_time() -> None:
    endless = a_payment(payable_until=NOW + timedelta(days=4000))
    assert ("buyer_pays", None) in steps(a_state(an_order(), endless))


@pytest.mark.parametrize(
    ("state", "facts", "text"),
    [
        (PAID, {}, "nothing_paid"),
        (PAID, {"notifications": (a_notification(delivered_at=NOW),)}, "nothing_paid_notified"),
        (a_state(paid_order(notify_url=None), paid_payment()), {}, "nothing_paid_unnotified"),
        (a_state(closed_order()), {}, "nothing_closed"),
        (a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), {}, "nothing_closed"),
        (
            a_state(
                closed_order(),
                paid_payment(refunded_amount=8888),
                refunds=(a_refund(status=RefundStatus.SUCCEEDED, settled_at=NOW),),
            ),
            {},
            "nothing_returned",
        ),
        (a_state(closed_order(), paid_payment()), {}, "nothing_decided"),
    ],
)
def test_nothing_has_a_reason(state: OrderState, facts: dict[str, Any], text: str) -> None:
    [step] = next_steps(OrderFacts(state=state, **facts))
    assert (step.text, step.waits_for, step.at) == (text, WaitsFor.NOBODY, None)


_orders = st.sampled_from([an_order(), an_order(status=OrderStatus.CREATED), paid_order(), closed_order()])
_payments = st.lists(
    st.sampled_from(
        [
            a_payment(),
            a_payment(status=PaymentStatus.CLOSED),
            paid_payment(),
            paid_payment(refunded_amount=None),
            paid_payment(unconfirmed_since=NOW),
        ]
    ),
    max_size=2,
)


@given(order=_orders, payments=_payments, has_rows=st.booleans(), shift=st.integers(-5000, 5000))
def test_every_order_has_a_next_step_or_a_reason(
    order: Order, payments: list[Payment], *, has_rows: bool, shift: int
) -> None:
    state = a_state(order, *payments, now=at(shift))
    found = next_steps(OrderFacts(state=state if has_rows else pending(state)))
    assert found
    assert {step.text for step in found} <= set(STEP_TEXTS)
    assert all(isinstance(step, Step) for step in found)
    assert all(isinstance(entry, Entry) for entry in story_of(OrderFacts(state=state)))
