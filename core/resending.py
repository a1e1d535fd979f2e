"""Sending notifications again: which a person may choose, and what to know before it is done.

The id and the bytes are always the same, so a receiver drops what it has, and what is older than what it knows. To send
something again is therefore never wrong, and sometimes pointless: then a warning says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from core.acts import Figure, Line, Preview
from core.deliveries import Chosen, NotificationState, Standing
from core.errors import InvalidRequest

ENDPOINTS_SHOWN = 5


def check_choice(*, is_dead_only: bool, endpoint: str | None, since: datetime | None) -> None:
    """All dead letters may be sent again, or all of one endpoint since a time: not all that ever was sent.

    Raises:
        InvalidRequest: names what is missing.
    """
    if not is_dead_only and (endpoint is None or since is None):
        raise InvalidRequest("name an endpoint and a time: all notifications for it since then are sent again")


def refusal_of(standing: Standing) -> Line | None:
    """The reason why one notification cannot be sent again now."""
    if standing.is_erased:
        return Line("resend.erased")
    return Line("resend.under_way") if standing.is_under_way else None


def preview_one(order_no: str, type_: str, endpoint: str, standing: Standing, *, version: int) -> Preview:
    """Sending one again. `version` is the arm number under which it is scheduled."""
    return Preview(
        lines=(
            Line("resend.one", {"type": type_, "order_no": order_no, "endpoint": endpoint}),
            Line("resend.attempts"),
        ),
        warnings=tuple(_warnings(standing)),
        refusal=refusal_of(standing),
        version=version,
    )


def preview_many(chosen: Sequence[Chosen], *, per_s: float, is_more: bool) -> Preview:
    """Sending many again, so many a second. `is_more`: there are more than were counted."""
    count = sum(each.count for each in chosen)
    if not count:
        return Preview(lines=(), refusal=Line("resend.none"))
    pace: Mapping[str, Figure] = {"count": count, "span": span_text(count / per_s), "per_s": f"{per_s:g}"}
    lines = [
        Line("resend.many_more" if is_more else "resend.many", pace),
        Line("resend.times", {"oldest": _text(min(each.oldest_at for each in chosen)), "newest": _newest(chosen)}),
        *(Line("resend.endpoint", {"count": each.count, "endpoint": each.endpoint}) for each in _shown(chosen)),
    ]
    if len(chosen) > ENDPOINTS_SHOWN:
        lines.append(Line("resend.other_endpoints", {"count": len(chosen) - ENDPOINTS_SHOWN}))
    paused = [each for each in _shown(chosen) if each.is_paused]
    warnings = tuple(Line("resend.endpoint_paused", {"endpoint": each.endpoint}) for each in paused)
    return Preview(lines=tuple(lines), warnings=warnings)


def preview_pause(endpoint: str, *, undelivered: int, paused_by: str | None, is_known: bool) -> Preview:
    """Sending nothing to an endpoint any more. `is_known`: it has received notifications, or some are for it."""
    return Preview(
        lines=(Line("endpoint.pause", {"endpoint": endpoint}), Line("endpoint.keeps", {"count": undelivered})),
        warnings=() if is_known else (Line("endpoint.unknown"),),
        refusal=None if paused_by is None else Line("endpoint.is_paused", {"by": paused_by}),
    )


def preview_resume(endpoint: str, *, held: int, per_s: float, is_paused: bool) -> Preview:
    """Ending the pause of an endpoint."""
    pace: Mapping[str, Figure] = {"count": held, "span": span_text(held / per_s), "per_s": f"{per_s:g}"}
    return Preview(
        lines=(Line("endpoint.resume", {"endpoint": endpoint}), Line("endpoint.lets_go", pace)),
        refusal=None if is_paused else Line("endpoint.not_paused"),
    )


def span_text(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h`: how long something takes, rounded up."""
    for unit, unit_s in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * unit_s:
            return f"{_rounded_up(seconds / unit_s)} {unit}"
    return f"{_rounded_up(seconds)} s"


def _rounded_up(number: float) -> int:
    return int(-(-number // 1))


def _warnings(standing: Standing) -> Iterator[Line]:
    if standing.state is NotificationState.DELIVERED:
        yield Line("resend.delivered")
    if standing.superseded_at is not None:
        yield Line("resend.superseded")
    if standing.is_paused:
        yield Line("resend.paused")


def _shown(chosen: Sequence[Chosen]) -> Sequence[Chosen]:
    return sorted(chosen, key=lambda each: (-each.count, each.endpoint))[:ENDPOINTS_SHOWN]


def _newest(chosen: Sequence[Chosen]) -> str:
    return _text(max(each.newest_at for each in chosen))


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
