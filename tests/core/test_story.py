"""All that happened to an order is told once and in order."""

from typing import Any

import pytest

from core.decision import Outcome
from core.evidence import Source
from core.order import OrderState
from core.order_facts import CallbackFact, EventFact, OrderFacts, RefusedFact
from core.story import ENTRY_TEXTS, KNOWN_EVENTS, Tone, story_of
from tests.core.facts import PAID, PAYING, a_callback, a_case, a_notification, an_approval, an_event, at, seen, tried
from tests.core.states import ALIPAY, WECHAT


def told(state: OrderState = PAYING, **facts: Any) -> list[str]:
    return [entry.text for entry in story_of(OrderFacts(state=state, **facts))]


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


def test_a_refund_that_a_second_operator_decides_about_is_told_by_who_asked_and_who_declined() -> None:
    declined = an_approval(decision="declined", decided_by="ben", decided_at=at(60))
    entries = story_of(OrderFacts(state=PAID, approvals=(an_approval(decision="approved"), declined)))
    assert [(entry.text, entry.by, entry.values["reason"]) for entry in entries] == [
        ("refund_asked", "anna", "broken cup"),
        ("refund_asked", "anna", "broken cup"),
        ("refund_declined", "ben", "-"),
    ]
    assert entries[0].values["amount"] == "8.88 CNY"


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
        *(
            "other_terms",
            "other_world",
            "still_open",
            "unknown_payment",
            "nothing_new",
            "not_yet",
            "stale",
            "already_paid",
        ),
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
