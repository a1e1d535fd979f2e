"""Answers that fit a case."""

import pytest

from core.case_choices import CHOICES, Choice, choices_for
from core.order import CaseReason


@pytest.mark.parametrize("reason", CaseReason)
def test_every_case_can_be_answered_by_a_note(reason: CaseReason) -> None:
    assert choices_for(reason)[-1] is Choice.NOTE
    assert len(set(CHOICES[reason])) == len(CHOICES[reason])


def test_late_money_is_accepted_or_refunded_and_unknown_money_attached() -> None:
    assert choices_for("paid_late") == (Choice.ACCEPT, Choice.REFUND, Choice.NOTE)
    assert choices_for("double_payment") == (Choice.REFUND, Choice.NOTE)
    assert choices_for("unknown_order") == (Choice.ATTACH, Choice.NOTE)
    assert [reason for reason in CaseReason if Choice.ACCEPT in CHOICES[reason]] == [CaseReason.PAID_LATE]


def test_without_an_order_nothing_is_queried_or_refunded() -> None:
    assert choices_for("callback_unreadable", has_order=False) == (Choice.NOTE,)
    assert choices_for("unknown_order", has_order=False) == (Choice.ATTACH, Choice.NOTE)


def test_a_case_of_another_version_can_be_noted() -> None:
    assert choices_for("of_next_year") == (Choice.NOTE,)


def test_a_choice_that_waits_for_the_channel_ends_no_case() -> None:
    assert {choice for choice in Choice if choice.ends_case} == {Choice.NOTE, Choice.ACCEPT, Choice.ATTACH}
