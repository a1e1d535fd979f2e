"""Spans of time on the command line, `30m`, `12h`, `90d`, and instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DIGITS_MAX = 6
SPAN_MAX = timedelta(days=36_500)


def span_of(text: str) -> timedelta | None:
    """The span that a text says; None if it says none."""
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and len(number) <= DIGITS_MAX and unit in UNITS_S:
        return timedelta(seconds=int(number) * UNITS_S[unit])
    return None


class Span(click.ParamType[timedelta]):
    """`12h` or `90d`, more than nothing and less than a century."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        span = span_of(str(value))
        if span is None or not timedelta(0) < span <= SPAN_MAX:
            self.fail("write a span like 12h or 90d, a century at most", param, ctx)
        return span


class Since(click.ParamType[timedelta | datetime]):
    """`2h` ago, or an instant in ISO 8601, UTC unless it says otherwise."""

    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta | datetime:
        text = str(value)
        if (span := span_of(text)) is not None:
            return span
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail("write 30m, 2h or 7d, or an instant: 2026-11-23 or 2026-11-23T04:30:00+08:00", param, ctx)
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
