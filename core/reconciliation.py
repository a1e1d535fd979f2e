"""Comparing a channel's statement with our payments: what each row comes to, and what a query made of it. All pure.

A statement is no evidence: nobody signed a single row of it, and it tells of yesterday. So a row never pays an order.
It says where to look, a query finds out, and the one door decides as for any other evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

import msgspec

from core.decision import Decision, Outcome
from core.evidence import Evidence, Paid, Refunded, Unclear, kind_of
from core.order import CaseReason, Payment, PaymentStatus


class Finding(StrEnum):
    """What a row, or a payment without one, came to. The first four want nobody; all others are differences.

    agrees: here as there. unknown: of no payment that nodrop knows, so there is nothing to repair. repaired: paid or
    refunded there only, confirmed by a query, and here as well since then. waiting: paid here near midnight, and the
    statement of the day beside it has not been read yet.
    """

    AGREES = "agrees"
    UNKNOWN = "unknown"
    REPAIRED = "repaired"
    WAITING = "waiting"
    PAID_THERE_ONLY = "paid_there_only"
    PAID_HERE_ONLY = "paid_here_only"
    AMOUNT = "amount"
    CURRENCY = "currency"
    TRANSACTION = "transaction"
    DUPLICATE = "duplicate"
    REFUND = "refund"
    STATUS = "status"
    UNCONFIRMED = "unconfirmed"
    MALFORMED = "malformed"

    @property
    def is_difference(self) -> bool:
        return self not in (Finding.AGREES, Finding.UNKNOWN, Finding.REPAIRED, Finding.WAITING)

    @property
    def is_asked_about(self) -> bool:
        """Money moved there and not here: only the channel itself can tell, so it is asked."""
        return self in (Finding.PAID_THERE_ONLY, Finding.REFUND)


CASES: Mapping[Finding, CaseReason] = MappingProxyType(
    {
        Finding.PAID_HERE_ONLY: CaseReason.STATEMENT_PAID_HERE_ONLY,
        Finding.AMOUNT: CaseReason.STATEMENT_AMOUNT,
        Finding.CURRENCY: CaseReason.STATEMENT_CURRENCY,
        Finding.TRANSACTION: CaseReason.STATEMENT_TRANSACTION,
        Finding.DUPLICATE: CaseReason.STATEMENT_DUPLICATE,
        Finding.REFUND: CaseReason.STATEMENT_REFUND,
        Finding.STATUS: CaseReason.STATEMENT_STATUS,
        Finding.UNCONFIRMED: CaseReason.STATEMENT_UNCONFIRMED,
        Finding.MALFORMED: CaseReason.STATEMENT_MALFORMED,
    }
)
"""The question that a difference asks. Of what is paid there only the door has made a case itself."""


class Row(Protocol):
    """What is looked at of a row, whichever channel's statement it stands in; `channels.base.StatementRow` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def channel_transaction_id(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One finding about one row. `detail` is for a person and holds numbers alone; `case` None: none is to be opened.

    `row_no` counts from 1; 0: the statement has no row for it.
    """

    kind: Finding
    row_no: int
    detail: str
    order_no: str | None = None
    out_trade_no: str = ""
    channel_transaction_id: str = ""
    case: CaseReason | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a query made of a row that was asked about. `door_cases`: the door has opened that many cases with it."""

    finding: Finding
    detail: str = ""
    has_case: bool = False
    door_cases: int = 0


def compare(row: Row, payment: Payment, *, repeats: bool, refunded: int) -> tuple[tuple[Finding, str], ...]:
    """Every way in which the row differs from our payment, with its detail; none: it agrees.

    `repeats`: an earlier row of this statement tells of the same money. `refunded` is what the statement has given back
    of this payment so far, this row included.

    A row with a wrong amount of a payment that is unpaid here is both: the payment has to be asked about all the same,
    for the error may be the statement's.
    """
    if row.kind == "refund":
        return _compare_refund(row, payment, repeats=repeats, refunded=refunded)
    other = _other_transaction(row, payment)
    if other is not None:
        return ((Finding.TRANSACTION, other),)
    if repeats:
        return ((Finding.DUPLICATE, f"{row.amount} {row.currency} stands there twice"),)
    found = []
    if payment.status is not PaymentStatus.PAID:
        found.append((Finding.PAID_THERE_ONLY, f"{payment.status} here"))
    if row.currency != payment.currency:
        found.append((Finding.CURRENCY, f"{row.currency} there, {payment.currency} here"))
    elif row.amount != payment.amount:
        found.append((Finding.AMOUNT, f"{row.amount} there, {payment.amount} here"))
    return tuple(found)


def _compare_refund(row: Row, payment: Payment, *, repeats: bool, refunded: int) -> tuple[tuple[Finding, str], ...]:
    """More may have gone back than one day's statement tells, never less."""
    if repeats:
        return ((Finding.DUPLICATE, f"refund of {row.amount} {row.currency} stands there twice"),)
    if row.currency != payment.currency:
        return ((Finding.CURRENCY, f"refund in {row.currency} there, {payment.currency} here"),)
    if refunded > payment.refunded_amount:
        return ((Finding.REFUND, f"{refunded} given back there, {payment.refunded_amount} here"),)
    return ()


def _other_transaction(row: Row, payment: Payment) -> str | None:
    """Money under our number that is not the money which paid here; a statement need not name the transaction."""
    here, there = payment.channel_transaction_id, row.channel_transaction_id
    return f"{there} there, {here} here" if here is not None and there and there != here else None


def judge(finding: Finding, detail: str, evidence: Evidence, decision: Decision, *, refunded: int) -> Judged:
    """What the answer to the query, and what the door did with it, make of a row that was asked about.

    `refunded` is what the statement says was given back so far, 0 for a row of money that came.
    """
    if isinstance(evidence, Unclear):
        return Judged(finding=Finding.UNCONFIRMED, detail=f"{detail}; asked: {evidence.reason}")
    given_back = evidence.refunded_amount if isinstance(evidence, Refunded) else 0
    if given_back < refunded:
        return Judged(finding=Finding.REFUND, detail=f"{refunded} given back there; asked: {given_back}")
    if not isinstance(evidence, Paid | Refunded):
        return Judged(finding=Finding.STATUS, detail=f"paid there; asked: {kind_of(evidence)}")
    opened = () if decision.change is None else decision.change.cases
    if decision.outcome in (Outcome.MISMATCH, Outcome.NUMBER_REUSED):
        # The door has made a case of what does not fit, now or when it saw it first.
        return Judged(finding=finding, detail=f"{detail}; asked: {decision.outcome}", has_case=True)
    if decision.outcome is Outcome.REFUND_SEEN and any(case.reason is CaseReason.REFUNDED_OUTSIDE for case in opened):
        return Judged(finding=Finding.REFUND, detail=detail, has_case=True)
    return Judged(finding=Finding.REPAIRED, detail=detail, door_cases=len(opened))
