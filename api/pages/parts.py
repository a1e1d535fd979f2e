"""Small parts of pages: texts with values in them, and times. All that comes in is escaped here."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape


def fill(text: str, **values: str) -> str:
    """A text as HTML, with these values isolated: a name that is written from right to left turns nothing around it."""
    return escape(text).format(**{name: f"<bdi>{escape(value)}</bdi>" for name, value in values.items()})


def fill_html(text: str, **parts: str) -> str:
    """A text as HTML, with parts that are HTML already."""
    return escape(text).format(**parts)


def clock_time(at: datetime, now: datetime | None = None, *, counts_down: bool = False) -> str:
    """A time in UTC, marked so: "14:05 UTC" on the day of `now`, else "2026-11-27 14:05 UTC". The script shows the
    reader's own time, and counts down.
    """
    utc = at.astimezone(UTC)
    is_today = now is not None and utc.date() == now.astimezone(UTC).date()
    text = f"{utc:%H:%M}" if is_today else f"{utc:%Y-%m-%d %H:%M}"
    mark = " data-countdown" if counts_down else ""
    return f'<time{mark} datetime="{utc_text(utc)}">{text} UTC</time>'


def utc_text(at: datetime) -> str:
    """The instant as HTML has it: 2026-11-27T14:05:00Z."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
