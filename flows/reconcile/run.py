"""One reconciliation: a channel's statement against our payments, in both directions.

A payment that is paid only there is confirmed by a query and goes through the one door, which repairs the order and
notifies the merchant. Every other difference is a case. A statement is no evidence: it says which payments to query.

A run is leased, so that one process works on it; after a crash it continues where it stopped, over the same statement;
a second run over the same day finds the same and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import date
from hashlib import file_digest
from pathlib import Path

import structlog
from msgspec import Struct
from msgspec.structs import replace

from channels.base import StatedTotal, StatementRow
from core.closing import Sums, with_row
from core.errors import DatabaseUnavailable
from core.reconciliation import CASES, Difference, Finding
from core.sentences import Items, Phrase, Sentence, encode_phrase
from flows.closings import take_day
from flows.reconcile.lease import holding, name_of
from flows.reconcile.rows import OnUnknown, RowComparer
from flows.reconcile.statement import Statement, batches, check_statement, fetched
from flows.reconcile.unlisted import (
    Span,
    find_refund_days,
    find_refunds_without_row,
    find_span,
    find_unlisted,
    unlisted_payment,
    unlisted_refund,
)
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.reconciliation.differences import (
    DIFFERENCES_MAX,
    add_differences,
    delete_rows,
    open_cases,
    resolve_settled_cases,
)
from storage.postgres.reconciliation.runs import (
    Reconciliation,
    begin,
    claim_day,
    claim_file,
    fail,
    finish,
    save,
)

ROWS = "rows"
DOOR_CASES = "door_cases"
"""Counted beside the findings: all rows, and the cases that the door opened with repaired payments."""

log = structlog.get_logger()


def _ignore(*_: object) -> None:
    """The default of a hook."""


class Hooks(Struct, frozen=True, kw_only=True):
    """Functions called during a run: `on_progress(done, rows)`, and `on_unknown(row)` for an unknown payment."""

    on_progress: Callable[[int, int], None] = _ignore
    on_unknown: OnUnknown | None = None


NO_HOOKS = Hooks()


async def reconcile_day(
    resources: Resources,
    account: Account,
    day: date,
    *,
    dry_run: bool = False,
    only_due: bool = False,
    hooks: Hooks = NO_HOOKS,
    statement: Path | None = None,
) -> Reconciliation | None:
    """Reconcile one day of the channel's calendar with its statement. None: another process works on it.

    `only_due`: also None while a failed run is not due again. `statement` is a file of the whole day; None: fetched.

    Raises:
        ChannelError: the statement could not be fetched or read, or the channel answers no query. The run is kept, and
            the next one continues where it stopped.
        StorageError: as above.
    """
    name, lease_s = account.config.name, resources.settings.lease_s
    run = await claim_day(resources.db, name, day, dry_run=dry_run, lease_s=lease_s, only_due=only_due)
    if run is None:
        return None
    source = fetched(resources, account, day) if statement is None else nullcontext(statement)
    async with holding(resources, run), source as path:
        ended = await _Run(resources, account, run, hooks).execute(await check_statement(account, path))
    if not dry_run:
        with suppress(DatabaseUnavailable):  # the worker takes it within an hour
            await take_day(resources, account, day)
    return ended


async def reconcile_file(
    resources: Resources, account: Account, path: Path, *, dry_run: bool = False, hooks: Hooks = NO_HOOKS
) -> Reconciliation | None:
    """Reconcile with a statement that was downloaded by hand. Returns and raises as `reconcile_day`."""
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").digest()
    name, lease_s = account.config.name, resources.settings.lease_s
    run = await claim_file(resources.db, name, sha256, dry_run=dry_run, lease_s=lease_s)
    if run is None:
        return None
    async with holding(resources, run):
        return await _Run(resources, account, run, hooks).execute(await check_statement(account, path))


def needs_person(counts: dict[str, int]) -> bool:
    """Whether a run has left a difference that a person must decide about."""
    return any(counts.get(kind, 0) for kind in (*filter(lambda kind: kind.is_difference, Finding), DOOR_CASES))


class _Run:
    """One run, from its first row or from where it stopped, to its end."""

    def __init__(self, resources: Resources, account: Account, run: Reconciliation, hooks: Hooks) -> None:
        self._resources = resources
        self._account = account
        self._run = run
        self._hooks = hooks
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, Sums] = {}

    async def execute(self, statement: Statement) -> Reconciliation:
        run = self._run = await begin(self._resources.db, self._run, statement.sha256, statement.rows)
        self._counts.update(run.counts)
        self._sums = dict(run.sums)
        await self._compare_rows(statement)
        await self._open_malformed_case()
        if statement.totals:
            return await self._fail_incomplete(statement)
        span = await self._compare_unlisted(statement)
        await self._compare_unlisted_refunds(statement)
        if not run.dry_run:
            await resolve_settled_cases(self._resources.db, run.id, run.account, name_of(run))
        finished = await finish(self._resources.db, run, self._counts)
        await delete_rows(self._resources.db, run.id, run.account, None if span is None or run.dry_run else span.inner)
        log.info(
            "reconciliation_finished",
            account=run.account,
            of=name_of(run),
            count=self._counts[ROWS],
            rescued=self._counts[Finding.REPAIRED],
            left=sum(self._counts[kind] for kind in Finding if kind.is_difference),
        )
        return finished

    # -- statement → payments ------------------------------------------------------------------------------------------

    async def _compare_rows(self, statement: Statement) -> None:
        comparer = RowComparer(self._resources, self._account, self._run.id, dry_run=self._run.dry_run)
        on_unknown = self._hooks.on_unknown
        self._hooks.on_progress(0, statement.rows)
        async for batch in batches(self._account, statement.path):
            left = [numbered for numbered in batch if numbered.row_no >= self._run.next_row]
            if on_unknown is not None and len(left) < len(batch):  # rows before a crash have not been reported
                for row in await comparer.unknown(batch[: len(batch) - len(left)]):
                    on_unknown(row)
            if left:
                compared = await comparer.compare(left, on_unknown or _ignore)
                await self._add_differences(compared.differences)
                self._counts.update(compared.counts)
                self._counts.update({ROWS: len(left), DOOR_CASES: compared.door_cases})
                for numbered in left:
                    if isinstance(numbered.row, StatementRow):
                        self._sums = with_row(
                            self._sums,
                            numbered.row,
                            is_known=numbered.row_no in compared.known,
                            is_outside=numbered.row_no in compared.outside,
                        )
                await save(self._resources.db, self._run, left[-1].row_no + 1, self._counts, self._sums)
            self._hooks.on_progress(batch[-1].row_no, statement.rows)

    async def _add_differences(self, differences: list[Difference]) -> None:
        """Keep them with the run, and open cases unless it is a dry run. Beyond a limit they are only counted."""
        await add_differences(self._resources.db, self._run.id, differences)
        room = DIFFERENCES_MAX - sum(self._counts[kind] for kind in Finding if kind.is_difference)
        if not self._run.dry_run:
            await open_cases(self._resources.db, self._run.account, differences[: max(0, room)])
        if len(differences) > max(0, room):
            log.error(
                "reconciliation_not_listed", account=self._run.account, of=name_of(self._run), count=len(differences)
            )

    async def _open_malformed_case(self) -> None:
        """One case for all rows that cannot be read: not even their payments are known."""
        count = self._counts[Finding.MALFORMED]
        if count and not self._run.dry_run:
            what = "{count} rows of the statement of {of} cannot be read"
            detail = Sentence(what, count=count, of=name_of(self._run))
            difference = Difference(kind=Finding.MALFORMED, row_no=0, detail=detail, case=CASES[Finding.MALFORMED])
            await open_cases(self._resources.db, self._run.account, [difference])

    async def _fail_incomplete(self, statement: Statement) -> Reconciliation:
        """End a run over a statement that counts rows which it does not contain, or which cannot be read.

        What it lacks cannot be told from what is not there, so payments here are not looked for in it.
        """
        run, totals = self._run, statement.totals
        stated = Items(tuple(_stated(each) for each in totals))
        detail = Sentence("{of}: {stated}", of=name_of(run), stated=stated)
        difference = Difference(kind=Finding.TOTAL, row_no=0, detail=detail, case=CASES[Finding.TOTAL])
        self._counts[Finding.TOTAL] = 0
        await self._add_differences([difference])
        self._counts[Finding.TOTAL] = len(totals)
        await save(self._resources.db, run, statement.rows + 1, self._counts)
        reason = Sentence("the statement states other totals than its rows have ({stated})", stated=stated)
        await fail(self._resources.db, run, reason, self._resources.rules.backoff.gap_s(run.attempt))
        log.error("statement_incomplete", account=run.account, of=name_of(run), reason=str(stated))
        error = {"last_error": str(reason), "error_phrase": encode_phrase(reason)}
        return replace(run, status="failed", counts=dict(self._counts), next_row=statement.rows + 1, **error)

    # -- payments → statement ------------------------------------------------------------------------------------------

    async def _compare_unlisted(self, statement: Statement) -> Span | None:
        """Payments that are paid here and stand in no row, within the time that can be judged."""
        span = await find_span(self._resources, self._account, self._run, statement)
        if span is not None:
            async for payments in find_unlisted(self._resources, self._account, span, (span.since, span.until)):
                await self._add_differences([unlisted_payment(each) for each in payments])
                self._counts[Finding.PAID_HERE_ONLY] += len(payments)
            for edge in span.edges:
                async for payments in find_unlisted(self._resources, self._account, span, edge):
                    self._counts[Finding.WAITING] += len(payments)
        return span

    async def _compare_unlisted_refunds(self, statement: Statement) -> None:
        """Refunds that succeeded here and stand in no row, one day either side."""
        for day in await find_refund_days(self._resources, self._account, self._run, statement):
            refunds = await find_refunds_without_row(self._resources, self._account, day)
            if day.is_over:
                await self._add_differences([unlisted_refund(each) for each in refunds])
            self._counts[Finding.REFUND_HERE_ONLY if day.is_over else Finding.WAITING] += len(refunds)


def _stated(total: StatedTotal) -> Phrase:
    """Return `rows: 2 stated, 1 read`."""
    values = {"name": total.name, "stated": str(total.stated), "read": str(total.read)}
    return Phrase("{name}: {stated} stated, {read} read", values)
