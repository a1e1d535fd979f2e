"""Compare the rows of a statement with our payments, batch by batch, and query payments that are paid only there.

One query per payment at a time across all processes, by the lease of its pending row, and all of them under the
account's rate. Waiting for either uses no attempt: a row is never skipped because another process was faster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct

from channels.base import MalformedRow, StatementRow
from core.admission import Urgency
from core.errors import ChannelUnavailable
from core.evidence import Source, Unclear
from core.order import Origin, Payment
from core.reconciliation import CASES, Difference, Finding, Judged, compare, judge
from flows.ask import NoLease, QueryResult, query_now, wait_for_lease
from flows.channel_call import Deferred
from flows.reconcile.statement import Numbered
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.reconciliation.differences import (
    EarlierRows,
    RecordedRow,
    find_payments,
    find_payments_by_channel_id,
    record_rows,
)

CONCURRENCY = 8
"""Queries under way at once. The account's rate is the limit; this one protects a slow channel."""

ATTEMPTS_MAX = 3
"""Queries of one payment, with pauses of 1 and 4 seconds between them. After the last one a difference is kept."""

SILENCE_S_MAX = 300.0
"""A channel without a clear result for so long is down: the run stops, and continues later."""

WAIT_S_MAX = 5.0
LOOK_AGAIN_S = 0.1

OnUnknown = Callable[[StatementRow], None]


class Compared(Struct, frozen=True, kw_only=True):
    """Result of a batch: rows by finding, the differences, and the number of cases that the door has opened."""

    counts: Counter[str]
    differences: list[Difference]
    door_cases: int


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
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._silent_since: float | None = None

    async def unknown(self, batch: Sequence[Numbered]) -> list[StatementRow]:
        """Rows of payments that nodrop does not know."""
        payments = await self._payments_of(batch)
        rows = [numbered for numbered in batch if numbered.row_no not in payments]
        return [row for _, row in rows if isinstance(row, StatementRow)]

    async def compare(self, batch: Sequence[Numbered], on_unknown: OnUnknown) -> Compared:
        """Compare every row of the batch. A second comparison gives the same, except for payments repaired by then.

        Raises:
            ChannelUnavailable: the channel gives no results any more.
            StorageError: the batch must be compared again.
        """
        counts: Counter[str] = Counter()
        differences = []
        payments = await self._payments_of(batch)
        for row_no, row in batch:
            if isinstance(row, MalformedRow):
                differences.append(Difference(kind=Finding.MALFORMED, row_no=row_no, detail=row.reason))
            elif row_no not in payments:
                counts[Finding.UNKNOWN] += 1
                on_unknown(row)
        known = await self._see(batch, payments)
        results = await _all([self._compare_payment(payments[rows[0].row_no], rows) for rows in known])
        differences += [difference for result in results for difference in result.differences]
        for result in results:
            counts.update(result.counts)
        counts.update(difference.kind for difference in differences)
        return Compared(
            counts=counts,
            differences=sorted(differences, key=lambda difference: difference.row_no),
            door_cases=sum(result.door_cases for result in results),
        )

    # -- looking up ----------------------------------------------------------------------------------------------------

    async def _payments_of(self, batch: Sequence[Numbered]) -> dict[int, Payment]:
        """Payments by row number. A row without our number is found by the channel's."""
        name = self._account.config.name
        rows = {row_no: row for row_no, row in batch if isinstance(row, StatementRow)}
        numbers = [row.out_trade_no for row in rows.values() if row.out_trade_no]
        ids = [row.channel_transaction_id for row in rows.values() if not row.out_trade_no]
        by_number = await find_payments(self._resources.db, name, numbers) if numbers else {}
        by_id = await find_payments_by_channel_id(self._resources.db, name, filter(None, ids)) if any(ids) else {}
        found = {
            row_no: by_number.get(row.out_trade_no) if row.out_trade_no else by_id.get(row.channel_transaction_id)
            for row_no, row in rows.items()
        }
        return {row_no: payment for row_no, payment in found.items() if payment is not None}

    async def _see(self, batch: Sequence[Numbered], payments: dict[int, Payment]) -> list[list[_Known]]:
        """The rows of known payments, payment by payment, each with the earlier rows of the same payment."""
        rows = {row_no: row for row_no, row in batch if isinstance(row, StatementRow) and row_no in payments}
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

    # -- one payment ---------------------------------------------------------------------------------------------------

    async def _compare_payment(self, payment: Payment, rows: Sequence[_Known]) -> Compared:
        """One row after the other: a payment that the first row repairs agrees with the next one."""
        counts: Counter[str] = Counter()
        differences: list[Difference] = []
        door_cases = 0
        for each in rows:
            findings = compare(each.row, payment, repeats=each.before.repeats, refunded=each.before.refunded)
            if not findings:
                counts[Finding.AGREES] += 1
            for finding, detail in findings:
                judged = Judged(finding=finding, detail=detail)
                if finding.is_queried and not self._dry_run:
                    judged, payment = await self._query_payment(payment, finding, detail, each)
                if judged.finding.is_difference:
                    differences.append(_difference(each, payment, judged))
                else:
                    counts[judged.finding] += 1
                door_cases += judged.door_cases
        return Compared(counts=counts, differences=differences, door_cases=door_cases)

    async def _query_payment(
        self, payment: Payment, finding: Finding, detail: str, known: _Known
    ) -> tuple[Judged, Payment]:
        """Query the channel and commit the result. Returns the judgement and the payment as it is then."""
        if self._cannot_be_queried(payment):
            return Judged(finding=Finding.UNCONFIRMED, detail=f"{detail}; no channel_reference to ask by"), payment
        async with self._slots:
            result = await self._query_until_clear(payment, known.row.refund_no)
        change = result.decision.change
        moved = () if change is None else change.payments
        after = next((each for each in moved if each.key == payment.key), payment)
        refunded = known.before.refunded
        return judge(finding, detail, result.evidence, result.decision, after, refunded=refunded), after

    def _cannot_be_queried(self, payment: Payment) -> bool:
        by_reference = self._account.channel.queries_by_reference and payment.channel_reference is None
        return by_reference and payment.origin is Origin.WATCHED

    async def _query_until_clear(self, payment: Payment, refund_no: str) -> QueryResult:
        """The result of a query that is clear, or of the third one.

        Raises:
            ChannelUnavailable: no clear result in this run for `SILENCE_S_MAX`.
        """
        loop = asyncio.get_running_loop()
        attempt = 1
        while True:
            result = await self._query_once(payment, refund_no)
            if isinstance(result, QueryResult) and not isinstance(result.evidence, Unclear):
                self._silent_since = None
                return result
            if isinstance(result, QueryResult):
                if attempt == ATTEMPTS_MAX:
                    return result
                pause_s, attempt = float(attempt**2), attempt + 1
            else:
                pause_s = min(max(result.seconds, LOOK_AGAIN_S), WAIT_S_MAX)
            self._silent_since = self._silent_since or loop.time()
            if loop.time() - self._silent_since > SILENCE_S_MAX:
                raise ChannelUnavailable(
                    f"account {self._account.config.name} gives no clear result: run it again later"
                )
            await asyncio.sleep(pause_s)

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
