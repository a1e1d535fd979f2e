"""Progress on standard error: one line that changes on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_EVERY_S = 5.0
_BAR = 30


class Progress:
    """Shows messages and a progress bar. On a terminal the bar is the last line, below the messages."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._began = self._shown_at = time.monotonic()
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._clear()

    def write(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", file=sys.stderr, flush=True)
        self._draw()

    def update(self, label: str, done: int, total: int, note: str) -> None:
        """Show the bar at `done` of `total`."""
        filled = _BAR * done // max(1, total)
        self._line = f"          {label} [{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}  {note}"
        now = time.monotonic()
        if self._is_terminal:
            self._clear()
            self._draw()
        elif now - self._shown_at >= _EVERY_S or done == total:
            self._shown_at = now
            print(self._line, file=sys.stderr, flush=True)

    def end_bar(self) -> None:
        """Take the bar away, so that something else may be printed."""
        self._clear()
        self._line = ""

    def _clear(self) -> None:
        if self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr)

    def _draw(self) -> None:
        if self._is_terminal:
            print(self._line, end="", file=sys.stderr, flush=True)
