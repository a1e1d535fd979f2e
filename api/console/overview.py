"""The overview, and the figures of one account: what happened in a span of time, and what is open now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import msgspec
from markupsafe import Markup

from api.console import certificates, charts
from api.console.charts import Series, Words
from api.console.render import fragment, render
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.errors import NotFound
from core.order import ACCOUNT_NAME
from core.rollups import SPANS, Step
from flows.ending import find_certificates
from flows.overview import AccountOverview, BucketFigures, Overview, PaidFigures, read_account, read_overview
from storage.postgres.accounts import list_accounts
from storage.postgres.live import AGE_BOUNDS_S, ATTEMPT_BOUNDS

_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60


class SpanQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The span of time of a page."""

    span: Literal["1h", "24h", "7d", "30d", "90d"] = "1h"


async def show(context: Context, visit: Visit) -> Reply:
    """The page, complete without a script."""
    query, seen = await _read(context, visit)
    return render(
        visit, "overview/show.html", title=_text(visit, "overview.title"), span=query.span, **_parts(visit, seen)
    )


async def live(context: Context, visit: Visit) -> Reply:
    """The parts of the page that change, for its script."""
    query, seen = await _read(context, visit)
    return fragment(visit, "overview/live.html", span=query.span, **_parts(visit, seen))


async def account(context: Context, visit: Visit) -> Reply:
    """One account. Its name is enough: it may have been removed, and its figures stay."""
    name, query = visit.params["name"], visit.read_query(SpanQuery)
    if ACCOUNT_NAME.fullmatch(name) is None:
        raise NotFound("no account has such a name")
    seen = await read_account(context.resources, name, SPANS[query.span])
    row = next((row for row in await list_accounts(visit.db) if row.name == name), None)
    return render(
        visit,
        "overview/account.html",
        title=name,
        span=query.span,
        certificates=await find_certificates(context.resources, name),
        mark_kinds=certificates.KINDS,
        is_enabled=None if row is None else row.enabled,
        **_account_parts(visit, seen),
    )


async def _read(context: Context, visit: Visit) -> tuple[SpanQuery, Overview]:
    """One reading for all who look at the same span at the same time."""
    query = visit.read_query(SpanQuery)
    span = SPANS[query.span]
    return query, await context.overviews.run(query.span, partial(read_overview, context.resources, span))


# -- the values of the templates ---------------------------------------------------------------------------------------


def _parts(visit: Visit, seen: Overview) -> dict[str, Any]:
    draw = _Drawing(visit, seen.buckets, seen.step_s)
    return {
        "seen": seen,
        "spans": list(SPANS),
        "means": _means(visit, seen.paid),
        "attempts": list(zip(_ranges(ATTEMPT_BOUNDS), seen.live.queries.by_attempt, strict=True)),
        "ages": list(zip(_slots(visit, AGE_BOUNDS_S), seen.live.queries.by_age, strict=True)),
        "charts": [
            draw.stacked(
                "paid", list(seen.paid.by), lambda source, bucket: bucket.by.get(source, 0), name_of=_source(visit)
            ),
            draw.lines("orders", {"placed": "placed", "paid": "paid", "closed": "closed"}),
            draw.stacked("lost", ["unheard"], lambda _, bucket: bucket.unheard),
            draw.histogram("repair", seen.histogram_s, seen.repaired_slots, "payments"),
            draw.lines("calls", {"calls": "calls", "calls_unanswered": "unanswered"}),
            draw.lines("notified", {"delivered": "delivered", "dead": "dead"}),
        ],
    }


def _account_parts(visit: Visit, seen: AccountOverview) -> dict[str, Any]:
    draw = _Drawing(visit, seen.buckets, seen.step_s)
    return {
        "seen": seen,
        "spans": list(SPANS),
        "means": _means(visit, seen.figures.paid),
        "charts": [
            draw.stacked(
                "paid",
                list(seen.figures.paid.by),
                lambda source, bucket: bucket.by.get(source, 0),
                name_of=_source(visit),
            ),
            draw.lines("heard", {"paid": "paid", "callbacks": "callbacks", "unheard": "unheard"}),
            draw.lines("calls", {"calls": "calls", "calls_unanswered": "unanswered"}),
            draw.histogram("latency", seen.call_histogram_s, seen.call_slots, "calls"),
            draw.histogram("speed", seen.histogram_s, seen.paid_slots, "payments"),
        ],
    }


