"""Acts over HTTP: previews as they are shown, and the row in the audit that a handler writes before it acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from api.context import Context
from core.acts import REASON_MAX, Figure, Line, Preview, Sum
from storage.postgres.api_keys import acting_key
from storage.postgres.audit import Act, Via, write_act

Reason = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=REASON_MAX,
        description="Why; kept with the act for those who read it later. No channel sees it.",
        examples=["One cup was broken"],
    ),
]
ExpectedVersion = Annotated[
    int, Meta(ge=1, description="The order's version that you looked at: with another one nothing is done.")
]
CaseVersion = Annotated[int, Meta(ge=1, le=2**31 - 1, description="The case's version, as it was seen.")]
DryRun = Annotated[bool, Meta(description="Say what it would do, and do nothing.")]


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


async def record(context: Context, action: str, subject: str, **detail: object) -> None:
    """Write the act down before it is done, by the API key of the request. Raises DatabaseUnavailable."""
    given = {name: value for name, value in detail.items() if value not in (None, "")}
    act = Act(by=actor(), via=Via.API, action=action, subject=subject, detail=given)
    await write_act(context.resources.db, act)


def actor() -> str:
    """Id of the API key that acts."""
    return acting_key.get() or "api"
