"""The statement of a day (交易账单): one transaction a line, each cell behind a backquote, plain or packed with gzip.

https://pay.weixin.qq.com/docs/merchant/apis/native-payment/get-trade-bill.html. Nothing is quoted, and a subject may
contain commas, so a cell ends where the next backquote begins. Columns are found by name: new ones are added at times.
Bills of all transactions, of payments alone (SUCCESS) and of refunds alone (REFUND) are read, with the columns of today
and with the older ones.
"""

from __future__ import annotations

import gzip
import hmac
import os
import re
import zlib
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha1
from typing import IO

from channels.base import MalformedRow, StatedTotal, StatementItem, StatementRow
from channels.kit.fees import read_fee
from channels.kit.unreadable import clean_ids
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
_CURRENCY = "货币种类"
_REFUND_NUMBER = "商户退款单号"
_CHANNEL_REFUND_NUMBER = "微信退款单号"
_REFUND_STATE = "退款状态"
_COLUMNS = (_AT, _TRANSACTION, _NUMBER, _STATE, _CURRENCY)
# The name of today, then older ones. A requested refund includes coupons, as 订单金额 does.
_AMOUNTS = ("订单金额", "总金额")
_REFUND_AMOUNTS = ("申请退款金额", "退款金额")
# In bills of refunds alone, 交易时间 is the time of the payment.
_REFUND_TIMES = ("退款成功时间", "退款申请时间", _AT)
_FEE = "手续费"
"""Positive where WeChat Pay takes it, negative where it gives it back with a refund; five decimals."""

_COUNT = "总交易单数"
_AMOUNT_SUMS = ("订单总金额", "总交易额")
_REFUND_SUMS = ("申请退款总金额", "总退款金额", "退款总金额")
_END_LINES = 2
"""Names of the sums and the sums themselves, the last two lines of a bill."""

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


def rows(statement: IO[bytes]) -> Iterator[StatementItem]:
    """Payments and refunds of the statement, then its sums beside the same of the rows that were read.

    Raises:
        ChannelUnreadable: it does not begin with the columns, or does not end with sums, so it was cut off.
    """
    lines = _lines(statement)
    _, first = next(lines, (0, b""))
    encoding = _encoding(first)
    bill = _Bill(_names(first, encoding), encoding)
    held: deque[tuple[int, bytes]] = deque()
    for numbered in lines:  # only the last lines can be the sums: a goods name may contain line breaks
        held.append(numbered)
        if len(held) > _END_LINES and (row := bill.read(*held.popleft())) is not None:
            yield row
    yield from bill.totals([line for _, line in held])


