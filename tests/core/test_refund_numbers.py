"""The channel's own number of a refund: kept with the first answer that has one, never replaced, and told."""

import msgspec
import pytest

from core.decision import Decision, Outcome, applied
from core.evidence import Evidence, Refunded, Source, Unclear
from core.lifecycle import (
    RefundRequest,
    known_refund,
    on_callback,
    on_query,
    on_refund,
    on_refund_requested,
    with_refund_number,
)
from core.order import CaseReason, OrderState, Refund, RefundReason, RefundStatus
from tests.core.states import (
    ALIPAY,
    NOW,
    RULES,
    a_refund,
    a_state,
    closed_order,
    order_after,
    paid,
    paid_order,
    paid_payment,
    refunded,
)

THERE = "re_1Nispe2eZvKYlo2Cd31jOCgZ"
OTHER = "re_2"
PROCESSING, SUCCEEDED, FAILED = RefundStatus.PROCESSING, RefundStatus.SUCCEEDED, RefundStatus.FAILED


def state_of(*refunds: Refund, refunded_amount: int = 0) -> OrderState:
    return a_state(closed_order(), paid_payment(refunded_amount=refunded_amount), refunds=refunds)


def answer(state: OrderState, status: RefundStatus | None, number: str | None = THERE) -> Decision:
    return on_refund(state, state.refunds[-1].refund_no, status, RULES, channel_refund_no=number)


def after(state: OrderState, decision: Decision) -> OrderState:
    return state if decision.change is None else applied(state, decision.change)


def told(state: OrderState, number: str = THERE) -> Evidence:
    """Evidence of all refunds that is no news but for the number of the last refund."""
    numbers = {state.refunds[-1].refund_no: number}
    return refunded(amount=8888, refunded_amount=state.payments[0].refunded_amount, refund_numbers=numbers)


def second_numbers(decision: Decision) -> list[str]:
    cases = () if decision.change is None else decision.change.cases
    return [str(case.detail) for case in cases if case.reason is CaseReason.NUMBER_REUSED]


@pytest.mark.parametrize("status", [PROCESSING, SUCCEEDED, FAILED])
def test_the_answer_to_a_refund_brings_its_number(status: RefundStatus) -> None:
    state = state_of(a_refund())
    moved = after(state, answer(state, status)).refunds[-1]
    assert (moved.status, moved.channel_refund_no) == (status, THERE)


def test_an_answer_without_a_number_is_as_good() -> None:
    state = state_of(a_refund())
    assert after(state, answer(state, SUCCEEDED, None)).refunds[-1].channel_refund_no is None


def test_the_merchant_is_notified_of_the_number() -> None:
    decision = answer(state_of(a_refund()), SUCCEEDED)
    assert decision.change is not None
    assert decision.change.notification is not None
    body = msgspec.json.decode(decision.change.notification.body)
    assert body["data"]["refund"]["channel_refund_no"] == THERE


def test_a_number_that_comes_later_is_recorded_once_and_kept() -> None:
    state = after(state_of(a_refund()), answer(state_of(a_refund()), PROCESSING, None))
    later = answer(state, PROCESSING)
    assert later.change is not None
    state = after(state, later)
    assert state.refunds[-1].channel_refund_no == THERE
    for number in (THERE, None):
        repeated = answer(state, PROCESSING, number)
        assert (repeated.change, repeated.observation is not None) == (None, True)
    assert after(state, answer(state, SUCCEEDED, None)).refunds[-1].channel_refund_no == THERE


@pytest.mark.parametrize("status", [PROCESSING, SUCCEEDED, FAILED])
def test_a_second_number_of_one_refund_is_a_case_and_changes_nothing_else(status: RefundStatus) -> None:
    state = state_of(a_refund(status=PROCESSING, channel_refund_no=THERE))
    decision = answer(state, status, OTHER)
    assert second_numbers(decision) == [f"refund ralipay-000001 is {THERE} and {OTHER} there"]
    assert decision.outcome is answer(state, status).outcome
    assert order_after(decision).version == state.order.version + 1
    refund = after(state, decision).refunds[-1]
    assert (refund.status, refund.channel_refund_no) == (status, THERE)


def test_a_second_number_opens_one_case() -> None:
    state = state_of(a_refund(status=PROCESSING, channel_refund_no=THERE))
    state = after(state, answer(state, PROCESSING, OTHER))
    assert (ALIPAY, CaseReason.NUMBER_REUSED) in state.open_cases
    assert answer(state, PROCESSING, OTHER).change is None


@pytest.mark.parametrize("status", [PROCESSING, SUCCEEDED])
def test_evidence_brings_the_number_of_a_refund_that_lacks_it(status: RefundStatus) -> None:
    """A refund that was done before its number was kept, or whose number only a notice has."""
    settled_at = NOW if status is SUCCEEDED else None
    state = state_of(a_refund(status=status, settled_at=settled_at), refunded_amount=8888)
    decision = on_query(state, ALIPAY, told(state), RULES, Source.REFRESH)
    assert decision.outcome is Outcome.REFUND_SEEN
    assert decision.observation is None
    refund = after(state, decision).refunds[-1]
    assert (refund.status, refund.channel_refund_no) == (status, THERE)
    repeated = on_query(after(state, decision), ALIPAY, told(state), RULES, Source.REFRESH)
    assert (repeated.outcome, repeated.change) == (Outcome.NOTHING_NEW, None)


