"""Logs of every process: JSON lines with allow-listed fields, so that no secret and no personal data get in by mistake.

A line names what happened and which order; exceptions are a type and a place in the code, never their message, which
may hold a value. Lines of libraries keep their level and place and lose their text for the same reason.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from datetime import datetime
from enum import Enum, StrEnum
from pathlib import Path
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
    # why, in words of ours
    " reason policy wanted mode name state type of".split()
)
"""Ask before adding: who can put what into it? Addresses, tokens, keys, headers, bodies, subjects and URLs never."""

TEXT_MAX = 400
FRAMES_MAX = 6

_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_ROOT = Path(__file__).parent.parent
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure_logs(level: str, stream: BinaryIO | None = None) -> None:
    """Send our lines and the libraries' to `stream`, else standard output. Called once, before anything logs."""
    number = _LEVELS.get(level.lower(), logging.INFO)
    out = stream or sys.stdout.buffer
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            describe_exception,
            keep_allowed(is_debug=number <= logging.DEBUG),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    # At info, libraries log each of their steps; our own lines cover those.
    root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else logging.INFO)


def describe_exception(_logger: object, _name: str, line: EventDict) -> EventDict:
    """`exc_info` → `error` (the types, cause by cause) and `where` (the innermost frames of the first)."""
    given = line.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        line["error"] = " < ".join(_types(error))
        line["where"] = _where(error.__traceback__)
    return line


def keep_allowed(*, is_debug: bool) -> Callable[[object, str, EventDict], EventDict]:
    """A processor that drops every field that is not allowed. In debug the line names what it dropped, no values."""

    def keep(_logger: object, _name: str, line: EventDict) -> EventDict:
        kept: EventDict = {name: _plain(value) for name, value in line.items() if value is not None and name in FIELDS}
        event = line.get("event")
        kept["event"] = event if isinstance(event, str) and _EVENT.fullmatch(event) else "event_unnamed"
        if is_debug and (dropped := sorted(set(line) - FIELDS)):
            kept["dropped"] = dropped
        return kept

    return keep


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


_encoder = msgspec.json.Encoder()
_FIRST = ("at", "level", "event")


def _render(_logger: object, _name: str, line: EventDict) -> bytes:
    """`at`, `level` and `event` first, so that people can read it too."""
    ordered = {**{name: line[name] for name in _FIRST if name in line}, **line}
    try:
        return _encoder.encode(ordered)
    except UnicodeEncodeError:  # a lone surrogate in a text: a line must never break its writer
        return _encoder.encode({name: _printable(value) for name, value in ordered.items()})


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
