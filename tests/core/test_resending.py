"""Notifications that may be sent again, and the preview of it."""

from datetime import UTC, datetime, timedelta

import pytest

from core.acts import Line, Preview
from core.deliveries import Chosen, Standing
from core.errors import InvalidRequest
from core.resending import (
    ENDPOINTS_SHOWN,
    check_choice,
    preview_many,
    preview_one,
    preview_pause,
    preview_resume,
    refusal_of,
    span_text,
)

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOOK = "https://shop.test/hook"


def keys(lines: tuple[Line, ...]) -> list[str]:
    assert all(line.text for line in lines), "each has its figures"
    return [line.key for line in lines]


def chosen(n: int = 1, *, is_paused: bool = False, endpoint: str = HOOK) -> Chosen:
    newest = AT + timedelta(hours=n)
    return Chosen(endpoint=endpoint, count=n, oldest_at=AT, newest_at=newest, is_paused=is_paused)


def one(standing: Standing) -> Preview:
    return preview_one("A-1", "order.paid", HOOK, standing, version=7)


@pytest.mark.parametrize(
    ("standing", "warnings", "refusal"),
    [
        (Standing(), [], None),
        (Standing(dead_at=AT), [], None),
        (Standing(delivered_at=AT), ["resend.delivered"], None),
        (Standing(superseded_at=AT), ["resend.superseded"], None),
        (Standing(delivered_at=AT, superseded_at=AT), ["resend.delivered", "resend.superseded"], None),
        (Standing(is_paused=True, is_held=True), ["resend.paused"], None),
        (Standing(is_under_way=True), [], "resend.under_way"),
        (Standing(is_erased=True, is_under_way=True), [], "resend.erased"),
    ],
)
def test_one_may_be_sent_again_unless_it_is_being_sent_or_erased(
    standing: Standing, warnings: list[str], refusal: str | None
) -> None:
    preview = one(standing)
    assert (keys(preview.lines), preview.version) == (["resend.one", "resend.attempts"], 7)
    assert keys(preview.warnings) == warnings
    assert (preview.refusal and preview.refusal.key) == refusal
    assert refusal_of(standing) == preview.refusal


def test_many_are_counted_with_their_times_and_endpoints() -> None:
    preview = preview_many([chosen(2), chosen(3, endpoint="https://b.test/", is_paused=True)], per_s=0.5, is_more=False)
    assert keys(preview.lines) == ["resend.many", "resend.times", "resend.endpoint", "resend.endpoint"]
    assert preview.lines[0].figures == {"count": 5, "span": "10 s", "per_s": "0.5"}
    assert preview.lines[1].figures == {"oldest": "2026-11-23 12:00:00Z", "newest": "2026-11-23 15:00:00Z"}
    assert [line.figures["endpoint"] for line in preview.lines[2:]] == ["https://b.test/", HOOK]
    assert (keys(preview.warnings), preview.is_possible) == (["resend.endpoint_paused"], True)


def test_of_many_endpoints_the_first_are_shown() -> None:
    many = [chosen(endpoint=f"https://{n}.test/") for n in range(ENDPOINTS_SHOWN + 2)]
    preview = preview_many(many, per_s=20, is_more=True)
    assert keys(preview.lines)[0] == "resend.many_more"
    assert preview.lines[-1] == Line("resend.other_endpoints", {"count": 2})
    assert keys(preview.lines).count("resend.endpoint") == ENDPOINTS_SHOWN


def test_none_is_nothing_to_do() -> None:
    preview = preview_many([], per_s=20, is_more=False)
    assert (preview.is_possible, preview.refusal) == (False, Line("resend.none"))


@pytest.mark.parametrize(
    ("is_dead_only", "endpoint", "since", "is_allowed"),
    [
        (True, None, None, True),
        (True, HOOK, AT, True),
        (False, HOOK, AT, True),
        (False, HOOK, None, False),
        (False, None, AT, False),
        (False, None, None, False),
    ],
)
def test_a_choice_is_of_dead_ones_or_has_an_endpoint_and_a_time(
    endpoint: str | None, since: datetime | None, *, is_dead_only: bool, is_allowed: bool
) -> None:
    if is_allowed:
        check_choice(is_dead_only=is_dead_only, endpoint=endpoint, since=since)
    else:
        with pytest.raises(InvalidRequest):
            check_choice(is_dead_only=is_dead_only, endpoint=endpoint, since=since)


def test_an_endpoint_is_paused_once() -> None:
    preview = preview_pause(HOOK, undelivered=3, paused_by=None, is_known=True)
    assert (keys(preview.lines), preview.warnings, preview.is_possible) == (
        ["endpoint.pause", "endpoint.keeps"],
        (),
        True,
    )
    preview = preview_pause(HOOK, undelivered=0, paused_by="kim", is_known=False)
    assert keys(preview.warnings) == ["endpoint.unknown"]
    assert preview.refusal == Line("endpoint.is_paused", {"by": "kim"})


def test_an_endpoint_that_is_paused_is_resumed() -> None:
    preview = preview_resume(HOOK, held=2000, per_s=20, is_paused=True)
    assert keys(preview.lines) == ["endpoint.resume", "endpoint.lets_go"]
    assert (preview.lines[1].figures["span"], preview.is_possible) == ("100 s", True)
    assert preview_resume(HOOK, held=0, per_s=20, is_paused=False).refusal == Line("endpoint.not_paused")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.2, "1 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (121.0, "3 min"),
        (7199.0, "120 min"),
        (9000.0, "3 h"),
    ],
)
def test_a_span_is_rounded_up(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
