"""Genuine callbacks about payments that are unknown here: how long they are looked for, and what then follows."""

import pytest

from core.backoff import Backoff
from core.evidence import UNREADABLE, Evidence, Paid, Unclear
from core.lifecycle.unknown import case_of_unknown, is_unreadable, next_look_s
from core.order import CaseReason

OURS = "019aaf3c1a2b6f0d8e1c2b3a4958"
DAY_S = 86_400.0
BACKOFF = Backoff()


def paid(number: str, *ids: str) -> Paid:
    return Paid(
        channel_account="main", out_trade_no=number, ids=ids, amount=1, currency="CNY", channel_transaction_id="t-1"
    )


@pytest.mark.parametrize(
    ("attempt", "kept_for_s", "wait_s"),
    [
        (1, DAY_S, 240.0),
        (2, DAY_S, 540.0),
        (14, 3600.0, 3600.0),
        (15, 1.0, 1.0),
        (15, DAY_S, 256 * 60.0),
        (16, DAY_S, DAY_S),
        (40, 5.0, 5.0),
        (1, 0.0, None),
        (1, -0.5, None),
    ],
)
def test_a_payment_is_looked_for_after_n_squared_minutes_and_when_the_day_ends(
    attempt: int, kept_for_s: float, wait_s: float | None
) -> None:
    assert next_look_s(BACKOFF, attempt, "key", kept_for_s=kept_for_s) == wait_s


def test_a_day_scales_with_the_unit_of_the_back_off() -> None:
    assert (BACKOFF.day_s, Backoff(unit_s=0.1).day_s) == (DAY_S, 144.0)


@pytest.mark.parametrize(
    ("evidence", "is_exclusive", "case"),
    [
        (paid(OURS), False, CaseReason.UNKNOWN_ORDER),
        (paid("1001", OURS), False, CaseReason.UNKNOWN_ORDER),
        (paid("ORD #1001"), False, None),
        (paid("0123456789abcdef"), False, None),
        (paid(OURS.upper()), False, None),
        (paid("ORD #1001"), True, CaseReason.UNKNOWN_ORDER),
        (paid("1001", "2026112322001400000000000001"), False, None),
        (paid("1001", "4200000000202611230000000001"), False, None),
        (Unclear(channel_account="main", out_trade_no="combined-1", reason="other_form"), False, None),
    ],
)
def test_what_stays_unknown_is_a_case_if_it_can_be_ours(
    evidence: Evidence, is_exclusive: bool, case: CaseReason | None
) -> None:
    assert case_of_unknown(evidence, is_exclusive=is_exclusive) is case


def test_an_unreadable_callback_is_told_from_a_question() -> None:
    question = Unclear(channel_account="main", out_trade_no="1001", reason="refund_notice")
    unreadable = Unclear(channel_account="main", out_trade_no="", reason=UNREADABLE)
    assert [is_unreadable(each) for each in (paid("1001"), question, unreadable)] == [False, False, True]
