"""Logs of every process: JSON lines with allow-listed fields, so that no secret and no personal data get in by mistake.

A line names what happened and which order; exceptions are a type and a place in the code, never their message, which
may hold a value. Lines of libraries keep their level and place and lose their text for the same reason.
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import partial
from pathlib import Path
from time import time
from traceback import walk_tb
from types import TracebackType
from typing import BinaryIO

import msgspec
import structlog
from structlog.typing import EventDict

FIELDS = frozenset(
    # what every line may have
    "at event level logger where error request_id process"
    # the order and how it came
    " order_no out_trade_no channel account by attempt arm_no version outcome status kind late"
    # requests and calls
    " route method duration_ms host port delay_s retry_after_s timeout_s urgency code"
    # callbacks, notifications, cases, refunds, accounts by their own numbers
    " callback_id notification_id case_id refund_no event_id key_id"
    # jobs, lanes and the sweep, mostly numbers
    " lane job job_id count claimed done again dead late_s rescued due parked rearmed left batch size lag_s bytes age_s"
    " skew_s pending callbacks notifications refunds cases cancelled epoch"
    # alerts by their own ids
    " alert_id rule"
    # why, in words of ours
    " reason policy wanted mode name state type of".split()
)
"""Ask before adding: who can put what into it? Addresses, tokens, keys, headers, bodies, subjects and URLs never."""

TEXT_MAX = 400
FRAMES_MAX = 6

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is answered in this context: every line has it."""

_encoder = msgspec.json.Encoder()
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_ROOT = Path(__file__).parent.parent
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure_logs(level: str, stream: BinaryIO | None = None) -> None:
    """Send our lines and the libraries' to `stream`, else standard output. Called once, before anything logs."""
    number = _LEVELS.get(level.lower(), logging.INFO)
    out = stream or sys.stdout.buffer
    structlog.configure(
        processors=[partial(_line, is_debug=number <= logging.DEBUG)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    # At info, libraries log each of their steps; our own lines cover those.
    root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else logging.INFO)


def _line(_logger: object, level: str, fields: EventDict, *, is_debug: bool) -> bytes:
    """One line, `at`, `level` and `event` first, so that people can read it. A field that is not allowed is dropped;
    in debug the line names what it dropped, no values.

    One function for all of it: a chain of processors costs twice as much, several times an order.
    """
    event, request_id = fields.get("event"), REQUEST_ID.get()
    line: dict[str, object] = {
        "at": f"{datetime.fromtimestamp(time(), UTC).isoformat()[:-6]}Z",
        "level": level,
        "event": event if isinstance(event, str) and _EVENT.fullmatch(event) else "event_unnamed",
    }
    if request_id is not None:
        line["request_id"] = request_id
    if "exc_info" in fields:
        _describe_exception(fields)
    for name, value in fields.items():
        if value is not None and name in FIELDS and name != "event":
            line[name] = value if type(value) is int or type(value) is float else _plain(value)
    if is_debug and (dropped := sorted(fields.keys() - FIELDS)):
        line["dropped"] = dropped
    try:
        return _encoder.encode(line)
    except UnicodeEncodeError:  # a lone surrogate in a text: a line must never break its writer
        return _encoder.encode({name: _printable(value) for name, value in line.items()})


def _describe_exception(fields: EventDict) -> None:
    """`exc_info` → `error` (the types, cause by cause) and `where` (the innermost frames of the first)."""
    given = fields.pop("exc_info")
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["error"] = " < ".join(_types(error))
        fields["where"] = _where(error.__traceback__)


def _plain(value: object) -> str | int | float | bool:
    """Numbers, short texts, words of ours; anything else as its type alone, for its repr may show a secret."""
    if type(value) is str and len(value) <= TEXT_MAX:  # nearly all of them
        return value
    match value:
        case Enum():
            return _plain(value.value)
        case bool() | int() | float():
            return value
        case str():
            return value if len(value) <= TEXT_MAX else value[:TEXT_MAX] + "…"
        case datetime():
            return value.isoformat()
        case list() if value and all(isinstance(item, StrEnum) for item in value):
            return ",".join(value)
    return f"<{type(value).__name__}>"


def _types(error: BaseException | None) -> list[str]:
    names: list[str] = []
    while error is not None and len(names) < FRAMES_MAX:
        names.append(type(error).__name__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return names


def _where(trace: TracebackType | None) -> str:
    """`api/v1/orders.py:45 place < api/http/asgi.py:88 _handle`: where it was raised, and our own frames above it."""
    frames = list(walk_tb(trace))
    ours = [(frame, line) for frame, line in frames[:-1] if _is_ours(frame.f_code.co_filename)]
    shown = [*ours[1 - FRAMES_MAX :], *frames[-1:]]
    return " < ".join(f"{_file(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}" for frame, line in shown[::-1])


def _is_ours(name: str) -> bool:
    return Path(name).is_relative_to(_ROOT) and "site-packages" not in name


def _file(name: str) -> str:
    """Our files by their path in the tree, others by their last two parts."""
    return str(Path(name).relative_to(_ROOT)) if _is_ours(name) else "/".join(Path(name).parts[-2:])


def _printable(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


class _LibraryHandler(logging.Handler):
    """Library lines by level, logger and place. Their text may hold a URL, values of SQL or a job's arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        where = f"{record.module}:{record.lineno}"
        write = getattr(log, record.levelname.lower(), log.info)
        if record.exc_info and record.exc_info[1]:
            error = " < ".join(_types(record.exc_info[1]))
            write("library_logged", logger=record.name, where=f"{where} {_where(record.exc_info[2])}", error=error)
        else:
            write("library_logged", logger=record.name, where=where)
