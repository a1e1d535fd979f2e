"""All that happened to an order is told once and in order, and any order in any state says what happens next."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.decision import Outcome
from core.dispute import Dispute, DisputeState
from core.evidence import Source
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
from core.story import (
    ENTRY_TEXTS,
    KNOWN_EVENTS,
    STEP_TEXTS,
    AttemptFact,
    CallbackFact,
    CaseFact,
    Entry,
    EventFact,
    LeaseFact,
    NotificationFact,
    OrderFacts,
    RefundWork,
    RefusedFact,
    Step,
    Tone,
    WaitsFor,
    next_steps,
    story_of,
)
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    EXPIRES_AT,
    NOW,
    WECHAT,
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


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def an_event(kind: str, seconds: float = 0.0, by: str = Source.QUERY, **changes: Any) -> EventFact:
    return replace(EventFact(at=at(seconds), kind=kind, by=by, version=1, key=ALIPAY), **changes)


def seen(kind: str, seconds: float = 0.0, by: str = Source.QUERY, **changes: Any) -> EventFact:
    return an_event(kind, seconds, by, version=None, **changes)


def a_callback(seconds: float = 0.0, **changes: Any) -> CallbackFact:
    callback = CallbackFact(
        id="c-1",
        key=ALIPAY,
        notification_id="evt-1",
        received_at=at(seconds),
        says="paid",
        handled_at=at(seconds + 1),
        outcome="paid",
    )
    return replace(callback, **changes)


def a_notification(**changes: Any) -> NotificationFact:
    """Open, of version 1, never sent."""
    notification = NotificationFact(
        id="msg-1",
        version=1,
        type="order.paid",
        url="https://shop.test/hook",
        created_at=NOW,
        attempt=1,
        due_at=at(60),
    )
    return replace(notification, **changes)


def a_case(**changes: Any) -> CaseFact:
    return replace(
        CaseFact(id=7, reason=CaseReason.PAID_LATE, opened_at=NOW, key=ALIPAY, detail="policy flag"), **changes
    )


def tried(attempt: int, seconds: float, status: str) -> AttemptFact:
    return AttemptFact(attempt=attempt, at=at(seconds), status=status, is_delivered=status == "200")


PAYING = a_state(an_order(), a_payment())
PAID = a_state(paid_order(), paid_payment())


def told(state: OrderState = PAYING, **facts: Any) -> list[str]:
    return [entry.text for entry in story_of(OrderFacts(state=state, **facts))]


# -- the story ---------------------------------------------------------------------------------------------------------


def test_an_order_is_told_from_its_placing_to_its_notification() -> None:
    entries = story_of(
        OrderFacts(
            state=PAID,
            events=(
                an_event("placed", 0, Source.API),
                an_event("handed_off", 1, Source.API, version=2),
                seen("unpaid_seen", 60),
                an_event("paid", 300, version=3),
            ),
            refused=(RefusedFact(id="x-1", key=ALIPAY, at=at(30), reason="forged"),),
            notifications=(
                a_notification(
                    version=3,
                    delivered_at=at(362),
                    attempt=2,
                    attempts=(tried(1, 301, "ConnectError"), tried(2, 362, "200")),
                ),
            ),
        )
    )
    assert [(entry.text, entry.number) for entry in entries] == [
        ("placed", None),
        ("handed_off", None),
        ("callback_refused", None),
        ("unpaid_seen", 1),
        ("paid", 2),
        ("delivery_failed", None),
        ("delivered", None),
    ]
    assert [entry.values["attempt"] for entry in entries[-2:]] == ["1", "2"]
    assert entries[4].notification_id == "msg-1"
    assert entries[2].refused_id == "x-1"
    assert entries[0].values["amount"] == "88.88 CNY"


def test_queries_are_counted_for_each_payment_and_only_queries() -> None:
    events = (
        seen("unpaid_seen", 1),
        seen("unpaid_seen", 2, Source.REFRESH),
        seen("unpaid_seen", 3, Source.SWEEP),
        seen("unpaid_seen", 4, key=WECHAT),
        an_event("exhausted", 5, version=4),
        an_event("payment_closed", 6, version=5),
        seen("unclear_seen", 7, key=None),
    )
    entries = story_of(OrderFacts(state=PAYING, events=events))
    assert [entry.number for entry in entries] == [1, None, 2, 1, None, 3, None]
    assert entries[-1].values["account"] == "-"


def test_a_callback_is_told_with_the_payment_that_it_led_to() -> None:
    events = (an_event("paid", 1.0, Source.CALLBACK, version=2),)
    [entry] = story_of(OrderFacts(state=PAID, events=events, callbacks=(a_callback(0.5),)))
    assert (entry.text, entry.callback_id) == ("paid", "c-1")


@pytest.mark.parametrize(
    ("callback", "event", "is_linked"),
    [
        (a_callback(0, handled_at=at(3600)), an_event("paid", 3600, Source.COMPENSATION, version=2), True),
        (a_callback(0), seen("unclear_seen", 0.5, Source.CALLBACK), True),
        (a_callback(0, handled_at=None), an_event("paid", 1, Source.CALLBACK, version=2), True),
        (a_callback(0), an_event("paid", 1, Source.QUERY, version=2), False),
        (a_callback(0), an_event("paid", 60, Source.CALLBACK, version=2), False),
        (a_callback(5), an_event("paid", 1, Source.CALLBACK, version=2), False),
        (a_callback(0), an_event("paid", 1, Source.CALLBACK, version=2, key=WECHAT), False),
    ],
    ids=["much later", "only seen", "not ended", "a query", "after its end", "before it", "another payment"],
)
def test_a_callback_that_is_not_one_with_an_event_is_told_by_itself(
    callback: CallbackFact, event: EventFact, *, is_linked: bool
) -> None:
    entries = story_of(OrderFacts(state=PAID, events=(event,), callbacks=(callback,)))
    of_event = next(entry for entry in entries if entry.kind == event.kind)
    assert len(entries) == 2
    assert (of_event.callback_id == "c-1") is is_linked


def test_an_event_is_of_the_newest_callback_that_may_have_caused_it() -> None:
    callbacks = (a_callback(0, handled_at=at(9)), a_callback(2, id="c-2", handled_at=at(9)))
    events = (an_event("paid", 3, Source.CALLBACK, version=2),)
    entries = story_of(OrderFacts(state=PAID, events=events, callbacks=callbacks))
    assert [entry.callback_id for entry in entries] == ["c-1", "c-2"]


@pytest.mark.parametrize(
    ("changes", "text", "tone"),
    [
        ({}, "callback", Tone.CALM),
        ({"is_hint": True}, "callback_hint", Tone.CALM),
        ({"handled_at": None, "outcome": None}, "callback_open", Tone.WAIT),
        ({"handled_at": None, "dead_at": at(9)}, "callback_dead", Tone.BAD),
    ],
)
def test_a_callback_says_where_it_stands(changes: dict[str, Any], text: str, tone: Tone) -> None:
    [entry] = story_of(OrderFacts(state=PAYING, callbacks=(a_callback(**changes),)))
    assert (entry.text, entry.tone) == (text, tone)


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({}, []),
        ({"delivered_at": at(9)}, ["delivered"]),
        ({"delivered_at": at(9), "attempts": (tried(1, 8, "200"),)}, ["delivered"]),
        ({"superseded_at": at(9)}, ["delivery_superseded"]),
        ({"dead_at": at(9), "attempts": (tried(16, 9, "503"),)}, ["delivery_failed", "delivery_dead"]),
    ],
)
def test_a_notification_is_told_by_its_deliveries_and_its_end(changes: dict[str, Any], texts: list[str]) -> None:
    assert told(notifications=(a_notification(**changes),)) == texts


def test_a_case_is_told_with_the_event_that_opened_it_or_by_itself() -> None:
    event = an_event("paid_late", 0, Source.CALLBACK)
    resolved = {"resolved_at": at(60), "resolution": "kept", "by": "alice"}
    entries = story_of(OrderFacts(state=PAYING, events=(event,), cases=(a_case(), a_case(id=8, **resolved))))
    assert [(entry.text, entry.case_ids, entry.by) for entry in entries] == [
        ("paid_late", (7, 8), "callback"),
        ("case_resolved", (8,), "alice"),
    ]
    assert told(events=(seen("unclear_seen"),), cases=(a_case(),)) == ["unclear_seen", "case_opened"]
    assert told(events=(event, an_event("refunded", 60, version=2)), cases=(a_case(resolved_at=at(60)),)) == [
        "paid_late",
        "refunded",
    ]
    assert story_of(OrderFacts(state=PAYING, cases=(a_case(resolved_at=at(60)),)))[-1].by == "case"


def test_late_money_that_a_person_accepts_is_told_as_that() -> None:
    assert told(events=(an_event("paid_late", 0, Source.OPERATOR),)) == ["paid_late_accepted"]
    assert told(events=(an_event("paid_late", 0, Source.CALLBACK),)) == ["paid_late"]


def test_refreshes_that_see_the_same_one_after_another_are_one_entry() -> None:
    again = [seen("unpaid_seen", n, Source.REFRESH) for n in range(3)]
    other = seen("unclear_seen", 3, Source.REFRESH)
    queries = [seen("unpaid_seen", n) for n in (4, 5)]
    entries = story_of(OrderFacts(state=PAYING, events=(*again, other, *queries)))
    assert [(entry.text, entry.count) for entry in entries] == [
        ("unpaid_seen", 3),
        ("unclear_seen", 1),
        ("unpaid_seen", 1),
        ("unpaid_seen", 1),
    ]
    assert entries[0].last_at == at(2)
    events = (an_event("returned_unpaid", 0, Source.REFRESH), an_event("returned_unpaid", 1, Source.REFRESH, version=2))
    assert len(story_of(OrderFacts(state=PAYING, events=events))) == 2


def test_a_kind_of_a_later_release_is_shown_by_its_word() -> None:
    [entry] = story_of(OrderFacts(state=PAYING, events=(an_event("teleported"),)))
    assert (entry.text, entry.values["kind"]) == ("unknown", "teleported")


def test_every_kind_that_the_door_writes_has_a_sentence() -> None:
    """Outcomes that are never an event's are named here."""
    never = {
        *("other_terms", "still_open", "unknown_payment", "nothing_new", "not_yet", "stale", "already_paid"),
        *(
            "already_closed",
            "not_refundable",
            "not_acceptable",
            "not_erasable",
            "checkout_ended",
            "needs_approval",
            "moved",
        ),
    }
    assert {outcome.value for outcome in Outcome} - never <= KNOWN_EVENTS
    assert set(ENTRY_TEXTS) >= KNOWN_EVENTS


# -- what happens next -------------------------------------------------------------------------------------------------


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
