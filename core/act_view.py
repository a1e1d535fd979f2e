"""Previews of acts as JSON has them: in responses, in problems, and on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from core.acts import Figure, Line, Preview, Sum


class SumView(msgspec.Struct, frozen=True, kw_only=True):
    """An amount in minor units."""

    amount: int
    currency: str


class LineView(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence about an act: a stable key with its figures, and the same in English."""

    key: str
    figures: Mapping[str, str | int | SumView]
    text: str


class PreviewView(msgspec.Struct, frozen=True, kw_only=True):
    """Effects of an act as things stand. `refusal` not null: it cannot be done, and why.

    `version` is the order's version that it was computed on.
    """

    possible: bool
    lines: Sequence[LineView]
    warnings: Sequence[LineView]
    refusal: LineView | None
    version: int | None


def view_preview(preview: Preview) -> PreviewView:
    return PreviewView(
        possible=preview.is_possible,
        lines=[view_line(line) for line in preview.lines],
        warnings=[view_line(line) for line in preview.warnings],
        refusal=None if preview.refusal is None else view_line(preview.refusal),
        version=preview.version,
    )


def view_line(line: Line) -> LineView:
    figures = {name: _view_figure(figure) for name, figure in line.figures.items()}
    return LineView(key=line.key, figures=figures, text=line.text)


def _view_figure(figure: Figure) -> str | int | SumView:
    if isinstance(figure, Sum):
        return SumView(amount=figure.amount, currency=figure.currency)
    return figure if isinstance(figure, int) else str(figure)
