"""A channel's statement: fetched into a temporary file, checked once from beginning to end, then read in batches.

It is never in memory as a whole. It is checked first, so that a file that is not of the channel's form is refused
before its first row has an effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import date, datetime
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, NamedTuple

from msgspec import Struct

from channels.base import MalformedRow, StatedTotal, StatementItem, StatementRow
from channels.statement_formats import likely_format
from core.admission import CallKind, Urgency
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.sentences import Phrase, Sentence
from flows.channel_call import Deferred, call_channel
from runtime.accounts import Account
from runtime.resources import Resources

BATCH = 500
"""Rows whose payments are read in one SQL statement."""

WAITS_MAX = 600
WAIT_S_MAX = 1.0
"""Waits for the account's rate or its breaker, which opens for a minute at most: ten minutes in all."""


class Numbered(NamedTuple):
    """A row and its place, counted from 1 as rows are read; also where the channel's statement has no lines."""

    row_no: int
    row: StatementRow | MalformedRow


Times = tuple[datetime, datetime]


class Statement(Struct, frozen=True, kw_only=True):
    """A statement that is of the channel's form. The spans are from its first payment or refund to its last one.

    `totals` are the counts and sums that it states and that differ from its rows, as far as they can be read.
    """

    path: Path
    sha256: bytes
    rows: int
    span: Times | None
    refund_span: Times | None
    totals: tuple[StatedTotal, ...]


@asynccontextmanager
async def fetched(resources: Resources, account: Account, day: date) -> AsyncIterator[Path]:
    """The channel's statement of one day, in a file that is deleted after the block; empty if there is none.

    Raises:
        ChannelError: it could not be fetched.
    """
    with NamedTemporaryFile(prefix="nodrop-", suffix=".statement") as file:  # only we may read it
        await _fetch(resources, account, day, file)
        file.flush()
        yield Path(file.name)


async def _fetch(resources: Resources, account: Account, day: date, file: IO[bytes]) -> None:
    for _ in range(WAITS_MAX):
        try:
            response = await call_channel(
                resources, account, CallKind.STATEMENT, Urgency.SCHEDULED, account.channel.fetch_statement, day, file
            )
        except ChannelRefused as refused:
            if refused.code == "no_statement":
                return
            raise
        if not isinstance(response, Deferred):
            return
        await asyncio.sleep(min(response.seconds, WAIT_S_MAX))
    raise ChannelUnavailable(f"account {account.config.name} could not be called for ten minutes")


async def check_statement(account: Account, path: Path) -> Statement:
    """Read the statement once to its end.

    Raises:
        ChannelUnreadable: it is not of the channel's form; the message says what it looks like and what is read.
    """
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").digest()
        file.seek(0)
        try:
            return await _checked(account, path, sha256)
        except ChannelUnreadable as error:
            fault = "{reason}: this looks like {likely}; what is read is {taken}"
            likely, taken = Phrase(likely_format(file)), Phrase(account.channel.statement_format)
            raise ChannelUnreadable(Sentence(fault, reason=error.detail, likely=likely, taken=taken)) from None


async def _checked(account: Account, path: Path, sha256: bytes) -> Statement:
    count = 0
    spans: dict[str, Times] = {}
    totals: list[StatedTotal] = []
    async for batch in batches(account, path, totals.append):
        count = batch[-1].row_no
        for row in (row for _, row in batch if isinstance(row, StatementRow)):
            first, last = spans.get(row.kind, (row.at, row.at))
            spans[row.kind] = (min(first, row.at), max(last, row.at))
    return Statement(
        path=path,
        sha256=sha256,
        rows=count,
        span=spans.get("payment"),
        refund_span=spans.get("refund"),
        totals=tuple(total for total in totals if total.stated != total.read),
    )


async def batches(
    account: Account, path: Path, on_total: Callable[[StatedTotal], None] | None = None
) -> AsyncIterator[list[Numbered]]:
    """All rows in order, in batches; other tasks run between two batches. Raises as the channel's `parse_statement`."""
    with path.open("rb") as file, closing(_numbered(account.channel.parse_statement(file), on_total)) as rows:
        if not file.peek(1):
            return
        while batch := list(islice(rows, BATCH)):
            yield batch
            await asyncio.sleep(0)


def _numbered(
    items: Iterator[StatementItem], on_total: Callable[[StatedTotal], None] | None
) -> Generator[Numbered, None, None]:
    row_no = 0
    for item in items:
        if not isinstance(item, StatedTotal):
            row_no += 1
            yield Numbered(row_no, item)
        elif on_total is not None:
            on_total(item)
