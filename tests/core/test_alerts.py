"""Rules of alerts as tables, and when each is told."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from core.alerts import (
    CASES_EACH,
    AlertMessage,
    Broken,
    Condition,
    EndpointCount,
    Facts,
    Invariant,
    Judgement,
    OldestDue,
    OpenAlert,
    OpenBreaker,
    OpenCase,
    PausedEndpoint,
    Reconciled,
    Rule,
    Thresholds,
    WorkerClock,
    find_conditions,
    judge,
    log_fields,
    message_delay_s,
    message_of,
)
from core.silence import SilentAccount

AT = datetime(2026, 11, 23, 4, 33, 33, tzinfo=UTC)
THRESHOLDS = Thresholds(overdue_s=120.0, endpoint_s=900.0, paused_s=3600.0, reconciled_s=108_000.0, workers_min=1)
WORKER = WorkerClock(process="w-1", clock="right")
SILENT = SilentAccount(account="main", payments=10, heard=1, expected_share=0.9, since=AT)
HOOK = "https://shop.test/hook"


def keys(thresholds: Thresholds = THRESHOLDS, **facts: Any) -> list[str]:
    return [condition.key for condition in find_conditions(Facts(**{"workers": (WORKER,), **facts}), thresholds)]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"oldest_due": (OldestDue(kind="pending", seconds=120.0), OldestDue(kind="refunds", seconds=0.0))}, []),
        ({"oldest_due": (OldestDue(kind="pending", seconds=120.1),)}, ["overdue:pending"]),
        ({"silent": (SILENT,)}, ["callbacks_silent:main"]),
        ({"breakers": (OpenBreaker(account="main", kind="query"),)}, ["breaker_open:main/query"]),
        ({"dead_letters": (EndpointCount(url=HOOK, count=1),)}, [f"dead_letters:{HOOK}"]),
        (
            {"dead_letters": (EndpointCount(url=f"{HOOK}?a=1", count=1), EndpointCount(url=f"{HOOK}?a=2#b", count=2))},
            [f"dead_letters:{HOOK}"],
        ),
        ({"cases": (OpenCase(id=7, reason="disputed", of_reason=1, order_no="A-1"),)}, ["case:7"]),
        (
            {"cases": (OpenCase(id=7, reason="disputed", of_reason=CASES_EACH + 1),)},
            ["case:7", "case:disputed/others"],
        ),
        ({"reconciled": (Reconciled(account="main", seconds=108_000.0),)}, []),
        ({"reconciled": (Reconciled(account="main", seconds=108_001.0),)}, ["not_reconciled:main"]),
        (
            {"broken": (Broken(order_no="A-1", invariant=Invariant.PAID_WITHOUT_PAYMENT),)},
            ["invariant:paid_without_payment/A-1"],
        ),
        ({"undelivered": (EndpointCount(url=HOOK, count=3, seconds=900.0),)}, []),
        ({"undelivered": (EndpointCount(url=HOOK, count=3, seconds=901.0),)}, [f"endpoint_failing:{HOOK}"]),
        ({"paused": (PausedEndpoint(endpoint=HOOK, seconds=3600.0),)}, []),
        ({"paused": (PausedEndpoint(endpoint=HOOK, seconds=3601.0),)}, [f"endpoint_paused:{HOOK}"]),
        ({"workers": ()}, ["workers_gone"]),
        ({"workers": (WorkerClock(process="w-1", clock="corrected"), WorkerClock(process="w-2", clock=""))}, []),
        ({"workers": (WorkerClock(process="w-1", clock="contradicted"),)}, ["clock:w-1"]),
        ({"workers": (WorkerClock(process="w-1", clock="far_off"),)}, ["clock:w-1"]),
    ],
)
def test_a_fact_beyond_its_threshold_is_a_condition(facts: dict[str, Any], expected: list[str]) -> None:
    assert keys(**facts) == expected


def test_what_is_switched_off_is_not_missed() -> None:
    off = msgspec.structs.replace(THRESHOLDS, reconciled_s=0.0, workers_min=0)
    assert keys(off, workers=(), reconciled=(Reconciled(account="main", seconds=1e9),)) == []


def test_a_rule_whose_facts_are_unknown_has_no_condition() -> None:
    breaker = OpenBreaker(account="main", kind="query")
    assert keys(workers=(), breakers=(breaker,), unknown=frozenset({Rule.BREAKER_OPEN})) == ["workers_gone"]


@pytest.mark.parametrize(("count", "subjects"), [(5, 5), (6, 1), (5000, 1)])
def test_a_merchant_whose_urls_name_the_order_is_one_alert_when_its_host_is_down(count: int, subjects: int) -> None:
    rows = tuple(EndpointCount(url=f"https://m.test:8443/o/{n}/?x", count=1, seconds=901.0 + n) for n in range(count))
    other = EndpointCount(url=HOOK, count=1, seconds=901.0)
    for facts in (Facts(dead_letters=(*rows, other)), Facts(undelivered=(*rows, other))):
        found = find_conditions(facts, THRESHOLDS)
        found = [condition for condition in found if condition.rule is not Rule.WORKERS_GONE]
        assert len(found) == subjects + 1
        assert f"{found[0].rule}:{HOOK}" in [condition.key for condition in found]
        if subjects == 1:
            [whole] = [condition for condition in found if condition.subject == "https://m.test:8443/*"]
            assert f"{count} notifications" in whole.text


def test_the_oldest_notification_of_an_endpoint_counts_whatever_its_query() -> None:
    rows = tuple(
        EndpointCount(url=f"{HOOK}?n={n}", count=1, seconds=seconds) for n, seconds in enumerate((5000.0, 1.0))
    )
    (condition,) = find_conditions(Facts(workers=(WORKER,), undelivered=rows), THRESHOLDS)
    assert condition.text == f"2 notifications wait for {HOOK}, the oldest for 83 min"


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (OpenCase(id=7, reason="disputed", of_reason=1, order_no="A-1", account="main"), "case 7 of order A-1"),
        (OpenCase(id=7, reason="disputed", of_reason=1, account="main"), "case 7 of main"),
        (OpenCase(id=7, reason="disputed", of_reason=1), "case 7"),
    ],
)  # fmt: skip
def test_a_case_names_its_order_or_its_account(case: OpenCase, text: str) -> None:
    assert [one.text for one in find_conditions(Facts(workers=(WORKER,), cases=(case,)), THRESHOLDS)] == [
        f"{text} is open: disputed"
    ]


# -- when it is told ---------------------------------------------------------------------------------------------------

CONDITION = Condition(rule=Rule.OVERDUE, subject="pending", text="late")


class Watch:
    """The alerts of a deployment, look by look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.alerts: list[OpenAlert] = []

    def look(self, *conditions: Condition, unknown: frozenset[Rule] = frozenset()) -> list[str]:
        """Words for the results of this look."""
        judgement = judge(self.alerts, conditions, looks=self.looks, unknown=unknown)
        return self._raised(judgement) + self._moved(judgement)

    def _raised(self, judgement: Judgement) -> list[str]:
        for condition in judgement.begun:
            raised_at, looks = (AT, 0) if judgement.raises else (None, 1)
            self.alerts.append(
                OpenAlert(
                    id=f"alr_{len(self.alerts)}", key=condition.key, rule=condition.rule, subject=condition.subject,
                    text=condition.text, looks=looks, raised_at=raised_at,
                )
            )  # fmt: skip
        return ["raise" for _ in judgement.begun if judgement.raises]

    def _moved(self, judgement: Judgement) -> list[str]:
        moves = {move.alert.id: move for move in judgement.moves}
        kept = []
        for alert in self.alerts:
            move = moves.get(alert.id)
            if move is None:
                kept.append(alert)
            elif move.what in ("keep", "raise"):
                assert move.from_looks == alert.looks
                raised_at = AT if move.what == "raise" else alert.raised_at
                kept.append(msgspec.structs.replace(move.alert, raised_at=raised_at))
        self.alerts = kept
        return [move.what for move in judgement.moves if move.what in ("raise", "clear")]


