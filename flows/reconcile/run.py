"""The net below all nets: a channel's statement against our payments, both ways.

What is paid there only is confirmed by a query and goes through the one door, so the order is repaired and the merchant
told. Every other difference is a case. Nothing here believes a statement: it only says where to look.

A run is leased, so two at once are one; it is carried on after a crash where it was left, over the same statement; and
a second run over the same day finds the same and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import date
from hashlib import file_digest
from pathlib import Path

import structlog
from msgspec import Struct

from channels.base import StatementRow
from core.errors import DatabaseUnavailable, NodropError
from core.reconciliation import CASES, Difference, Finding
from flows.reconcile.rows import OnUnknown, RowComparer
from flows.reconcile.statement import Statement, batches, fetched, look_over
from flows.reconcile.unlisted import Span, find_span, unseen
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.reconciliation.differences import (
    DIFFERENCES_MAX,
    PaidHere,
    add_differences,
    answer_cases,
    forget,
    open_cases,
)
from storage.postgres.reconciliation.runs import (
    Reconciliation,
    begin,
    claim_day,
    claim_file,
    fail,
    finish,
    release,
    renew,
    save,
)

ROWS = "rows"
DOOR_CASES = "door_cases"
"""Counted beside the findings: all rows, and the cases that the door opened with what was repaired."""

log = structlog.get_logger()


def _nothing(*_: object) -> None:
    """Nobody watches."""


class Watching(Struct, frozen=True, kw_only=True):
    """Who is told what while a run goes on: how many rows of how many are done; each row of an unknown payment."""

    on_progress: Callable[[int, int], None] = _nothing
    on_unknown: OnUnknown | None = None


NOBODY_WATCHES = Watching()


async def reconcile_day(
    resources: Resources,
    account: Account,
    day: date,
    *,
    dry_run: bool = False,
    only_due: bool = False,
    watching: Watching = NOBODY_WATCHES,
) -> Reconciliation | None:
    """The statement of one day of the channel's calendar, fetched from it. None: somebody else is at it.

    `only_due`: also None while a failed run is not yet to be tried again.

    Raises:
        ChannelError: the statement could not be had or read, or the channel answers no query. The run is kept, and the
            next one carries on where it stopped.
        StorageError: the same.
    """
    name, lease_s = account.config.name, resources.settings.lease_s
    run = await claim_day(resources.db, name, day, dry_run=dry_run, lease_s=lease_s, only_due=only_due)
    if run is None:
        return None
    async with _at_it(resources, run), fetched(resources, account, day) as path:
        return await _Run(resources, account, run, watching).over(await look_over(account, path))


async def reconcile_file(
    resources: Resources, account: Account, path: Path, *, dry_run: bool = False, watching: Watching = NOBODY_WATCHES
) -> Reconciliation | None:
    """The same over a statement that was downloaded by hand."""
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").digest()
    name, lease_s = account.config.name, resources.settings.lease_s
    run = await claim_file(resources.db, name, sha256, dry_run=dry_run, lease_s=lease_s)
    if run is None:
        return None
    async with _at_it(resources, run):
        return await _Run(resources, account, run, watching).over(await look_over(account, path))


def needs_person(counts: dict[str, int]) -> bool:
    """Whether a run has left something that only a person can see to."""
    return any(counts.get(kind, 0) for kind in (*filter(lambda kind: kind.is_difference, Finding), DOOR_CASES))


@asynccontextmanager
async def _at_it(resources: Resources, run: Reconciliation) -> AsyncIterator[None]:
    """Keep the lease meanwhile. A run that fails keeps its place and is due again after n² units."""
    keeping = asyncio.create_task(_keep(resources, run))
    try:
        yield
    except Exception as error:
        reason = type(error).__name__ if not isinstance(error, NodropError) else f"{type(error).__name__}: {error}"
        with suppress(DatabaseUnavailable):  # then its lease ends by itself
            await fail(resources.db, run, reason, resources.rules.backoff.gap_s(run.attempt))
        log.warning("reconciliation_failed", account=run.account, of=_of(run), reason=type(error).__name__)
        raise
    except BaseException:  # told to stop: somebody else carries on at once
        with suppress(DatabaseUnavailable):
            await release(resources.db, run)
        raise
    finally:
        keeping.cancel()


async def _keep(resources: Resources, run: Reconciliation) -> None:
    while True:
        await asyncio.sleep(resources.settings.lease_s / 3)
        with suppress(DatabaseUnavailable):
            await renew(resources.db, run, resources.settings.lease_s)


class _Run:
    """One run from its first row, or from where it was left, to its end."""

    def __init__(self, resources: Resources, account: Account, run: Reconciliation, watching: Watching) -> None:
        self._resources = resources
        self._account = account
        self._run = run
        self._watching = watching
        self._counts: Counter[str] = Counter()

    async def over(self, statement: Statement) -> Reconciliation:
        run = self._run = await begin(self._resources.db, self._run, statement.sha256)
        self._counts.update(run.counts)
        await self._compare_rows(statement)
        await self._ask_about_malformed()
        span = await self._look_for_paid_here_only(statement)
        if not run.dry_run:
            await answer_cases(self._resources.db, run.id, run.account, f"the statement of {_of(run)} tells of it")
        finished = await finish(self._resources.db, run, self._counts)
        await forget(self._resources.db, run.id, run.account, None if span is None or run.dry_run else span.inner)
        log.info(
            "reconciliation_finished",
            account=run.account,
            of=_of(run),
            count=self._counts[ROWS],
            rescued=self._counts[Finding.REPAIRED],
            left=sum(self._counts[kind] for kind in Finding if kind.is_difference),
        )
        return finished

    # -- there → here --------------------------------------------------------------------------------------------------

    async def _compare_rows(self, statement: Statement) -> None:
        comparer = RowComparer(self._resources, self._account, self._run.id, dry_run=self._run.dry_run)
        on_unknown = self._watching.on_unknown
        self._watching.on_progress(0, statement.rows)
        async for batch in batches(self._account, statement.path):
            left = [numbered for numbered in batch if numbered.row_no >= self._run.next_row]
            if on_unknown is not None and len(left) < len(batch):  # those before a crash were told to nobody
                for row in await comparer.unknown(batch[: len(batch) - len(left)]):
                    on_unknown(row)
            if left:
                compared = await comparer.compare(left, on_unknown or _not_told)
                await self._keep_found(compared.differences)
                self._counts.update(compared.counts)
                self._counts.update({ROWS: len(left), DOOR_CASES: compared.door_cases})
                await save(self._resources.db, self._run, left[-1].row_no + 1, self._counts)
            self._watching.on_progress(batch[-1].row_no, statement.rows)

    async def _keep_found(self, found: list[Difference]) -> None:
        """With the run, and as cases unless it is dry; up to a limit beyond which they are only counted."""
        await add_differences(self._resources.db, self._run.id, found)
        room = DIFFERENCES_MAX - sum(self._counts[kind] for kind in Finding if kind.is_difference)
        if not self._run.dry_run:
            await open_cases(self._resources.db, self._run.account, found[: max(0, room)])
        if len(found) > max(0, room):
            log.error("reconciliation_not_listed", account=self._run.account, of=_of(self._run), count=len(found))

    async def _ask_about_malformed(self) -> None:
        """One question for all rows that cannot be read: what they tell of is not known, not even the payment."""
        count = self._counts[Finding.MALFORMED]
        if count and not self._run.dry_run:
            detail = f"{count} rows of the statement of {_of(self._run)} cannot be read"
            question = Difference(kind=Finding.MALFORMED, row_no=0, detail=detail, case=CASES[Finding.MALFORMED])
            await open_cases(self._resources.db, self._run.account, [question])

    # -- here → there --------------------------------------------------------------------------------------------------

    async def _look_for_paid_here_only(self, statement: Statement) -> Span | None:
        """What was paid here and stands in no row, where that can be told already."""
        span = await find_span(self._resources, self._account, self._run, statement)
        if span is not None:
            async for found in unseen(self._resources, self._account, span, (span.since, span.until)):
                await self._keep_found([_here_only(each) for each in found])
                self._counts[Finding.PAID_HERE_ONLY] += len(found)
            for edge in span.edges:
                async for found in unseen(self._resources, self._account, span, edge):
                    self._counts[Finding.WAITING] += len(found)
        return span


def _here_only(paid: PaidHere) -> Difference:
    at = paid.paid_at.isoformat(timespec="seconds")
    return Difference(
        kind=Finding.PAID_HERE_ONLY,
        row_no=0,
        order_no=paid.order_no,
        out_trade_no=paid.out_trade_no,
        channel_transaction_id=paid.channel_transaction_id,
        detail=f"{paid.amount} {paid.currency} paid here at {at}, no row there",
        case=CASES[Finding.PAID_HERE_ONLY],
    )


def _not_told(_: StatementRow) -> None:
    """It is counted, and nobody has asked for a list."""


def _of(run: Reconciliation) -> str:
    """Which statement: its day, or the beginning of its hash."""
    return f"file {(run.sha256 or '')[:12]}" if run.day is None else run.day.isoformat()
