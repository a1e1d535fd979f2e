"""A channel's statement: fetched into a temporary file, checked once from beginning to end, then read in batches.

It is never in memory as a whole. It is checked first, so that a file that is not of the channel's form is refused
before its first row has an effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, closing
from datetime import date, datetime
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, NamedTuple

from msgspec import Struct

from channels.base import MalformedRow, StatementRow
from core.admission import Urgency
from core.errors import ChannelRefused, ChannelUnavailable
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


class Statement(Struct, frozen=True, kw_only=True):
    """A statement that is of the channel's form. `span` is from its first payment to its last one."""

    path: Path
    sha256: bytes
    rows: int
    span: tuple[datetime, datetime] | None


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
                resources, account, Urgency.SCHEDULED, account.channel.fetch_statement, day, file
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
        ChannelUnreadable: it is not of the channel's form.
    """
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").digest()
    count, first, last = 0, None, None
    async for batch in batches(account, path):
        count = batch[-1].row_no
        times = [row.at for _, row in batch if isinstance(row, StatementRow) and row.kind == "payment"]
        if times:
            first = min(times) if first is None else min(first, *times)
            last = max(times) if last is None else max(last, *times)
    span = None if first is None or last is None else (first, last)
    return Statement(path=path, sha256=sha256, rows=count, span=span)


async def batches(account: Account, path: Path) -> AsyncIterator[list[Numbered]]:
    """All rows in order, in batches; other tasks run between two batches. Raises as `check_statement`."""
    with path.open("rb") as file, closing(_numbered(account, file)) as rows:
        if not file.peek(1):
            return
        while batch := list(islice(rows, BATCH)):
            yield batch
            await asyncio.sleep(0)


def _numbered(account: Account, file: IO[bytes]) -> Generator[Numbered, None, None]:
    for row_no, row in enumerate(account.channel.parse_statement(file), 1):
        yield Numbered(row_no, row)
