"""The sandbox's statement of a day: a CSV file with a fixed header, in UTF-8."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Annotated

import msgspec

from channels.base import MalformedRow, StatementRow
from channels.kit.unreadable import clean_ids
from core.errors import ChannelUnreadable

_HEADER = ["type", "out_trade_no", "transaction_id", "refund_no", "amount", "currency", "at"]
_MINOR_TEXT = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


def read_statement(statement: IO[bytes]) -> Iterator[StatementRow | MalformedRow]:
    """Rows of the statement, one at a time. Raises as `Channel.parse_statement`."""
    text = io.TextIOWrapper(statement, "utf-8", newline="")
    try:
        rows = csv.reader(text, strict=True)
        if next(rows, None) != _HEADER:
            raise ChannelUnreadable("statement_header")
        for line, row in enumerate(rows, 2):
            yield _row(line, row)
    except (csv.Error, ValueError) as error:
        raise ChannelUnreadable(f"statement_{type(error).__name__}") from None
    finally:
        text.detach()  # the file stays the caller's, and open


def _row(line: int, row: list[str]) -> StatementRow | MalformedRow:
    if len(row) != len(_HEADER):
        return MalformedRow(line=line, reason="columns")
    kind, out_trade_no, transaction_id, refund_no, amount, currency, at = row
    ids = clean_ids(out_trade_no, transaction_id)
    if not _MINOR_TEXT.fullmatch(amount):
        return MalformedRow(line=line, reason="amount", ids=ids)
    try:
        return msgspec.convert(
            {
                "line": line,
                "kind": kind,
                "out_trade_no": out_trade_no,
                "channel_transaction_id": transaction_id,
                "refund_no": refund_no,
                "amount": int(amount),
                "currency": currency,
                "at": msgspec.convert(at, _Instant),
            },
            StatementRow,
        )
    except msgspec.ValidationError:
        return MalformedRow(line=line, reason="value", ids=ids)
