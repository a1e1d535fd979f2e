"""A closing as programs see it: in /v1 and in the JSON of commands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import msgspec

from core.clocks import Instant
from core.closing import Closing, Line, StatementState


class StatementSumsView(msgspec.Struct, frozen=True, kw_only=True):
    """Money of the channel's statement, in minor units. `fees` null: it states none. `others` are rows of payments that
    are not known here, `other_net` what came less what went. `refunded` has all refunds of known payments, and
    `refunded_outside` those of them that nodrop did not make.
    """

    payments: int
    paid: int
    refunds: int
    refunded: int
    refunds_outside: int
    refunded_outside: int
    fees: int | None
    others: int
    other_net: int


class DayLineView(msgspec.Struct, frozen=True, kw_only=True):
    """One currency of a day, in minor units. `taken` is what disputes that began on this day hold or have taken. `net`
    is `paid` less `refunded`, `taken`, and the statement's fees and refunds that nodrop did not make.
    """

    currency: str
    payments: int
    paid: int
    refunds: int
    refunded: int
    disputes: int
    taken: int
    fees: int | None
    net: int
    statement: StatementSumsView | None


class SignOffView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest sign-off. `changed_since`: other figures came after it."""

    at: Instant
    by: str
    note: str
    changed_since: bool


class DayView(msgspec.Struct, frozen=True, kw_only=True):
    """A day of an account, in the calendar of its channel. `run_id` is the newest reconciliation over it."""

    account: str
    day: date
    is_over: bool
    statement: StatementState
    run_id: int | None
    run_error: str
    open_differences: int
    resolved_differences: int
    lines: Sequence[DayLineView]
    sign_off: SignOffView | None


def view_of(day: date, closing: Closing) -> DayView:
    """The closing of a day for programs."""
    signed = closing.sign_off
    return DayView(
        account=closing.account,
        day=day,
        is_over=closing.is_over,
        statement=closing.statement,
        run_id=None if closing.run is None else closing.run.id,
        run_error="" if closing.run is None else closing.run.last_error,
        open_differences=closing.open_differences,
        resolved_differences=closing.resolved_differences,
        lines=[_line(line) for line in closing.lines],
        sign_off=None
        if signed is None
        else SignOffView(at=signed.at, by=signed.by, note=signed.note, changed_since=closing.is_changed),
    )


def _line(line: Line) -> DayLineView:
    return DayLineView(
        currency=line.currency,
        fees=line.fees,
        net=line.net,
        statement=None if line.there is None else StatementSumsView(**msgspec.structs.asdict(line.there)),
        **msgspec.structs.asdict(line.here),
    )
