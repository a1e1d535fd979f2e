"""The record of an attempt, and where a notification stands."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.deliveries import ANSWER_BYTES_MAX, Attempt, NotificationState, Standing, endpoint_of, readable

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("standing", "state", "is_waiting"),
    [
        (Standing(), NotificationState.UNDELIVERED, True),
        (Standing(is_held=True), NotificationState.QUEUED, True),
        (Standing(is_paused=True), NotificationState.PAUSED, False),
        (Standing(is_held=True, is_paused=True), NotificationState.PAUSED, False),
        (Standing(dead_at=AT), NotificationState.DEAD, False),
        (Standing(dead_at=AT, is_paused=True), NotificationState.DEAD, False),
        (Standing(superseded_at=AT), NotificationState.SUPERSEDED, False),
        (Standing(superseded_at=AT, dead_at=AT), NotificationState.SUPERSEDED, False),
        (Standing(superseded_at=AT, resending_since=AT), NotificationState.SUPERSEDED, True),
        (Standing(delivered_at=AT), NotificationState.DELIVERED, False),
        (Standing(delivered_at=AT, superseded_at=AT), NotificationState.DELIVERED, False),
        (Standing(delivered_at=AT, resending_since=AT), NotificationState.DELIVERED, True),
        (Standing(delivered_at=AT, resending_since=AT, is_paused=True), NotificationState.DELIVERED, False),
    ],
)
def test_a_notification_stands_where_its_times_say(
    standing: Standing, state: NotificationState, *, is_waiting: bool
) -> None:
    assert (standing.state, standing.is_waiting) == (state, is_waiting)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://shop.test/hook", "https://shop.test/hook"),
        ("https://shop.test/hook?order=1#top", "https://shop.test/hook"),
        ("https://shop.test/hook#top?x", "https://shop.test/hook"),
        ("https://shop.test:8443?order=1", "https://shop.test:8443"),
        ("", ""),
    ],
)
def test_an_endpoint_is_a_url_without_what_changes(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"ok", "ok"),
        ("täglich 茶".encode(), "täglich 茶"),
        (b"no\r\nway\t!\n", "no  way !"),
        (b"\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        (b"\xff\xfeA\x00", "\ufffd\ufffdA\ufffd"),
        ("\u202eabc".encode(), "\ufffdabc"),
    ],
)
def test_an_answer_is_one_line_that_steers_nothing(answer: bytes, text: str) -> None:
    assert readable(answer) == text


@given(st.binary(max_size=2 * ANSWER_BYTES_MAX))
def test_any_answer_is_short_and_printable(answer: bytes) -> None:
    text = readable(answer)
    assert text.isprintable()
    assert len(text) <= ANSWER_BYTES_MAX


@pytest.mark.parametrize(("status", "ok"), [("200", True), ("204", True), ("302", False), ("2", False), ("", False)])
def test_a_2xx_is_an_acknowledgement(status: str, *, ok: bool) -> None:
    assert Attempt(no=1, at=AT, latency_ms=3, status=status).ok is ok


def test_the_record_of_the_usual_attempt_is_short() -> None:
    """It is written with every order."""
    usual = Attempt(no=1, at=AT, latency_ms=3, status="200")
    assert msgspec.json.encode(usual) == b'{"no":1,"at":"2026-11-23T12:00:00Z","latency_ms":3,"status":"200"}'
    assert msgspec.json.decode(msgspec.json.encode(usual), type=Attempt) == usual
