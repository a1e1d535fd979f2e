"""The inputs of `nodrop explain`: files, or standard input for one of them, each within a limit."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from cli.accounts.account_file import Draft, content_of, decode_tables, draft_of_table
from cli.output import Wrong
from core.account import AccountConfig
from core.money import AMOUNT_MAX
from core.order import OUT_TRADE_NO, Payment, PaymentStatus

BODY_BYTES_MAX = 1024 * 1024
HEADERS_BYTES_MAX = 64 * 1024
HEADERS_MAX = 200
ORDER_BYTES_MAX = 64 * 1024

_Minor = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
_SHAPES = {
    "out_trade_no": "our number at the channel: 6 to 64 of 0-9 A-Z a-z _ - | *",
    "amount": "the amount in minor units, a whole number: 8888 is 88.88 CNY",
    "amount_minor": "the amount in minor units, a whole number: 8888 is 88.88 CNY",
    "currency": "three capital letters, such as CNY",
}


class OrderInFile(msgspec.Struct, frozen=True, kw_only=True):
    """The expected payment. `amount_minor` is another name of `amount`; `status` is read and changes nothing."""

    out_trade_no: Annotated[str, msgspec.Meta(pattern=rf"\A{OUT_TRADE_NO.pattern}\Z")]
    currency: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
    amount: _Minor | None = None
    amount_minor: _Minor | None = None
    order_no: str | None = None
    status: str | None = None
    channel_reference: str | None = None


def read_body(source: str) -> bytes:
    """The raw bytes, as they were on the wire."""
    return _read(source, BODY_BYTES_MAX, "a callback or an answer")


def read_headers(source: str) -> dict[str, str]:
    """A JSON object of texts; names in lower case, as the service sees them.

    Raises:
        Wrong: it is something else, or has one header twice.
    """
    content = _read(source, HEADERS_BYTES_MAX, "headers")
    try:
        fields = msgspec.json.decode(content, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Wrong(f'{source}: headers are a JSON object of texts, {{"Content-Type": "application/json"}}') from None
    if len(fields) > HEADERS_MAX:
        raise Wrong(f"{source}: more than {HEADERS_MAX} headers")
    headers = {name.lower(): value for name, value in fields.items()}
    if len(headers) < len(fields):
        raise Wrong(f"{source}: a header is there twice; join its values with a comma, as HTTP does")
    return headers


def read_order(source: str, account: str, now: datetime) -> Payment:
    """The payment that is expected.

    Raises:
        Wrong: names the key and what it should look like.
    """
    content = _read(source, ORDER_BYTES_MAX, "an order")
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Wrong(f"{source}: an order is a JSON object with out_trade_no, amount and currency") from None
    try:
        order = msgspec.convert(fields, OrderInFile)
    except msgspec.ValidationError as error:
        raise Wrong(f"{source}: {_explained(str(error))}") from None
    amounts = {amount for amount in (order.amount, order.amount_minor) if amount is not None}
    if not amounts:
        raise Wrong(f"{source}: amount is missing; it is {_SHAPES['amount']}")
    if len(amounts) > 1:
        raise Wrong(f"{source}: amount and amount_minor are two names of one thing, and differ")
    payment = payment_of(account, order.out_trade_no, now, amount=amounts.pop(), currency=order.currency)
    return replace(payment, order_no=order.order_no or "", channel_reference=order.channel_reference)


def payment_of(account: str, number: str, now: datetime, *, amount: int = 0, currency: str = "") -> Payment:
    """A payment of which no more is known than this."""
    return Payment(
        channel_account=account,
        out_trade_no=number,
        order_no="",
        attempt_no=1,
        amount=amount,
        currency=currency,
        status=PaymentStatus.OPEN,
        payable_until=now,
        created_at=now,
    )


def read_time(text: str) -> datetime:
    """RFC 3339, `2026-11-23T04:00:00Z`, or Unix seconds.

    Raises:
        Wrong: it is neither.
    """
    try:
        if text.isascii() and text.isdecimal():
            return datetime.fromtimestamp(int(text[:12]), UTC)
        at: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise Wrong("--at: a time is 2026-11-23T04:00:00Z, or seconds since 1970") from None
    return at


def account_in_file(name: str, source: str) -> AccountConfig:
    """The table of this name, or the one account of a file as `nodrop accounts add` takes it.

    Raises:
        ConfigurationError: names the file, the key and what it should look like.
        Wrong: there is no such account in it.
    """
    tables = decode_tables(source, content_of(source))
    if isinstance(tables.get("channel"), str):
        return draft_of_table(name, source, tables).complete()
    table = tables.get(name)
    if not isinstance(table, dict):
        names = ", ".join(sorted(key for key, value in tables.items() if isinstance(value, dict))) or "none"
        raise Wrong(f"{source}: there is no account {name} in it; there is: {names}")
    draft: Draft = draft_of_table(name, f"{source}: {name}", table)
    return draft.complete()


def only_one_stdin(*sources: str | None) -> None:
    """Raises Wrong when standard input should be two files."""
    if sum(source == "-" for source in sources) > 1:
        raise Wrong("- is standard input, and can be one of the files only")


def _read(source: str, bytes_max: int, what: str) -> bytes:
    try:
        if source == "-":
            content = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(bytes_max + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise Wrong(f"{source}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
    if len(content) > bytes_max:
        raise Wrong(f"{source}: larger than {bytes_max // 1024} KiB, which {what} is not")
    return content


def _explained(message: str) -> str:
    """``Expected `int`, got `str` - at `$.amount` `` → what `amount` is."""
    for key, shape in _SHAPES.items():
        if f"`$.{key}`" in message:
            return f"{key} is not {shape}"
        if f"required field `{key}`" in message:
            return f"{key} is missing; it is {shape}"
    return message