def seen(text: str, looks: int) -> list[list[str]]:
    """Results of each look: `x` the condition holds, `.` it does not."""
    watch = Watch(looks)
    return [watch.look(*([CONDITION] if mark == "x" else [])) for mark in text]


@pytest.mark.parametrize(
    ("looks", "text", "told"),
    [
        (1, "xx..", "R.C."),
        (2, "xxxx", ".R.."),
        (2, "xx...", ".R.C."),
        (2, "x.x.x.", "......"),
        (2, "xx.x.x..", ".R.....C"),
        (3, "xx.xxx..x...", ".....R.....C"),
        (2, "xx..xx", ".R.C.R"),
    ],
)
def test_what_holds_is_told_once_and_what_flaps_is_not(looks: int, text: str, told: str) -> None:
    letters = {"raise": "R", "clear": "C"}
    assert "".join("".join(letters[what] for what in each) or "." for each in seen(text, looks)) == told


def test_an_alert_of_an_unknown_rule_stays_as_it_is() -> None:
    watch = Watch(1)
    assert watch.look(CONDITION) == ["raise"]
    for _ in range(3):
        assert watch.look(unknown=frozenset({Rule.OVERDUE})) == []
    assert watch.look() == ["clear"]


def test_the_figures_of_an_open_alert_are_kept_current_without_being_told() -> None:
    watch = Watch(1)
    watch.look(CONDITION)
    later = msgspec.structs.replace(CONDITION, text="later")
    assert watch.look(later) == []
    assert [alert.text for alert in watch.alerts] == ["later"]
    assert judge(watch.alerts, [later], looks=1).moves == ()


