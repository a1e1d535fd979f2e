"""The closing of a day of an account: its money by currency, here and in the channel's statement; its sign-off. Pure.

The money here is what was paid, refunded and disputed on the day, by the channel's calendar. The statement's own sums
stand beside it, because channels book some of it on the day before or after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec.structs import replace

from core.dispute import Dispute, taken_amount, unsettled


class DayMoney(msgspec.Struct, frozen=True, kw_only=True):
    """Money of one currency that is known here, in minor units. `taken` is what disputes of the day hold or have taken;
    `disputes` counts them all, also those that move no money.
    """

    payments: int = 0
    paid: int = 0
    refunds: int = 0
    refunded: int = 0
    disputes: int = 0
    taken: int = 0


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Money of one currency in a statement, in minor units: rows of payments that are known here, then all others, of
    which `other_net` is what came less what went. `fees` None: no row of a known payment states one. Of the refunds,
    those that nodrop did not make are counted once more as `outside`.
    """

    payments: int = 0
    paid: int = 0
    refunds: int = 0
    refunded: int = 0
    refunds_outside: int = 0
    refunded_outside: int = 0
    fees: int | None = None
    others: int = 0
    other_net: int = 0


class Row(Protocol):
    """The fields of a statement's row that are summed; `channels.base.StatementRow` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def fee(self) -> int | None: ...
    @property
    def fee_currency(self) -> str: ...


def with_row(sums: Mapping[str, Sums], row: Row, *, is_known: bool, is_outside: bool = False) -> dict[str, Sums]:
    """The sums by currency with one more row. `is_outside`: a refund that nodrop did not make."""
    so_far = sums.get(row.currency, Sums())
    if not is_known:
        net = row.amount if row.kind == "payment" else -row.amount
        return {**sums, row.currency: replace(so_far, others=so_far.others + 1, other_net=so_far.other_net + net)}
    if row.kind == "payment":
        added = replace(so_far, payments=so_far.payments + 1, paid=so_far.paid + row.amount)
    else:
        added = replace(
            so_far,
            refunds=so_far.refunds + 1,
            refunded=so_far.refunded + row.amount,
            refunds_outside=so_far.refunds_outside + (1 if is_outside else 0),
            refunded_outside=so_far.refunded_outside + (row.amount if is_outside else 0),
        )
    result = {**sums, row.currency: added}
    if row.fee is not None:
        currency = row.fee_currency or row.currency
        charged = result.get(currency, Sums())
        result[currency] = replace(charged, fees=(charged.fees or 0) + row.fee)
    return result


def with_disputes(money: Mapping[str, DayMoney], disputes: Iterable[Dispute]) -> dict[str, DayMoney]:
    """The money by currency with the disputes that began on the day. A claim and the reversal of its money are the same
    money. One whose channel names no currency is of none of them.
    """
    result = dict(money)
    of_day = [dispute for dispute in disputes if dispute.currency is not None]
    for dispute in of_day:
        before = result.get(str(dispute.currency), DayMoney())
        result[str(dispute.currency)] = replace(before, disputes=before.disputes + 1)
    for key, currency in dict.fromkeys((dispute.key, str(dispute.currency)) for dispute in of_day):
        left = [dispute for dispute in unsettled(of_day, key) if dispute.currency == currency]
        before = result[currency]
        result[currency] = replace(before, taken=before.taken + taken_amount(left, key))
    return result


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One currency of a closing. `there` None: the statement was not read, or has no row of this currency."""

    currency: str
    here: DayMoney
    there: Sums | None

    @property
    def fees(self) -> int | None:
        return None if self.there is None else self.there.fees

    @property
    def refunded_outside(self) -> int | None:
        """Refunds that nodrop did not make, as the statement has them. None: no statement tells."""
        return None if self.there is None else self.there.refunded_outside

    @property
    def net(self) -> int:
        """Money that is left of the day, without fees and refunds that no statement states."""
        here = self.here
        return here.paid - here.refunded - (self.refunded_outside or 0) - here.taken - (self.fees or 0)


