"""Statements that operators want to be read: asked for by the console, the API and commands, read by a worker.

A preview is a dry run: it compares, and neither queries nor changes. What it shows is then asked for once more, for
real, over the very same file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

import structlog

from channels.base import StatementRow
from core.errors import (
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
    ConflictsExhausted,
    DatabaseUnavailable,
    InvalidRequest,
    NodropError,
    NotFound,
    UnknownAccount,
)
from core.sentences import Sentence, Term
from flows.reconcile.run import Hooks, reconcile_day
from flows.reconcile.statement import Statement, batches, check_statement
from flows.reconcile.unlisted import FIRST_DAY, day_bounds
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.accounts import list_accounts
from storage.postgres.database import Database
from storage.postgres.orders import find_now
from storage.postgres.payments import find_payments_by_ids
from storage.postgres.reconciliation.runs import Reconciliation
from storage.postgres.statement_requests import (
    FILE_BYTES_MAX,
    LeasedRequest,
    StatementRequest,
    add_request,
    claim_request,
    delete_file,
    end_request,
    find_file,
    find_request,
    give_request_back,
    keep_request,
    put_file,
)

KEEP_S = 1.0
"""Interval at which the progress is written down, with the lease."""

LEASE_S = 30.0
BUSY_S = 5.0
"""Delay until a request is taken again whose day another process is reconciling, or whose reading broke."""

ATTEMPTS_MAX = 3
"""Readings of a statement that break, or whose process ends. The third one ends the request."""

NEAR = timedelta(days=1)
"""Refunds stand in the statement of the day on which they were requested, paid out, or the day after."""

log = structlog.get_logger()


# -- asking ------------------------------------------------------------------------------------------------------------


async def request_fetched(
    resources: Resources, name: str, day: date, *, by: str, dry_run: bool, reason: str = ""
) -> StatementRequest:
    """Ask for the channel's own statement of a day to be read, again if it was.

    Raises:
        UnknownAccount: there is no such account.
        InvalidRequest: the day has not begun, or is none of any channel.
    """
    await _check_day(resources, name, day)
    return await add_request(resources.db, name, day, dry_run=dry_run, digest=None, by=by, reason=reason)


async def upload(resources: Resources, name: str, day: date, content: bytes, *, by: str) -> StatementRequest:
    """Keep a file from the channel's own portal and ask for its preview, as the statement of this day.

    Raises:
        InvalidRequest: it is empty or too large, or the day has not begun.
        UnknownAccount: there is no such account.
    """
    await _check_day(resources, name, day)
    if not content.strip():
        raise InvalidRequest("file: it is empty; a statement has a header at least")
    if len(content) > FILE_BYTES_MAX:
        raise InvalidRequest(
            Sentence(
                "file: at most {max} MiB; take it zipped, or run `nodrop reconcile --account {account} FILE`",
                max=FILE_BYTES_MAX >> 20,
                account=name,
            )
        )
    digest = await put_file(resources.db, resources.sealer, name, content)
    return await add_request(resources.db, name, day, dry_run=True, digest=digest, by=by)


async def get_preview(db: Database, preview_id: int) -> StatementRequest:
    """A request that only compares. Raises NotFound."""
    preview = await find_request(db, preview_id)
    if preview is None or not preview.dry_run:
        raise NotFound("no such preview")
    return preview


async def confirm(resources: Resources, preview_id: int, *, by: str, reason: str) -> StatementRequest:
    """Ask for what a preview has shown, for real.

    Raises:
        NotFound: there is no such preview.
        InvalidRequest: it has not ended, or has failed.
    """
    preview = await get_preview(resources.db, preview_id)
    if preview.status != "done":
        status = Term("days.status_", preview.status)
        raise InvalidRequest(Sentence("this preview is {status}: nothing is read before it is done", status=status))
    digest = None if preview.sha256 is None else bytes.fromhex(preview.sha256)
    return await add_request(
        resources.db, preview.account, preview.day, dry_run=False, digest=digest, by=by, reason=reason
    )


async def _check_day(resources: Resources, name: str, day: date) -> None:
    account = await resources.accounts.get(name)
    today = (await find_now(resources.db)).astimezone(account.channel.statement_zone).date()
    if day > today:
        days = {"day": str(day), "today": str(today)}
        raise InvalidRequest(Sentence("day: {day} has not begun; today is {today} in the channel's calendar", **days))
    if day < FIRST_DAY:
        raise InvalidRequest(Sentence("day: no channel is as old; the first one is {first}", first=str(FIRST_DAY)))


# -- reading -----------------------------------------------------------------------------------------------------------


async def read_requested(resources: Resources) -> bool:
    """Read one statement that somebody asked for. Returns whether there was any. A worker's loop calls this."""
    leased = await claim_request(resources.db, LEASE_S)
    if leased is None:
        return False
    request = leased.request
    if request.attempt > ATTEMPTS_MAX:
        left = Sentence("{count} processes ended while they read it, or lost Postgres", count=ATTEMPTS_MAX)
        await _end_unread(resources, leased, left)
        return True
    async with _keeping(resources, leased) as hooks:
        try:
            run = await _read(resources, request, hooks)
        except DatabaseUnavailable:  # its lease ends by itself
            raise
        except NodropError as error:
            await _end_unread(resources, leased, _explained(error))
            return True
        except Exception as error:
            log.exception("statement_broke", account=request.account, of=request.day.isoformat())
            if request.attempt < ATTEMPTS_MAX:
                await give_request_back(resources.db, leased, delay_s=BUSY_S, is_begun=True)
            else:
                await _end_unread(resources, leased, _broken(error))
            return True
    if run is None:
        await give_request_back(resources.db, leased, delay_s=BUSY_S, is_begun=False)
        return False
    failure = run.last_error if run.status == "failed" else ""
    phrase = run.error_phrase if failure else None
    await end_request(resources.db, leased, run_id=run.id, error=failure, phrase=phrase, rows=run.next_row - 1)
    if request.sha256 is not None and not request.dry_run:
        await delete_file(resources.db, request.account, bytes.fromhex(request.sha256))
    return True


