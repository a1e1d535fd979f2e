"""Compare the rows of a statement with our payments, batch by batch, and query payments that are paid only there.

One query per payment at a time across all processes, by the lease of its pending row, and all of them under the
account's rate. Waiting for either uses no attempt: a row is never skipped because another process was faster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from channels.base import MalformedRow, StatementRow
from core.admission import Urgency
from core.dispute import taken_amount
from core.evidence import Source, Unclear
from core.order import Origin, Payment, PaymentStatus
from core.reconciliation import (
    CASES,
    Difference,
    Finding,
    Judged,
    compare,
    judge,
    judge_malformed,
    refunds_made_outside,
)
from core.sentences import Sentence
from flows.ask import NoLease, QueryResult, query_now, wait_for_lease
from flows.channel_call import Deferred
from flows.reconcile.lookup import RowLookup
from flows.reconcile.patience import LOOK_AGAIN_S, Patience
from flows.reconcile.statement import Numbered
from flows.reconcile.unknown import judge_unknown_rows
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.orders import find_state
from storage.postgres.reconciliation.differences import (
    EarlierRows,
    RecordedRow,
    record_rows,
)
from storage.postgres.refunds import find_by_channel_numbers

OnUnknown = Callable[[StatementRow], None]


class Compared(Struct, frozen=True, kw_only=True):
    """Result of a batch: rows by finding, the differences, and the number of cases that the door has opened."""

    counts: Counter[str]
    differences: list[Difference]
    door_cases: int
    known: frozenset[int] = frozenset()
    """Numbers of the rows whose payments are known here."""
    outside: frozenset[int] = frozenset()
    """Of these, refunds that nodrop did not make."""


class _Known(Struct, frozen=True, kw_only=True):
    """A row of a payment that is known here."""

    row_no: int
    row: StatementRow
    before: EarlierRows


class RowComparer:
    """Compares the rows of one run. `dry_run`: no channel is queried, so nothing changes."""

    def __init__(self, resources: Resources, account: Account, run_id: int, *, dry_run: bool) -> None:
        self._resources = resources
        self._account = account
        self._run_id = run_id
        self._dry_run = dry_run
        self._patience = Patience(account.config.name)
        self._lookup = RowLookup(resources, account, self._patience, asks=not dry_run)

    async def unknown(self, batch: Sequence[Numbered]) -> list[StatementRow]:
        """Rows of payments that nodrop does not know."""
        rows = _readable(batch)
        found = await self._lookup.find(rows)
        return list(found.unknown(rows).values())

    async def compare(self, batch: Sequence[Numbered], on_unknown: OnUnknown) -> Compared:
        """Compare every row of the batch. A second comparison gives the same, except for payments repaired by then.

        Raises:
            ChannelUnavailable: the channel gives no results any more.
            StorageError: the batch must be compared again.
        """
        rows = _readable(batch)
        found = await self._lookup.find(rows)
        unknown = found.unknown(rows)
        for row in unknown.values():
            on_unknown(row)
        known = await self._see(await self._with_own_numbers(rows, found.payments), found.payments)
        results = await _all([self._compare_payment(found.payments[of_one[0].row_no], of_one) for of_one in known])
        results.append(await self._compare_malformed(batch))
        # Orders that became paid by the rows above are no candidates any more.
        findings = await judge_unknown_rows(self._resources, self._account, unknown, found.unresolved)
        findings += [difference for result in results for difference in result.differences]
        counts = Counter[str]({Finding.UNKNOWN: len(found.elsewhere)})
        for result in results:
            counts.update(result.counts)
        counts.update(each.kind for each in findings)
        return Compared(
            counts=counts,
            differences=sorted(filter(lambda each: each.kind.is_listed, findings), key=lambda each: each.row_no),
            door_cases=sum(result.door_cases for result in results),
            known=frozenset(found.payments),
            outside=frozenset().union(*(result.outside for result in results)),
        )

    # -- looking up ----------------------------------------------------------------------------------------------------

    async def _with_own_numbers(
        self, rows: dict[int, StatementRow], payments: dict[int, Payment]
    ) -> dict[int, StatementRow]:
        """The rows; a refund that has the channel's number alone gets ours, if it is of a refund of ours."""
        nameless = {
            row_no: row
            for row_no, row in rows.items()
            if row_no in payments and row.kind == "refund" and row.channel_refund_no and not row.refund_no
        }
        numbers = (row.channel_refund_no for row in nameless.values())
        own = await find_by_channel_numbers(self._resources.db, self._account.config.name, numbers)
        named = {
            row_no: replace(row, refund_no=own.get((payments[row_no].key, row.channel_refund_no), ""))
            for row_no, row in nameless.items()
        }
        return rows | named

    async def _see(self, batch: dict[int, StatementRow], payments: dict[int, Payment]) -> list[list[_Known]]:
        """The rows of known payments, payment by payment, each with the earlier rows of the same payment."""
        rows = {row_no: row for row_no, row in batch.items() if row_no in payments}
        seen = [
            RecordedRow(
                row_no=row_no,
                is_refund=row.kind == "refund",
                out_trade_no=payments[row_no].out_trade_no,
                refund_no=row.refund_no,
                amount=row.amount,
            )
            for row_no, row in rows.items()
        ]
        before = await record_rows(self._resources.db, self._run_id, seen)
        known: dict[str, list[_Known]] = {}
        for row_no, row in rows.items():
            of_payment = known.setdefault(payments[row_no].out_trade_no, [])
            of_payment.append(_Known(row_no=row_no, row=row, before=before[row_no]))
        return list(known.values())

    async def _compare_malformed(self, batch: Sequence[Numbered]) -> Compared:
        """The rows that cannot be read. Payments that they name and that are unpaid here are queried."""
        rows = {row_no: row for row_no, row in batch if isinstance(row, MalformedRow)}
        named = await self._lookup.find_named({row_no: row.ids for row_no, row in rows.items()})
        payments = {payment.key: payment for payment in named.values()}
        queried = await _all([self._query_unread(payment) for payment in payments.values()])
        return Compared(
            counts=sum((each.counts for each in queried), Counter[str]()),
            differences=[self._malformed(row_no, row, named.get(row_no)) for row_no, row in rows.items()],
            door_cases=sum(each.door_cases for each in queried),
        )

    # -- one payment ---------------------------------------------------------------------------------------------------

    async def _compare_payment(self, payment: Payment, rows: Sequence[_Known]) -> Compared:
        """One row after the other: a payment that the first row repairs agrees with the next one."""
        counts: Counter[str] = Counter()
        differences: list[Difference] = []
        door_cases = 0
        taken, outside = await self._taken_and_outside(payment, rows)
        for each in rows:
            refunded = max(0, each.before.refunded - taken)
            findings = compare(each.row, payment, repeats=each.before.repeats, refunded=refunded)
            if not findings:
                counts[Finding.AGREES] += 1
            for finding, detail in findings:
                judged = Judged(finding=finding, detail=detail)
                if finding.is_queried and not self._dry_run:
                    judged, payment = await self._query_payment(payment, finding, detail, each, refunded)
                if judged.finding.is_difference:
                    differences.append(_difference(each, payment, judged))
                else:
                    counts[judged.finding] += 1
                door_cases += judged.door_cases
        return Compared(counts=counts, differences=differences, door_cases=door_cases, outside=outside)

    async def _taken_and_outside(self, payment: Payment, rows: Sequence[_Known]) -> tuple[int, frozenset[int]]:
        """Money that a statement shows as given back and a dispute has taken, as PayPal's reversals; and the rows of
        refunds that nodrop did not make.
        """
        refunds = {each.row_no: (each.row.refund_no, each.row.amount) for each in rows if each.row.kind == "refund"}
        state = await find_state(self._resources.db, payment.order_no) if refunds else None
        if state is None:
            return 0, frozenset()
        taken = taken_amount(state.disputes, payment.key)
        own = {refund.refund_no for refund in state.refunds if refund.key == payment.key}
        return taken, refunds_made_outside(refunds, own, taken=taken)

    async def _query_payment(
        self, payment: Payment, finding: Finding, detail: str, known: _Known, refunded: int
    ) -> tuple[Judged, Payment]:
        """Query the channel and commit the result. Returns the judgement and the payment as it is then."""
        if self._cannot_be_queried(payment):
            sentence = Sentence("{detail}; no channel_reference to ask by", detail=detail)
            return Judged(finding=Finding.UNCONFIRMED, detail=sentence), payment
        result = await self._query_until_clear(payment, known.row.refund_no)
        change = result.decision.change
        moved = () if change is None else change.payments
        after = next((each for each in moved if each.key == payment.key), payment)
        return judge(finding, detail, result.evidence, result.decision, after, refunded=refunded), after

    async def _query_unread(self, payment: Payment) -> Compared:
        """Query an unpaid payment that a row names which cannot be read: it may be the row of its money."""
        counts, door_cases = Counter[str](), 0
        if payment.status is not PaymentStatus.PAID and not self._dry_run and not self._cannot_be_queried(payment):
            result = await self._query_until_clear(payment, "")
            counts[Finding.REPAIRED] += result.payment.status is PaymentStatus.PAID
            door_cases = 0 if result.decision.change is None else len(result.decision.change.cases)
        return Compared(counts=counts, differences=[], door_cases=door_cases)

    def _malformed(self, row_no: int, row: MalformedRow, payment: Payment | None) -> Difference:
        exclusive = self._account.config.exclusive
        return Difference(
            kind=judge_malformed(row.ids, is_known=payment is not None, exclusive=exclusive),
            row_no=row_no,
            order_no=None if payment is None else payment.order_no,
            out_trade_no="" if payment is None else payment.out_trade_no,
            detail=row.reason,
        )

    async def _query_until_clear(self, payment: Payment, refund_no: str) -> QueryResult:
        return await self._patience.until_clear(
            partial(self._query_once, payment, refund_no), lambda result: not isinstance(result.evidence, Unclear)
        )

    def _cannot_be_queried(self, payment: Payment) -> bool:
        by_reference = self._account.channel.queries_by_reference and payment.channel_reference is None
        return by_reference and payment.origin is Origin.WATCHED

    async def _query_once(self, payment: Payment, refund_no: str) -> QueryResult | Deferred:
        """One query. A refund that the row names is queried too, where the channel tells no total."""
        key = payment.key._asdict()
        leased = await wait_for_lease(self._resources, payment.key, self._resources.settings.callback_confirm_s)
        if leased is NoLease.BUSY:
            return Deferred(seconds=LOOK_AGAIN_S, reason="asked_by_another")
        return await query_now(
            self._resources,
            self._account,
            payment,
            by=Source.RECONCILIATION,
            urgency=Urgency.REFRESH,  # it may wait: the kept shares are for others
            leased=None if isinstance(leased, NoLease) else leased,
            notice=Unclear(**key, reason="statement", refund_no=refund_no) if refund_no else None,
        )


def _readable(batch: Sequence[Numbered]) -> dict[int, StatementRow]:
    return {row_no: row for row_no, row in batch if isinstance(row, StatementRow)}


def _difference(known: _Known, payment: Payment, judged: Judged) -> Difference:
    return Difference(
        kind=judged.finding,
        row_no=known.row_no,
        order_no=payment.order_no,
        out_trade_no=payment.out_trade_no,
        channel_transaction_id=known.row.channel_transaction_id,
        detail=judged.detail,
        case=None if judged.has_case else CASES.get(judged.finding),
    )


async def _all(work: Sequence[Coroutine[Any, Any, Compared]]) -> list[Compared]:
    """Run all at once; if one fails, the others end with it and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # they give back their leases
