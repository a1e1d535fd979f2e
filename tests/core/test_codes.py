"""Codes of another release: a known one is the member, an unknown one a text."""

from core.codes import read_code
from core.order import CaseReason
from core.reconciliation import Finding, is_difference


def test_a_code_is_read_as_its_member_and_an_unknown_one_as_it_stands() -> None:
    assert read_code(CaseReason, "paid_late") is CaseReason.PAID_LATE
    assert type(read_code(CaseReason, "of_tomorrow")) is str
    assert read_code(CaseReason, "of_tomorrow") == "of_tomorrow"


def test_a_finding_of_another_release_needs_a_person() -> None:
    assert is_difference("of_tomorrow")
    assert not is_difference(Finding.AGREES)