async def _end_unread(resources: Resources, leased: LeasedRequest, error: str) -> None:
    await end_request(resources.db, leased, run_id=None, error=error)
    log.warning("statement_not_read", account=leased.request.account, of=leased.request.day.isoformat())


async def _read(resources: Resources, request: StatementRequest, hooks: Hooks) -> Reconciliation | None:
    account = await resources.accounts.get(request.account)
    if request.sha256 is None:
        return await reconcile_day(resources, account, request.day, dry_run=request.dry_run, hooks=hooks)
    content = await find_file(resources.db, resources.sealer, request.account, bytes.fromhex(request.sha256))
    if content is None:
        raise NotFound("the uploaded file was deleted, a day after it came: upload it again")
    with NamedTemporaryFile(prefix="nodrop-", suffix=".statement") as file:  # only we may read it
        file.write(content)
        file.flush()
        path = Path(file.name)
        await check_file(resources, account, request.day, path)
        return await reconcile_day(
            resources, account, request.day, dry_run=request.dry_run, hooks=hooks, statement=path
        )


async def check_file(resources: Resources, account: Account, day: date, path: Path) -> Statement:
    """Check that a file is a statement of this account and day, before anything is compared.

    Raises:
        ChannelUnreadable: it is not of the channel's form.
        InvalidRequest: it has no row, or is of another day or account.
    """
    statement = await check_statement(account, path)
    if statement.rows == 0:
        raise InvalidRequest("the file has no row")
    since, until = day_bounds(day, account.channel.statement_zone)
    zone = account.channel.statement_zone
    for times, margin in ((statement.span, timedelta()), (statement.refund_span, NEAR)):
        if times is not None and not (since - margin <= times[0] and times[1] < until + margin):
            first, last = (at.astimezone(zone).date() for at in times)
            of = str(first) if first == last else Sentence("{first} to {last}", first=str(first), last=str(last))
            fault = "the file is of {of}, not of {day}: choose that day, or take the file of this one"
            raise InvalidRequest(Sentence(fault, of=of, day=str(day)))
    other = await _find_other_account(resources, account, path)
    if other is not None:
        names = {"other": other, "account": account.config.name}
        raise InvalidRequest(Sentence("the payments in the file are of account {other}, none of {account}", **names))
    return statement


async def _find_other_account(resources: Resources, account: Account, path: Path) -> str | None:
    """The account whose payments are in the file, if none of its first rows is of this one."""
    async for batch in batches(account, path):
        ids = {id_ for _, row in batch if isinstance(row, StatementRow) for id_ in row.all_ids}
        if await find_payments_by_ids(resources.db, account.config.name, ids):
            return None
        for row in await list_accounts(resources.db):
            is_candidate = row.channel == account.config.channel and row.name != account.config.name
            if is_candidate and await find_payments_by_ids(resources.db, row.name, ids):
                return row.name
        return None
    return None


@asynccontextmanager
async def _keeping(resources: Resources, leased: LeasedRequest) -> AsyncIterator[Hooks]:
    """Write the progress down within the block, and keep the lease."""
    progress: list[int | None] = [0, None]

    def note(done: int, rows: int) -> None:
        progress[:] = [done, rows]

    async def keep() -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            with suppress(DatabaseUnavailable):
                done, rows = progress
                await keep_request(resources.db, leased, done=done or 0, rows=rows, lease_s=LEASE_S)

    keeping = asyncio.create_task(keep())
    try:
        yield Hooks(on_progress=note)
    finally:
        keeping.cancel()


def _broken(error: Exception) -> str:
    """A fault of nodrop for the operator, without what it has read."""
    kind = type(error).__name__
    return Sentence("nodrop broke on this statement ({kind}): a worker's log has it (statement_broke)", kind=kind)


def _explained(error: NodropError) -> str:
    """The fault for the operator."""
    match error:
        case ChannelUnreadable():
            return Sentence("the file is not of the channel's form: {reason}", reason=error.sentence)
        case ChannelRefused():
            return Sentence("the channel refuses to give the statement: {reason}", reason=error.code)
        case ChannelUnavailable():
            return Sentence("the channel does not answer: {reason}; ask again later", reason=str(error))
        case ConflictsExhausted():
            return "another process has taken this day over: look at its run"
        case UnknownAccount() | InvalidRequest() | NotFound() | ConfigurationError():
            return error.sentence or str(error)
    return f"{type(error).__name__}: {error}"
