"""The statement of a day (交易账单): packed with gzip, one transaction a line, each cell behind a backquote.

https://pay.weixin.qq.com/docs/merchant/apis/native-payment/get-trade-bill.html. Nothing is quoted, and a subject may
contain commas, so a cell ends where the next backquote begins. Columns are found by name: new ones are added at times.
"""

from __future__ import annotations

import gzip
import hmac
import os
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha1
from typing import IO

from channels.base import MalformedRow, StatementRow
from core.errors import ChannelUnreadable, InvalidRequest
from core.money import is_currency, minor_units

ZONE = timezone(timedelta(hours=8))
UNPACKED_BYTES_MAX = 1 << 30
"""Two million transactions at half a kilobyte; a larger file is taken for a bomb."""

LINE_BYTES_MAX = 16 * 1024
_CHUNK_BYTES = 1 << 16

_AT = "交易时间"
_TRANSACTION = "微信订单号"
_NUMBER = "商户订单号"
_STATE = "交易状态"
_AMOUNT = "订单金额"
_CURRENCY = "货币种类"
_REFUND_NUMBER = "商户退款单号"
_REFUND_STATE = "退款状态"
_REFUND_AMOUNT = "退款金额"
# Requested refund, coupons included, as in 订单金额; bills of old accounts do not have it.
_REFUND_REQUESTED = "申请退款金额"
_COLUMNS = (_AT, _TRANSACTION, _NUMBER, _STATE, _AMOUNT, _CURRENCY, _REFUND_NUMBER, _REFUND_STATE, _REFUND_AMOUNT)

_SUMS = "总交易单数".encode()
"""Start of the line above the sums, which end the file."""

_GZIP = b"\x1f\x8b"
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
_ID = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}", re.ASCII)
_NONE = ("", "0")


def check_hash(statement: IO[bytes], sha1_hex: str) -> None:
    """Check the file against the hash in the signed response, which covers the *unpacked* bytes.

    Raises:
        ChannelUnreadable: it is another file, or cannot be unpacked.
    """
    digest = sha1(usedforsecurity=False)
    unpacked = _unpacked(statement)
    try:
        while chunk := unpacked.read(_CHUNK_BYTES):
            digest.update(chunk)
            if unpacked.tell() > UNPACKED_BYTES_MAX:
                raise ChannelUnreadable("statement_oversized")
    except (OSError, EOFError, zlib.error):
        raise ChannelUnreadable("statement_packing") from None
    if not hmac.compare_digest(digest.hexdigest().encode(), sha1_hex.lower().encode()):
        raise ChannelUnreadable("statement_hash")


def rows(statement: IO[bytes]) -> Iterator[StatementRow | MalformedRow]:
    """Payments and refunds of the statement, without the sums at its end.

    Raises:
        ChannelUnreadable: it does not begin with the columns, or ends before its sums, so it was cut off.
    """
    lines = _lines(statement)
    _, first = next(lines, (0, b""))
    columns = _columns(first)
    for number, line in lines:
        if line.startswith(_SUMS):
            return
        row = _row(number, line, columns) if line.startswith(b"`") else MalformedRow(line=number, reason="columns")
        if row is not None:
            yield row
    raise ChannelUnreadable("statement_without_sums")


def _unpacked(statement: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    head = statement.read(len(_GZIP))
    statement.seek(-len(head), os.SEEK_CUR)
    return gzip.GzipFile(fileobj=statement, mode="rb") if head == _GZIP else statement


def _lines(statement: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends; never more than one line in memory."""
    unpacked, size, number = _unpacked(statement), 0, 0
    try:
        while line := unpacked.readline(LINE_BYTES_MAX + 1):
            size, number = size + len(line), number + 1
            if len(line) > LINE_BYTES_MAX or size > UNPACKED_BYTES_MAX:
                raise ChannelUnreadable("statement_oversized")
            yield number, line.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error):
        raise ChannelUnreadable("statement_packing") from None


def _columns(line: bytes) -> dict[str, int]:
    try:
        names = line.decode("utf-8-sig").split(",")
    except UnicodeDecodeError:
        names = []
    columns = {name.strip().removeprefix("`"): index for index, name in enumerate(names)}
    if len(columns) < len(names) or not columns.keys() >= set(_COLUMNS):
        raise ChannelUnreadable("statement_header")
    return columns


def _row(number: int, line: bytes, columns: dict[str, int]) -> StatementRow | MalformedRow | None:
    """Row of a line; None when it moved no money."""
    try:
        cells = [cell.strip() for cell in line.decode().removeprefix("`").split(",`")]
    except UnicodeDecodeError:
        return MalformedRow(line=number, reason="encoding")
    if len(cells) != len(columns):
        return MalformedRow(line=number, reason="columns")
    cell = {name: cells[index] for name, index in columns.items()}
    state, refund_state = cell[_STATE], cell[_REFUND_STATE]
    if state == "REVOKED" or (state == "REFUND" and refund_state == "FAIL"):
        return None
    if state not in ("SUCCESS", "REFUND") or (state == "REFUND" and refund_state not in ("SUCCESS", "PROCESSING")):
        return MalformedRow(line=number, reason="state")
    return _money(number, cell, is_refund=state == "REFUND")


def _money(number: int, cell: dict[str, str], *, is_refund: bool) -> StatementRow | MalformedRow:
    """Row of a payment or refund. A refund under way has already left the merchant's balance."""
    refund_no = "" if cell[_REFUND_NUMBER] in _NONE or not is_refund else cell[_REFUND_NUMBER]
    ids = [cell[_NUMBER], cell[_TRANSACTION], *([refund_no] if refund_no else [])]
    if not all(_ID.fullmatch(text) for text in ids):
        return MalformedRow(line=number, reason="number")
    at = _instant(cell[_AT])
    if at is None:
        return MalformedRow(line=number, reason="time")
    if not is_currency(cell[_CURRENCY]):
        return MalformedRow(line=number, reason="currency")
    try:
        text = cell.get(_REFUND_REQUESTED, cell[_REFUND_AMOUNT]) if is_refund else cell[_AMOUNT]
        amount = minor_units(text, cell[_CURRENCY])
    except InvalidRequest:
        return MalformedRow(line=number, reason="amount")
    return StatementRow(
        line=number,
        kind="refund" if is_refund else "payment",
        out_trade_no=cell[_NUMBER],
        channel_transaction_id=cell[_TRANSACTION],
        refund_no=refund_no,
        amount=amount,
        currency=cell[_CURRENCY],
        at=at,
    )


def _instant(text: str) -> datetime | None:
    """`2026-11-23 12:00:00`, in the channel's zone."""
    if _INSTANT.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=ZONE).astimezone(UTC)
    except ValueError:
        return None
