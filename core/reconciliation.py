"""Compare a channel's statement with our payments: the findings of a row, and the judgement after a query. All pure.

A statement is no evidence: nobody signed a single row of it, and it tells of yesterday. So a row never pays an order.
It says where to look, a query finds out, and the one door decides as for any other evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

import msgspec

from core.decision import Decision, Outcome
from core.evidence import Evidence, Paid, Refunded, Unclear, kind_term
from core.order import OWN_NUMBER, CaseReason, Payment, PaymentStatus
from core.sentences import Amount, Items, Phrase, Sentence, Term, phrase_of


class Finding(StrEnum):
    """Finding about a row, or about a payment without one. The first five need nobody; all others are differences.

    agrees: here as there. unknown: of no payment that nodrop knows, so there is nothing to repair. candidates: unknown,
    and unpaid orders have its amount and day. unclaimed: unknown, at an account where nobody else sells. repaired: paid
    or refunded there only, confirmed by a query, and here as well since then. waiting: paid or refunded here, and the
    statement of a day beside it has not been read yet. total: the statement states another count or sum of its rows.
    """

    AGREES = "agrees"
    UNKNOWN = "unknown"
    CANDIDATES = "candidates"
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
    UNCLAIMED = "unclaimed"
    REFUND_HERE_ONLY = "refund_here_only"
    TOTAL = "total"

    @property
    def is_difference(self) -> bool:
        return is_difference(self)

    @property
    def is_listed(self) -> bool:
        """Whether a run keeps the row itself; others are only counted."""
        return self.is_difference or self is Finding.CANDIDATES

    @property
    def is_queried(self) -> bool:
        """Whether money moved only there: then the channel is queried, for only it can confirm that."""
        return self in (Finding.PAID_THERE_ONLY, Finding.REFUND)


def is_difference(kind: str) -> bool:
    """Whether a finding of this kind needs a person; one that only another release knows does."""
    return kind not in _NO_DIFFERENCES


_NO_DIFFERENCES = frozenset({Finding.AGREES, Finding.UNKNOWN, Finding.CANDIDATES, Finding.REPAIRED, Finding.WAITING})

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
        Finding.UNCLAIMED: CaseReason.STATEMENT_UNCLAIMED,
        Finding.REFUND_HERE_ONLY: CaseReason.STATEMENT_REFUND_HERE_ONLY,
        Finding.TOTAL: CaseReason.STATEMENT_TOTAL,
    }
)
"""The case that a difference opens. For a payment that is paid only there the door opens its own."""


class Row(Protocol):
    """The fields of a row that are compared, of any channel's statement; `channels.base.StatementRow` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def channel_transaction_id(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def all_ids(self) -> tuple[str, ...]: ...


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
    """Judgement about a row after a query. `door_cases`: the number of cases that the door has opened with it."""

    finding: Finding
    detail: str = ""
    has_case: bool = False
    door_cases: int = 0


def compare(row: Row, payment: Payment, *, repeats: bool, refunded: int) -> tuple[tuple[Finding, str], ...]:
    """Every difference between the row and our payment, with its detail; none: it agrees.

    `repeats`: an earlier row of this statement is about the same money. `refunded` is what the statement has given back
    of this payment so far, this row included.

    A row with a wrong amount of a payment that is unpaid here is both: the payment is queried all the same, for the
    error may be the statement's.
    """
    if row.kind == "refund":
        return _compare_refund(row, payment, repeats=repeats, refunded=refunded)
    other = _other_transaction(row, payment)
    if other is not None:
        return ((Finding.TRANSACTION, other),)
    if repeats:
        return ((Finding.DUPLICATE, Sentence("{amount} {currency} stands there twice", **_money(row))),)
    found = []
    if payment.status is not PaymentStatus.PAID:
        found.append(
            (Finding.PAID_THERE_ONLY, Sentence("{status} here", status=Term("order.payment_", payment.status)))
        )
    if row.currency != payment.currency:
        found.append(
            (Finding.CURRENCY, Sentence("{there} there, {here} here", there=row.currency, here=payment.currency))
        )
    elif row.amount != payment.amount:
        there, here = Amount(row.amount, row.currency), Amount(payment.amount, payment.currency)
        found.append((Finding.AMOUNT, Sentence("{there} there, {here} here", there=there, here=here)))
    return tuple(found)