def test_conditions_are_judged_each_by_its_own_key() -> None:
    watch = Watch(1)
    other = msgspec.structs.replace(CONDITION, subject="refunds")
    assert watch.look(CONDITION, other) == ["raise", "raise"]
    assert watch.look(other) == ["clear"]
    assert [alert.key for alert in watch.alerts] == ["overdue:refunds"]


# -- what is told ------------------------------------------------------------------------------------------------------


def test_the_two_messages_of_an_alert_have_its_id() -> None:
    raised = message_of("alert.raised", "alr_1", CONDITION, raised_at=AT, now=AT)
    cleared = message_of("alert.cleared", "alr_1", CONDITION, raised_at=AT, now=AT)
    assert (raised.id, cleared.id) == ("alr_1_raised", "alr_1_cleared")
    assert (raised.data.cleared_at, cleared.data.cleared_at) == (None, AT)
    assert msgspec.json.decode(msgspec.json.encode(raised), type=AlertMessage) == raised


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 60), (2, 240), (7, 2940), (8, 3600), (900, 3600)])
def test_a_message_is_tried_again_each_hour_at_last(attempt: int, delay_s: float) -> None:
    assert message_delay_s(attempt, 60.0) == delay_s


@pytest.mark.parametrize(
    ("rule", "subject", "fields"),
    [
        (Rule.OVERDUE, "pending", {"kind": "pending"}),
        (Rule.CALLBACKS_SILENT, "main", {"account": "main"}),
        (Rule.NOT_RECONCILED, "main", {"account": "main"}),
        (Rule.BREAKER_OPEN, "main/query", {"account": "main", "kind": "query"}),
        (Rule.DEAD_LETTERS, "https://shop.test:8443/hook/secret", {"host": "shop.test:8443"}),
        (Rule.ENDPOINT_FAILING, HOOK, {"host": "shop.test"}),
        (Rule.ENDPOINT_PAUSED, HOOK, {"host": "shop.test"}),
        (Rule.CASE, "7", {"case_id": "7"}),
        (Rule.CASE, "disputed/others", {"reason": "disputed"}),
        (Rule.INVARIANT, "history_with_gap/A/1", {"name": "history_with_gap", "order_no": "A/1"}),
        (Rule.CLOCK, "w-1", {"process": "w-1"}),
        (Rule.WORKERS_GONE, "", {}),
    ],
)
def test_a_log_line_has_the_subject_and_no_address(rule: Rule, subject: str, fields: dict[str, str]) -> None:
    assert log_fields(rule, subject) == fields
