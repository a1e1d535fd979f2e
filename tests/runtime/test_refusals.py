"""Refused callbacks that a process notes: copies once, a bounded number, and all of them counted."""

from collections import Counter

import pytest
from structlog.testing import capture_logs

from core.errors import CallbackForged, CallbackStale, UnknownAccount
from core.refusals import NO_ACCOUNT, Verdict
from runtime import refusals as module
from runtime.refusals import NOTED_MAX, NOTED_OF_ACCOUNT_MAX, NOTED_OF_NONE_MAX, Refusals

FORGED, STALE = CallbackForged("signature"), CallbackStale()


def note(refusals: Refusals, account: str, body: bytes, error: CallbackForged | CallbackStale = FORGED) -> None:
    refusals.note(account, error, {}, body, "203.0.113.9")


def test_copies_are_noted_once_and_taken_once() -> None:
    refusals = Refusals()
    for body in (b"one", b"one", b"other"):
        note(refusals, "main", body)
    note(refusals, "main", b"one", STALE)
    noted = refusals.take()
    assert [(row.verdict, row.body_start, row.copies) for row in noted.rows] == [
        (Verdict.FORGED, b"one", 2),
        (Verdict.FORGED, b"other", 1),
        (Verdict.STALE, b"one", 1),
    ]
    assert noted.counts == {("main", Verdict.FORGED): 3, ("main", Verdict.STALE): 1}
    assert refusals.take() == ([], Counter())


def test_a_flood_at_one_account_leaves_room_for_another() -> None:
    refusals = Refusals()
    for n in range(10 * NOTED_MAX):
        note(refusals, "main", b"%d" % n)
    note(refusals, "other", b"one")
    noted = refusals.take()
    assert Counter(row.account for row in noted.rows) == {"main": NOTED_OF_ACCOUNT_MAX, "other": 1}
    assert noted.counts == {("main", Verdict.FORGED): 10 * NOTED_MAX, ("other", Verdict.FORGED): 1}


def test_a_flood_at_many_accounts_is_bounded_in_all() -> None:
    refusals = Refusals()
    for n in range(3 * NOTED_MAX):
        note(refusals, f"a-{n % 30}", b"%d" % n)
    assert len(refusals.take().rows) == NOTED_MAX


def test_made_up_accounts_have_one_count_and_little_room() -> None:
    refusals = Refusals()
    for n in range(1000):
        refusals.note(f"made-up-{n}", UnknownAccount(), {}, b"%d" % n, "")
    noted = refusals.take()
    assert len(noted.rows) == NOTED_OF_NONE_MAX
    assert noted.counts == {(NO_ACCOUNT, Verdict.UNKNOWN_ACCOUNT): 1000}


def test_counts_that_could_not_be_written_are_kept() -> None:
    refusals = Refusals()
    note(refusals, "main", b"one")
    counts = refusals.take().counts
    note(refusals, "main", b"two")
    refusals.put_back(counts)
    assert refusals.take().counts == {("main", Verdict.FORGED): 2}


def test_a_bug_in_noting_does_not_reach_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "refused_callback", broken)
    with capture_logs() as lines:
        note(Refusals(), "main", b"one")
    assert [line["event"] for line in lines] == ["refusal_not_noted"]
