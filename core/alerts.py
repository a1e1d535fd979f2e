"""Alerts: the conditions of a deployment that a person must hear of, and when they are told: once, with an all-clear.

A look reads facts, finds the conditions that hold, and moves the alerts. A condition that holds for some looks in a row
is raised, one that is gone for as many is cleared; so what comes and goes from look to look is told once at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from core.clocks import Instant
from core.deliveries import endpoint_of
from core.sentences import Moment, Phrase, Sentence, Span, Term
from core.silence import SilentAccount

CASES_EACH = 10
"""Cases of one reason that have an alert each, the oldest first. The others of the reason share one."""

SUSPECTS_MAX = 20
"""Orders of broken invariants that have an alert each. The next ones are found when these are mended."""

ENDPOINTS_EACH = 5
"""Endpoints of one host that have an alert each. A merchant whose URLs name the order has thousands when its host is
down: then they share one, and the other alerts are heard.
"""

WHOLE_HOST = "/*"
"""End of the subject that stands for all endpoints of a host."""

OTHERS = "others"
"""Subject, after the reason, of the cases beyond `CASES_EACH`."""

WRONG_CLOCKS = ("contradicted", "far_off")
"""States of a clock that a person must set: `core.clocks.ClockVerdict.state`."""


class Rule(StrEnum):
    """The kind of a condition; `docs/operations.md` says what to do about each."""

    OVERDUE = "overdue"
    CALLBACKS_SILENT = "callbacks_silent"
    BREAKER_OPEN = "breaker_open"
    DEAD_LETTERS = "dead_letters"
    CASE = "case"
    NOT_RECONCILED = "not_reconciled"
    INVARIANT = "invariant"
    ENDPOINT_FAILING = "endpoint_failing"
    ENDPOINT_PAUSED = "endpoint_paused"
    WORKERS_GONE = "workers_gone"
    CLOCK = "clock"
    TEST = "test"
    """Of a message by hand; no condition has it."""


class Invariant(StrEnum):
    """Rules of the database that hold for every order a minute after its last change."""

    OPEN_PAYMENT_UNQUERIED = "open_payment_unqueried"
    OPEN_ORDER_WITHOUT_DEADLINE = "open_order_without_deadline"
    PAID_WITHOUT_NOTIFICATION = "paid_without_notification"
    PAID_WITHOUT_PAYMENT = "paid_without_payment"
    HISTORY_WITH_GAP = "history_with_gap"


BROKEN = {
    Invariant.OPEN_PAYMENT_UNQUERIED: "has an open payment that no row queries",
    Invariant.OPEN_ORDER_WITHOUT_DEADLINE: "is open, and no row ends it at its deadline",
    Invariant.PAID_WITHOUT_NOTIFICATION: "is paid, and there is no notification of it",
    Invariant.PAID_WITHOUT_PAYMENT: "is paid by a payment that is not paid",
    Invariant.HISTORY_WITH_GAP: "has another number of events than its version says",
}


class OldestDue(msgspec.Struct, frozen=True, kw_only=True):
    """Time for which the oldest row of a table has been due: `pending`, `callbacks`, `notifications`, `refunds`."""

    kind: str
    seconds: float


class EndpointCount(msgspec.Struct, frozen=True, kw_only=True):
    """Notifications to one URL. `seconds`: the age of the oldest."""

    url: str
    count: int
    seconds: float = 0.0


class OpenCase(msgspec.Struct, frozen=True, kw_only=True):
    """One of the oldest open cases of its reason, and how many of that reason are open."""

    id: int
    reason: str
    of_reason: int
    order_no: str | None = None
    account: str | None = None


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """Time since an account was last reconciled; one that never was counts from the day it was added."""

    account: str
    seconds: float


class OpenBreaker(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    kind: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    order_no: str
    invariant: Invariant


class PausedEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    seconds: float


class WorkerClock(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process, and what it thinks of its clock; empty: it belongs to an earlier release."""

    process: str
    clock: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that one look has read. `unknown` are the rules about which it could read nothing: their alerts stay."""

    oldest_due: tuple[OldestDue, ...] = ()
    dead_letters: tuple[EndpointCount, ...] = ()
    undelivered: tuple[EndpointCount, ...] = ()
    paused: tuple[PausedEndpoint, ...] = ()
    cases: tuple[OpenCase, ...] = ()
    reconciled: tuple[Reconciled, ...] = ()
    broken: tuple[Broken, ...] = ()
    silent: tuple[SilentAccount, ...] = ()
    breakers: tuple[OpenBreaker, ...] = ()
    workers: tuple[WorkerClock, ...] = ()
    unknown: frozenset[Rule] = frozenset()


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From where on a fact is a condition. `reconciled_s` 0: nothing is reconciled by itself."""

    overdue_s: float
    endpoint_s: float
    paused_s: float
    reconciled_s: float
    workers_min: int


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something that holds now. The key is that of its alert: the same condition has the same one at each look."""

    rule: Rule
    subject: str
    text: str

    @property
    def key(self) -> str:
        return f"{self.rule}:{self.subject}" if self.subject else str(self.rule)


def find_conditions(facts: Facts, thresholds: Thresholds) -> list[Condition]:
    """The conditions that hold, in the order of the rules."""
    found = [
        *_overdue(facts.oldest_due, thresholds.overdue_s),
        *_silent(facts.silent),
        *_breakers(facts.breakers),
        *_dead_letters(facts.dead_letters),
        *_cases(facts.cases),
        *_reconciled(facts.reconciled, thresholds.reconciled_s),
        *_broken(facts.broken),
        *_failing(facts.undelivered, thresholds.endpoint_s),
        *_paused(facts.paused, thresholds.paused_s),
        *_workers(facts.workers, thresholds.workers_min),
    ]
    return [condition for condition in found if condition.rule not in facts.unknown]


def _overdue(rows: Iterable[OldestDue], limit_s: float) -> Iterator[Condition]:
    for row in rows:
        if row.seconds > limit_s:
            what = "the oldest of {kind} has been due for {span}: nobody works on it"
            text = Sentence(what, kind=Term("alerts.kind_", row.kind), span=Span(row.seconds))
            yield Condition(rule=Rule.OVERDUE, subject=row.kind, text=text)


def _silent(accounts: Iterable[SilentAccount]) -> Iterator[Condition]:
    for row in accounts:
        text = Sentence(
            "the callbacks of {account} do not come since {since}: {heard} of its last {count} payments had a callback",
            account=row.account,
            since=Moment(row.since, f"{row.since:%Y-%m-%d %H:%M} UTC"),
            heard=row.heard,
            count=row.payments,
        )
        yield Condition(rule=Rule.CALLBACKS_SILENT, subject=row.account, text=text)


def _breakers(breakers: Iterable[OpenBreaker]) -> Iterator[Condition]:
    for row in breakers:
        what = "{account} does not answer calls of the kind {kind}: its breaker is open"
        text = Sentence(what, account=row.account, kind=Term("overview.call_", row.kind))
        yield Condition(rule=Rule.BREAKER_OPEN, subject=f"{row.account}/{row.kind}", text=text)


def _dead_letters(rows: Iterable[EndpointCount]) -> Iterator[Condition]:
    for endpoint, count, _ in _by_endpoint(rows):
        text = Sentence("{count} notifications to {endpoint} were given up", count=count, endpoint=endpoint)
        yield Condition(rule=Rule.DEAD_LETTERS, subject=endpoint, text=text)


def _cases(cases: Iterable[OpenCase]) -> Iterator[Condition]:
    more: dict[str, int] = {}
    for case in cases:
        yield Condition(rule=Rule.CASE, subject=str(case.id), text=_open_case(case))
        if case.of_reason > CASES_EACH:
            more[case.reason] = case.of_reason - CASES_EACH
    for reason, count in more.items():
        text = Sentence("{count} more cases are open: {reason}", count=count, reason=Term("reason.", reason))
        yield Condition(rule=Rule.CASE, subject=f"{reason}/{OTHERS}", text=text)


def _open_case(case: OpenCase) -> Sentence:
    reason = Term("reason.", case.reason)
    if case.order_no:
        what = "case {id} of order {order_no} is open: {reason}"
        return Sentence(what, id=str(case.id), order_no=case.order_no, reason=reason)
    if case.account:
        what = "case {id} of {account} is open: {reason}"
        return Sentence(what, id=str(case.id), account=case.account, reason=reason)
    return Sentence("case {id} is open: {reason}", id=str(case.id), reason=reason)


def _reconciled(accounts: Iterable[Reconciled], limit_s: float) -> Iterator[Condition]:
    for row in accounts:
        if limit_s and row.seconds > limit_s:
            span = Span(row.seconds)
            text = Sentence("{account} was last reconciled {span} ago", account=row.account, span=span)
            yield Condition(rule=Rule.NOT_RECONCILED, subject=row.account, text=text)


def _broken(rows: Iterable[Broken]) -> Iterator[Condition]:
    for row in rows:
        text = Sentence("order {order_no} {broken}", order_no=row.order_no, broken=Phrase(BROKEN[row.invariant]))
        yield Condition(rule=Rule.INVARIANT, subject=f"{row.invariant}/{row.order_no}", text=text)


def _failing(rows: Iterable[EndpointCount], limit_s: float) -> Iterator[Condition]:
    for endpoint, count, seconds in _by_endpoint(rows):
        if seconds > limit_s:
            what = "{count} notifications wait for {endpoint}, the oldest for {span}"
            text = Sentence(what, count=count, endpoint=endpoint, span=Span(seconds))
            yield Condition(rule=Rule.ENDPOINT_FAILING, subject=endpoint, text=text)


def _paused(rows: Iterable[PausedEndpoint], limit_s: float) -> Iterator[Condition]:
    for row in rows:
        if row.seconds > limit_s:
            text = Sentence("{endpoint} has been paused for {span}", endpoint=row.endpoint, span=Span(row.seconds))
            yield Condition(rule=Rule.ENDPOINT_PAUSED, subject=row.endpoint, text=text)


def _workers(workers: Sequence[WorkerClock], workers_min: int) -> Iterator[Condition]:
    if len(workers) < workers_min:
        what = "{count} worker processes run, {min} at least should"
        text = Sentence(what, count=len(workers), min=workers_min)
        yield Condition(rule=Rule.WORKERS_GONE, subject="", text=text)
    for worker in workers:
        if worker.clock in WRONG_CLOCKS:
            clock = Term("alerts.clock_", worker.clock)
            text = Sentence("the clock of {process} is {clock}", process=worker.process, clock=clock)
            yield Condition(rule=Rule.CLOCK, subject=worker.process, text=text)


def _by_endpoint(rows: Iterable[EndpointCount]) -> list[tuple[str, int, float]]:
    """Endpoint, notifications, and the age of the oldest: URLs that differ in their query alone are one endpoint, and
    so are all of a host that has many.
    """
    named = [(endpoint_of(row.url), row) for row in rows]
    endpoints: dict[str, set[str]] = {}
    for endpoint, _ in named:
        endpoints.setdefault(_origin_of(endpoint), set()).add(endpoint)
    found: dict[str, tuple[int, float]] = {}
    for endpoint, row in named:
        origin = _origin_of(endpoint)
        subject = f"{origin}{WHOLE_HOST}" if len(endpoints[origin]) > ENDPOINTS_EACH else endpoint
        count, seconds = found.get(subject, (0, 0.0))
        found[subject] = (count + row.count, max(seconds, row.seconds))
    return [(subject, count, seconds) for subject, (count, seconds) in sorted(found.items())]


def _origin_of(url: str) -> str:
    """Scheme, host and port."""
    return "/".join(url.split("/", 3)[:3])


# -- the alerts --------------------------------------------------------------------------------------------------------


class OpenAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is not cleared. `looks`: how many in a row have seen its condition while it is not raised, or have
    not seen it since.
    """

    id: str
    key: str
    rule: Rule
    subject: str
    text: str
    looks: int
    raised_at: datetime | None


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a look for one alert, if nobody has moved it since it was read (`from_looks`).

    raise, clear: it is told. drop: it goes untold. keep: the look is counted.
    """

    alert: OpenAlert
    from_looks: int
    what: Literal["raise", "clear", "drop", "keep"]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """New conditions, and the moves of the alerts that are open. `raises`: new ones are raised by their first look."""

    begun: tuple[Condition, ...]
    moves: tuple[Move, ...]
    raises: bool


def judge(
    alerts: Sequence[OpenAlert], conditions: Sequence[Condition], *, looks: int, unknown: frozenset[Rule] = frozenset()
) -> Judgement:
    """Compare what holds with what is open. `looks`: so many in a row raise an alert, or clear it."""
    held = {condition.key: condition for condition in conditions}
    known = {alert.key for alert in alerts}
    moves = [_move(alert, held.get(alert.key), looks) for alert in alerts if alert.rule not in unknown]
    begun = tuple(condition for key, condition in held.items() if key not in known)
    return Judgement(begun=begun, moves=tuple(move for move in moves if move is not None), raises=looks == 1)


def _move(alert: OpenAlert, condition: Condition | None, looks: int) -> Move | None:
    """The move of one alert; None: nothing has changed."""
    count, text = alert.looks + 1, alert.text if condition is None else condition.text
    if alert.raised_at is None:
        if condition is None:
            return _to(alert, alert.looks, text, "drop")
        return _to(alert, 0, text, "raise") if count >= looks else _to(alert, count, text, "keep")
    if condition is None:
        return _to(alert, count, text, "clear") if count >= looks else _to(alert, count, text, "keep")
    return None if alert.looks == 0 and alert.text == text else _to(alert, 0, text, "keep")


def _to(alert: OpenAlert, looks: int, text: str, what: Literal["raise", "clear", "drop", "keep"]) -> Move:
    return Move(alert=msgspec.structs.replace(alert, looks=looks, text=text), from_looks=alert.looks, what=what)


# -- what is told ------------------------------------------------------------------------------------------------------

AlertMessageType = Literal["alert.raised", "alert.cleared", "alert.test"]


class AlertData(msgspec.Struct, frozen=True, kw_only=True):
    """The alert at the moment of the message. `subject`: an account, an endpoint, an order, a table …, by its rule."""

    id: str
    rule: str
    subject: str
    text: str
    raised_at: Instant
    cleared_at: Instant | None


class AlertMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to `ALERT_URL`. Its `id` is the same in every delivery."""

    id: str
    type: AlertMessageType
    created_at: Instant
    data: AlertData