def _means(visit: Visit, paid: PaidFigures) -> list[tuple[str, str]]:
    """The means by which payments became known, in the reader's words, the most frequent first."""
    name_of = _source(visit)
    return [(name_of(word), f"{count:,}") for word, count in paid.by.items()]


class _Drawing:
    """Charts over the buckets of a span."""

    def __init__(self, visit: Visit, buckets: Sequence[BucketFigures], step_s: int) -> None:
        self._visit = visit
        self._buckets = buckets
        self._places = [_place(bucket.at, step_s) for bucket in buckets]

    def words(self, place: str = "") -> Words:
        return Words(
            table=_text(self._visit, "overview.as_table"),
            place=place or _text(self._visit, "overview.time_utc"),
            empty=_text(self._visit, "overview.nothing"),
        )

    def stacked(
        self,
        name: str,
        keys: Sequence[str],
        value: Callable[[str, BucketFigures], float],
        *,
        name_of: Callable[[str], str] | None = None,
    ) -> Markup:
        """Bars of these keys; `chart_NAME` is the title and `chart_NAME_about` the description."""
        series = [
            Series(
                name_of(key) if name_of else _text(self._visit, f"overview.{key}"),
                [value(key, bucket) for bucket in self._buckets],
            )
            for key in keys
        ]
        return charts.stacked(name, *self._titles(name), self._places, series, self.words())

    def lines(self, name: str, fields: dict[str, str]) -> Markup:
        """Lines of these fields of the buckets, each with the key of its text."""
        series = [
            Series(_text(self._visit, f"overview.{key}"), [getattr(bucket, field) for bucket in self._buckets])
            for field, key in fields.items()
        ]
        return charts.lines(name, *self._titles(name), self._places, series, self.words())

    def histogram(self, name: str, bounds_s: Sequence[float], counts: Sequence[int], unit: str) -> Markup:
        """Bars of durations, whose `counts` are of the `unit`, the key of a text."""
        label, words = _text(self._visit, f"overview.{unit}"), self.words(_text(self._visit, "overview.duration"))
        return charts.histogram(name, *self._titles(name), _slots(self._visit, bounds_s), counts, label, words)

    def _titles(self, name: str) -> tuple[str, str]:
        return _text(self._visit, f"overview.chart_{name}"), _text(self._visit, f"overview.chart_{name}_about")


def _text(visit: Visit, key: str) -> str:
    return visit.language.texts[key]


def _source(visit: Visit) -> Callable[[str], str]:
    """The name of what brought the news; a word of another release stands for itself."""
    texts = visit.language.texts
    return lambda word: texts.get(f"overview.by_{word}", word)


def _place(at: datetime, step_s: int) -> str:
    """`18:05`, or `11-27` where a bucket is a day, or both where an hour is one of a week."""
    utc = at.astimezone(UTC)
    if step_s == Step.DAY:
        return f"{utc:%m-%d}"
    return f"{utc:%H:%M}" if step_s == Step.MINUTES else f"{utc:%m-%d %H:%M}"


def _ranges(bounds: Sequence[int]) -> list[str]:
    """(2, 5) → ["1", "2–4", "5…"]."""
    middle = [f"{low}\u2013{high - 1}" for low, high in pairwise(bounds)]
    return [f"{bounds[0] - 1}", *middle, f"\u2265 {bounds[-1]}"]


def _slots(visit: Visit, bounds: Sequence[float]) -> list[str]:
    """(1, 60) → ["< 1 s", "1 s – 1 min", "≥ 1 min"], each named by its lower bound alone where there are many."""
    names = [_bound(visit, bound) for bound in bounds]
    return [f"< {names[0]}", *(f"\u2265 {name}" for name in names)]


def _bound(visit: Visit, seconds: float) -> str:
    texts = visit.language.texts
    for unit, size in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S), ("s", 1)):
        if seconds >= size:
            return texts[f"time.{unit}"].format(n=f"{seconds / size:g}")
    return texts["time.ms"].format(n=f"{seconds * 1000:g}")
