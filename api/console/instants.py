"""Days of filters as instants."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from core.errors import InvalidRequest


def midnight(day: date | None, *, days: int = 0) -> datetime | None:
    """The beginning of the day in UTC, so many days later; None for none. Raises InvalidRequest."""
    if day is None:
        return None
    try:
        return datetime.combine(day, time(), UTC) + timedelta(days=days)
    except OverflowError:
        raise InvalidRequest("a day is in the years 1 to 9998") from None