def _compare_refund(row: Row, payment: Payment, *, repeats: bool, refunded: int) -> tuple[tuple[Finding, str], ...]:
    """One day's statement may show less refunded than is known here, never more."""
    if repeats:
        return ((Finding.DUPLICATE, Sentence("refund of {amount} {currency} stands there twice", **_money(row))),)
    if row.currency != payment.currency:
        sentence = Sentence("refund in {there} there, {here} here", there=row.currency, here=payment.currency)
        return ((Finding.CURRENCY, sentence),)
    if payment.refunded_amount is None or refunded > payment.refunded_amount:
        there, here = Amount(refunded, row.currency), _sum(payment.refunded_amount, payment.currency)
        return ((Finding.REFUND, Sentence("{there} given back there, {here} here", there=there, here=here)),)
    return ()


def _other_transaction(row: Row, payment: Payment) -> str | None:
    """Detail if the row is about other money than the money that paid here; a row may lack the transaction."""
    here, there = payment.channel_transaction_id, row.channel_transaction_id
    is_other = here is not None and there and here not in row.all_ids
    return Sentence("{there} there, {here} here", there=there, here=here or "") if is_other else None


def judge_malformed(ids: Sequence[str], *, is_known: bool, exclusive: bool) -> Finding:
    """The finding about a row that cannot be read and has these ids: one that names another system's payment alone is
    no more of ours than if it could be read.
    """
    may_be_ours = is_known or exclusive or not ids or any(OWN_NUMBER.fullmatch(id_) for id_ in ids)
    return Finding.MALFORMED if may_be_ours else Finding.UNKNOWN


def judge_unknown(row: Row, orders: Sequence[str], *, exclusive: bool) -> tuple[Finding, str]:
    """The finding about a row of a payment that is not known here. `orders` are not paid and agree in amount and day.

    On an `exclusive` account nobody else sells, so the money is somebody's order; a refund moves none towards us.
    """
    detail = Sentence("{amount} {currency} there, no payment here", **_money(row))
    if orders:
        what = "{amount} {currency} there, no payment here; unpaid orders with this amount: {orders}"
        detail = Sentence(what, orders=Items(tuple(orders)), **_money(row))
    if row.kind == "refund" or not (orders or exclusive):
        return Finding.UNKNOWN, detail
    return Finding.UNCLAIMED if exclusive else Finding.CANDIDATES, detail


def judge(
    finding: Finding, detail: str, evidence: Evidence, decision: Decision, payment: Payment, *, refunded: int
) -> Judged:
    """The judgement about a row from the query's evidence and the decision that was committed with it.

    `payment` is the payment after that, `refunded` the amount refunded so far according to the statement, 0 for a row
    of a payment.
    """
    if isinstance(evidence, Unclear):
        return Judged(finding=Finding.UNCONFIRMED, detail=_asked(detail, evidence.reason))
    given_back = payment.refunded_amount if isinstance(evidence, Refunded) else 0
    if refunded and (given_back is None or given_back < refunded):
        there, known = Amount(refunded, payment.currency), _sum(given_back, payment.currency)
        sentence = Sentence("{there} given back there; query: {known}", there=there, known=known)
        return Judged(finding=Finding.REFUND, detail=sentence)
    if not isinstance(evidence, Paid | Refunded):
        return Judged(finding=Finding.STATUS, detail=_asked("paid there", kind_term(evidence)))
    opened = () if decision.change is None else decision.change.cases
    if decision.outcome in (Outcome.MISMATCH, Outcome.NUMBER_REUSED):
        # The door has opened a case for the mismatch, now or earlier.
        return Judged(finding=finding, detail=_asked(detail, Term("outcome.", decision.outcome)), has_case=True)
    if decision.outcome is Outcome.REFUND_SEEN and any(case.reason is CaseReason.REFUNDED_OUTSIDE for case in opened):
        return Judged(finding=Finding.REFUND, detail=detail, has_case=True)
    return Judged(finding=Finding.REPAIRED, detail=detail, door_cases=len(opened))


def refunds_made_outside(rows: Mapping[int, tuple[str, int]], own: Collection[str], *, taken: int) -> frozenset[int]:
    """Numbers of the rows whose refunds nodrop did not make. `rows` are refunds of one payment, each with its refund
    number and amount by the row's number; `own` are the numbers of nodrop's refunds of it.

    `taken` is what disputes have taken of the payment: some channels show that as a refund, too.
    """
    outside = set[int]()
    for row_no, (number, amount) in rows.items():
        if number in own:
            continue
        if amount <= taken:
            taken -= amount
        else:
            outside.add(row_no)
    return frozenset(outside)


def _money(row: Row) -> dict[str, str | Amount]:
    return {"amount": Amount(row.amount, row.currency), "currency": row.currency}


def _sum(amount: int | None, currency: str) -> Amount | Phrase:
    return Phrase("an unknown sum") if amount is None else Amount(amount, currency)


def _asked(detail: str, answer: str | Term) -> Sentence:
    return Sentence("{detail}; query: {answer}", detail=phrase_of(detail), answer=answer)