def lines_of(here: Mapping[str, DayMoney], there: Mapping[str, Sums]) -> tuple[Line, ...]:
    """One line for each currency of either side, in the order of their codes."""
    return tuple(
        Line(currency=currency, here=here.get(currency, DayMoney()), there=there.get(currency))
        for currency in sorted({*here, *there})
    )


class StatementState(StrEnum):
    """State of a day's statement. read: as a whole, after the day. part: before the day was over. reading: a process
    works on it now. incomplete: it states more than could be read. failed: it was not fetched or read. missing: nobody
    has read it, and the day is over. not_due: the day is not over.
    """

    READ = "read"
    PART = "part"
    READING = "reading"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    MISSING = "missing"
    NOT_DUE = "not_due"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A reconciliation of the day. `differences` are those that need a person, `is_incomplete`: by its totals."""

    id: int
    status: str
    started_at: datetime
    is_incomplete: bool
    differences: int
    last_error: str = ""
    error_phrase: str | None = None


class SignOff(msgspec.Struct, frozen=True, kw_only=True):
    """The newest sign-off of a day. `figures` as `figures_of` made them then."""

    at: datetime
    by: str
    note: str
    figures: Mapping[str, Mapping[str, int | None]]


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """One day of one account. `run` is the newest over it; `read_by` the one whose rows count, None before the first.

    `open_differences` are those whose case is open.
    """

    account: str
    lines: tuple[Line, ...]
    ends_at: datetime
    is_over: bool
    run: Run | None
    read_by: Run | None
    open_differences: int
    sign_off: SignOff | None

    @property
    def statement(self) -> StatementState:
        run = self.run
        if run is None:
            return StatementState.MISSING if self.is_over else StatementState.NOT_DUE
        if run.status == "finished":
            return StatementState.READ if run.started_at >= self.ends_at else StatementState.PART
        if run.status == "running":
            return StatementState.READING
        return StatementState.INCOMPLETE if run.is_incomplete else StatementState.FAILED

    @property
    def differences(self) -> int:
        """All that the run has found, open or resolved."""
        return 0 if self.read_by is None else self.read_by.differences

    @property
    def resolved_differences(self) -> int:
        return max(0, self.differences - self.open_differences)

    @property
    def is_changed(self) -> bool:
        """Whether it was signed off and has other figures now."""
        return self.sign_off is not None and self.sign_off.figures != figures_of(self.lines, self.differences)


_SINCE_LATER = ("refunds_outside", "refunded_outside")
"""Sums that older sign-offs have not: left out where they are nothing, so that nothing has changed since."""


def figures_of(lines: Iterable[Line], differences: int) -> dict[str, dict[str, int | None]]:
    """The figures that a sign-off is about. A difference that is resolved later changes none of them."""
    figures: dict[str, dict[str, int | None]] = {"": {"differences": differences}}
    for line in lines:
        here = msgspec.structs.asdict(line.here)
        there = {} if line.there is None else msgspec.structs.asdict(line.there)
        for name in _SINCE_LATER:
            if not there.get(name):
                there.pop(name, None)
        figures[line.currency] = {**here, **{f"statement_{name}": value for name, value in there.items()}}
    return figures


class Doubt(StrEnum):
    """Reason why a day is not signed off without a note. not_over: it is not signed off at all."""

    NOT_OVER = "not_over"
    NOT_READ = "not_read"
    DIFFERENCES_OPEN = "differences_open"


def doubts_of(closing: Closing) -> tuple[Doubt, ...]:
    """Everything that speaks against the sign-off."""
    return (
        *(() if closing.is_over else (Doubt.NOT_OVER,)),
        *(() if closing.statement is StatementState.READ else (Doubt.NOT_READ,)),
        *((Doubt.DIFFERENCES_OPEN,) if closing.open_differences else ()),
    )