def _unpacked(statement: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    head = statement.read(len(_GZIP))
    statement.seek(-len(head), os.SEEK_CUR)
    return gzip.GzipFile(fileobj=statement, mode="rb") if head == _GZIP else statement


def _lines(statement: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends and without empty ones; never more than one line in memory."""
    unpacked, size, number = _unpacked(statement), 0, 0
    try:
        while line := unpacked.readline(LINE_BYTES_MAX + 1):
            size, number = size + len(line), number + 1
            if len(line) > LINE_BYTES_MAX or size > UNPACKED_BYTES_MAX:
                raise ChannelUnreadable("statement_oversized")
            if line.strip():
                yield number, line.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error):
        raise ChannelUnreadable("statement_packing") from None


def _encoding(line: bytes) -> str:
    """UTF-8, or GBK where a spreadsheet has saved the file."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return "gb18030"
    return "utf-8"


def _names(line: bytes, encoding: str) -> list[str]:
    """Names of the columns, or of the sums, in order; none if the line is no text."""
    try:
        names = line.removeprefix(BOM_UTF8).decode(encoding).split(",")
    except UnicodeDecodeError:
        return []
    return [name.strip().removeprefix("`") for name in names]


class _Bill:
    """Columns of one bill, with the count and the sums of its rows so far. Malformed rows are in none of them."""

    def __init__(self, names: list[str], encoding: str) -> None:
        if len(set(names)) < len(names) or not {*_COLUMNS} <= {*names} or not {*_AMOUNTS} & {*names}:
            raise ChannelUnreadable("statement_header")
        self._names = names
        self._encoding = encoding
        self._count = self._paid = self._given_back = 0

    def read(self, number: int, line: bytes) -> StatementRow | MalformedRow | None:
        """Row of a line; None when it moved no money. Every row that can be read counts in the bill's sums."""
        try:
            cells = [cell.strip() for cell in line.decode(self._encoding).removeprefix("`").split(",`")]
        except UnicodeDecodeError:
            return MalformedRow(line=number, reason="encoding")
        if not line.startswith(b"`"):  # the rest of a row with a line break
            return MalformedRow(line=number, reason="columns")
        ids = self._ids(cells)
        if len(cells) != len(self._names):
            return MalformedRow(line=number, reason="columns", ids=ids)
        cell = dict(zip(self._names, cells, strict=True))
        row = _row(number, cell, ids)
        if not isinstance(row, MalformedRow):
            self._count += 1
            self._paid += 0 if cell[_STATE] == "REFUND" else _fen(cell, _AMOUNTS)
            self._given_back += _fen(cell, _REFUND_AMOUNTS)
        return row

    def _ids(self, cells: list[str]) -> tuple[str, ...]:
        """The ids of the payment, of any system's form. They stand before the goods' name, which may be cut off."""
        places = [self._names.index(name) for name in (_NUMBER, _TRANSACTION)]
        return clean_ids(*(cells[place] for place in places if place < len(cells)))

    def totals(self, end: list[bytes]) -> Iterator[StatedTotal]:
        """The sums in the last lines of the bill."""
        if len(end) < _END_LINES or _COUNT not in (names := _names(end[0], self._encoding)):
            raise ChannelUnreadable("statement_without_sums")
        stated = dict(zip(names, _names(end[1], self._encoding), strict=False))
        yield StatedTotal(name=_COUNT, stated=_count(stated.get(_COUNT, "")), read=self._count)
        for sums, read in ((_AMOUNT_SUMS, self._paid), (_REFUND_SUMS, self._given_back)):
            name = next((name for name in sums if name in names), None)
            if name is not None:
                yield StatedTotal(name=name, stated=_amount(stated.get(name, "")), read=read)


def _row(number: int, cell: dict[str, str], ids: tuple[str, ...]) -> StatementRow | MalformedRow | None:
    state, refund_state = cell[_STATE], cell.get(_REFUND_STATE, "")
    if state == "REVOKED" or (state == "REFUND" and refund_state == "FAIL"):
        return None
    if state not in ("SUCCESS", "REFUND") or (state == "REFUND" and refund_state not in ("SUCCESS", "PROCESSING")):
        return MalformedRow(line=number, reason="state", ids=ids)
    return _money(number, cell, ids, is_refund=state == "REFUND")


def _money(number: int, cell: dict[str, str], ids: tuple[str, ...], *, is_refund: bool) -> StatementRow | MalformedRow:
    """Row of a payment or refund. A refund under way has already left the merchant's balance."""
    refund_no = cell.get(_REFUND_NUMBER, "") if is_refund else ""
    refund_no = "" if refund_no in _NONE else refund_no
    channel_refund_no = cell.get(_CHANNEL_REFUND_NUMBER, "") if is_refund else ""
    if not _ID.fullmatch(cell[_TRANSACTION]):
        return MalformedRow(line=number, reason="number", ids=ids)
    at = _instant(_first(cell, _REFUND_TIMES) if is_refund else cell[_AT])
    if at is None:
        return MalformedRow(line=number, reason="time", ids=ids)
    if not is_currency(cell[_CURRENCY]):
        return MalformedRow(line=number, reason="currency", ids=ids)
    try:
        amount = minor_units(_first(cell, _REFUND_AMOUNTS if is_refund else _AMOUNTS), cell[_CURRENCY])
    except InvalidRequest:
        return MalformedRow(line=number, reason="amount", ids=ids)
    return StatementRow(
        line=number,
        kind="refund" if is_refund else "payment",
        out_trade_no=cell[_NUMBER],
        channel_transaction_id=cell[_TRANSACTION],
        refund_no=refund_no,
        channel_refund_no="" if channel_refund_no in _NONE else channel_refund_no,
        amount=amount,
        currency=cell[_CURRENCY],
        at=at,
        fee=read_fee(cell.get(_FEE, ""), cell[_CURRENCY]),
    )


def _first(cell: dict[str, str], names: tuple[str, ...]) -> str:
    """The first of these cells that the bill has and that is not empty."""
    return next((cell[name] for name in names if cell.get(name)), "")


def _fen(cell: dict[str, str], names: tuple[str, ...]) -> int:
    return _amount(_first(cell, names)) or 0


def _amount(text: str) -> int | None:
    try:
        return minor_units(text, "CNY")
    except InvalidRequest:
        return None


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _instant(text: str) -> datetime | None:
    """`2026-11-23 12:00:00`, in the channel's zone."""
    if _INSTANT.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=ZONE).astimezone(UTC)
    except ValueError:
        return None
