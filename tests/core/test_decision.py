"""The state after a change, computed without reading it again."""

from core.decision import Case, Change, Decision, Event, Outcome, applied
from core.evidence import Source
from core.order import CaseReason, PaymentStatus
from tests.core.states import ALIPAY, DEADLINE, NOW, WECHAT, a_payment, a_state, an_order, paid_order, paid_payment

PLACED = Event(kind=Outcome.PLACED, by=Source.API)


def test_the_change_of_a_placement_gives_the_new_state() -> None:
    order = an_order(created_at=NOW)
    state = applied(None, Change(order=order, event=PLACED, is_new=True, new_payments=(a_payment(),)))
    assert (state.order, state.payments, state.pending, state.now) == (order, (a_payment(),), (), NOW)


def test_a_change_is_applied_and_the_rest_of_the_state_stays() -> None:
    before = a_state(
        an_order(),
        a_payment(),
        a_payment(WECHAT, attempt_no=2),
        cases=frozenset({(WECHAT, CaseReason.AMOUNT_MISMATCH)}),
    )
    case = Case(reason=CaseReason.REFUNDED_OUTSIDE, key=ALIPAY, detail="")
    change = Change(
        order=paid_order(version=4),
        event=Event(kind=Outcome.PAID, by=Source.QUERY),
        payments=(paid_payment(),),
        resolved=(ALIPAY, DEADLINE),
        cases=(case,),
    )
    after = applied(before, change)
    assert after.order == paid_order(version=4)
    assert [payment.status for payment in after.payments] == [PaymentStatus.PAID, PaymentStatus.OPEN]
    assert [row.key for row in after.pending] == [WECHAT]
    assert after.open_cases == {(WECHAT, CaseReason.AMOUNT_MISMATCH), (ALIPAY, CaseReason.REFUNDED_OUTSIDE)}
    assert after.now == before.now


def test_a_new_attempt_comes_after_the_earlier_ones() -> None:
    before = a_state(an_order(), a_payment(status=PaymentStatus.CLOSED))
    started = Event(kind=Outcome.STARTED, by=Source.API)
    change = Change(order=an_order(version=4), event=started, new_payments=(a_payment(WECHAT, attempt_no=2),))
    assert [payment.key for payment in applied(before, change).payments] == [ALIPAY, WECHAT]


def test_a_capture_is_due_once_the_other_payments_are_queried() -> None:
    assert Decision(outcome=Outcome.NOTHING_NEW, capture=(ALIPAY,)).is_capture_due
    assert Decision(outcome=Outcome.NOTHING_NEW, query=(WECHAT,)).is_capture_due
    assert not Decision(outcome=Outcome.NOTHING_NEW, close=(WECHAT,)).is_capture_due