def message_of(
    type_: AlertMessageType, alert_id: str, condition: Condition, *, raised_at: datetime, now: datetime
) -> AlertMessage:
    """The message that tells of a raised or a cleared alert, or that is a test."""
    return AlertMessage(
        id=f"{alert_id}_{type_.partition('.')[2]}",
        type=type_,
        created_at=now,
        data=AlertData(
            id=alert_id,
            rule=condition.rule,
            subject=condition.subject,
            text=str(condition.text),
            raised_at=raised_at,
            cleared_at=now if type_ == "alert.cleared" else None,
        ),
    )


MESSAGE_GAP_UNITS_MAX = 60
"""An hour: an alert that was not heard matters less each day, and its receiver may be back at any time."""


def message_delay_s(attempt: int, unit_s: float) -> float:
    """Seconds until the next attempt after `attempt`: 60, 240, 540 … 2940, then 3600 with the usual unit."""
    return min(attempt * attempt, MESSAGE_GAP_UNITS_MAX) * unit_s


def log_fields(rule: Rule, subject: str) -> dict[str, str]:
    """The subject in fields that a log line may have: of a URL the host alone."""
    first, _, rest = subject.partition("/")
    match rule:
        case Rule.OVERDUE:
            return {"kind": subject}
        case Rule.CALLBACKS_SILENT | Rule.NOT_RECONCILED:
            return {"account": subject}
        case Rule.BREAKER_OPEN:
            return {"account": first, "kind": rest}
        case Rule.DEAD_LETTERS | Rule.ENDPOINT_FAILING | Rule.ENDPOINT_PAUSED:
            return {"host": _host_of(subject)}
        case Rule.CASE:
            return {"reason": first} if rest else {"case_id": subject}
        case Rule.INVARIANT:
            return {"name": first, "order_no": rest}
        case Rule.CLOCK:
            return {"process": subject}
    return {}


def _host_of(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
