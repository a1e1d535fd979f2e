"""Spans of time on the command line: `30m`, `12h`, `90d`."""

from __future__ import annotations

from datetime import timedelta

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