def test_a_callback_brings_it_with_what_else_it_says() -> None:
    state = state_of(a_refund(amount=1000, status=PROCESSING), refunded_amount=0)
    evidence = refunded(refunded_amount=1000, refund_numbers={"ralipay-000001": THERE})
    decision = on_callback(state, ALIPAY, evidence, RULES, Source.CALLBACK)
    assert decision.outcome is Outcome.REFUND_SEEN
    assert after(state, decision).refunds[-1].channel_refund_no == THERE
    assert after(state, decision).payments[0].refunded_amount == 1000


def test_a_refund_that_is_only_requested_waits_for_its_own_answer() -> None:
    """Its row would be written as a new one."""
    state = state_of(a_refund(), refunded_amount=8888)
    assert on_query(state, ALIPAY, told(state), RULES, Source.REFRESH).change is None


def test_evidence_with_a_second_number_is_a_case() -> None:
    refund = a_refund(status=SUCCEEDED, settled_at=NOW, channel_refund_no=THERE)
    state = state_of(refund, refunded_amount=8888)
    decision = on_query(state, ALIPAY, told(state, OTHER), RULES, Source.REFRESH)
    assert len(second_numbers(decision)) == 1
    assert after(state, decision).refunds == (refund,)
    assert on_query(after(state, decision), ALIPAY, told(state, OTHER), RULES, Source.REFRESH).change is None


def test_two_refunds_with_second_numbers_are_one_case() -> None:
    """A case is one for its payment and reason."""
    refunds = [
        a_refund(refund_no=number, amount=4444, status=SUCCEEDED, settled_at=NOW, channel_refund_no=f"re_{number}")
        for number in ("r1", "r2")
    ]
    state = state_of(*refunds, refunded_amount=8888)
    evidence = refunded(refunded_amount=8888, refund_numbers={"r1": "re_8", "r2": "re_9", "another": "re_10"})
    assert len(second_numbers(on_query(state, ALIPAY, evidence, RULES, Source.REFRESH))) == 1


def test_a_refund_of_ours_that_the_channel_lists_by_its_own_number_is_not_made_outside() -> None:
    refund = a_refund(amount=1000, status=SUCCEEDED, settled_at=NOW, channel_refund_no=THERE)
    state = state_of(refund, refunded_amount=1000)
    evidence = refunded(refunded_amount=None, refunds={THERE: 1000})
    assert on_query(state, ALIPAY, evidence, RULES, Source.REFRESH).change is None


def test_a_notice_adds_its_number_to_the_answer() -> None:
    notice = Unclear(**ALIPAY._asdict(), reason="refund_notice", refund_no="r1", channel_refund_no=THERE)
    answered = with_refund_number(refunded(refund_numbers={"r2": OTHER}), notice)
    assert isinstance(answered, Refunded)
    assert answered.refund_numbers == {"r1": THERE, "r2": OTHER}
    for other in (paid(), Unclear(**ALIPAY._asdict(), reason="timeout")):
        assert with_refund_number(other, notice) is other
    nameless = Unclear(**ALIPAY._asdict(), reason="refund_notice", refund_no="r1")
    assert with_refund_number(answered, nameless) is answered


# -- the refund that is meant without a key ----------------------------------------------------------------------------


def everything(**changes: object) -> RefundRequest:
    return msgspec.structs.replace(RefundRequest(key=ALIPAY, by="anna"), **changes)


def parts(*rows: tuple[str, str, int]) -> OrderState:
    """Refunds of a payment in the order of their requests: number, key and amount."""
    refunds = tuple(
        a_refund(refund_no=number, request_key=key, amount=amount, reason=RefundReason.OPERATOR)
        for number, key, amount in rows
    )
    return a_state(paid_order(), paid_payment(), refunds=refunds)


def test_without_a_key_the_last_refund_without_a_key_is_meant() -> None:
    """Numbers of more digits are later ones, whatever their letters."""
    state = parts(("r", "", 1), ("r2_", "", 87), ("r10_", "", 8800))
    found = known_refund(state, everything())
    assert found is not None
    assert found.refund_no == "r10_"


def test_without_a_key_a_refund_that_somebody_made_with_a_key_is_not_meant() -> None:
    """Nothing is left then, and whoever asks is told so: the refund with a key answers another request."""
    for state in (parts(("r", "key-1", 8888)), parts(("r", "", 88), ("r2_", "key-1", 8800))):
        assert known_refund(state, everything()) is None
        assert on_refund_requested(state, everything()).outcome is Outcome.NOT_REFUNDABLE


def test_an_amount_without_a_key_is_always_a_new_refund() -> None:
    assert known_refund(parts(("r", "", 8888)), everything(amount=8888)) is None
