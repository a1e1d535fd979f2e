"""Disputes as tables: what is kept, what the merchant hears, and what an order says about its money."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from core.decision import Decision, Outcome, applied
from core.dispute import Dispute, DisputeKind, DisputeState, advanced, is_withheld
from core.evidence import Disputed, Source, hint_of
from core.lifecycle import (
    CallbackPlan,
    LatePolicy,
    RefundRequest,
    Rules,
    callback_result,
    on_callback,
    on_dispute,
    on_late_accepted,
    on_query,
    on_refund_requested,
    shows_other_money,
)
from core.order import CaseReason, OrderState, PaymentKey, PublicStatus, Refund, RefundStatus, public_status
from tests.core.states import (
    ALIPAY,
    NOW,
    RULES,
    WECHAT,
    Cases,
    a_dispute,
    a_payment,
    a_refund,
    a_state,
    an_order,
    case_reasons,
    closed_order,
    disputed,
    missing,
    paid,
    paid_order,
    paid_payment,
    refunded,
)

LATER = NOW + timedelta(hours=1)
EARLIER = NOW - timedelta(hours=1)

INQUIRY, CLAIM, REVERSAL, REFUND = DisputeKind
OPEN, UNDER_REVIEW, WON, LOST, CLOSED = DisputeState

DISPUTED_CASE = frozenset({(ALIPAY, CaseReason.DISPUTED)})


def decide(state: OrderState, evidence: Disputed) -> Decision:
    return on_dispute(state, ALIPAY, evidence, Source.CALLBACK)


def paid_state(*disputes: Dispute, **changes: Any) -> OrderState:
    return a_state(paid_order(), paid_payment(), disputes=disputes, **changes)


def kept(decision: Decision) -> Dispute:
    assert decision.change is not None
    [dispute] = decision.change.disputes
    return dispute


def notification(decision: Decision) -> dict[str, Any] | None:
    """The type of the notification, with its data."""
    if decision.change is None or decision.change.notification is None:
        return None
    body: dict[str, Any] = msgspec.json.decode(decision.change.notification.body)
    return body


def test_a_claim_is_kept_with_a_case_and_a_notification() -> None:
    decision = decide(paid_state(), disputed(respond_by=LATER, dispute_reason="fraudulent"))
    assert decision.outcome is Outcome.DISPUTED
    assert kept(decision) == a_dispute(respond_by=LATER, reason="fraudulent")
    assert case_reasons(decision) == [CaseReason.DISPUTED]
    body = notification(decision)
    assert body is not None
    assert (body["type"], body["data"]["status"]) == ("order.disputed", "paid")
    assert body["data"]["dispute"] | {"state": "open", "respond_by": "2026-03-01T13:00:00Z"} == body["data"]["dispute"]


def test_a_dispute_unpays_nothing() -> None:
    """The order stays paid, and says that its money is not there."""
    decision = decide(paid_state(), disputed())
    assert decision.change is not None
    after = applied(paid_state(), decision.change)
    assert after.order.status == "paid"
    assert public_status(after.order, after.payments, after.disputes) is PublicStatus.DISPUTED


def test_a_won_claim_restores_the_order() -> None:
    state = paid_state(a_dispute(), cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=WON, outcome="won", changed_at=LATER))
    assert decision.outcome is Outcome.DISPUTE_ENDED
    assert decision.change is not None
    assert [(one.reason, one.resolution) for one in decision.change.resolutions] == [(CaseReason.DISPUTED, "won")]
    after = applied(state, decision.change)
    assert public_status(after.order, after.payments, after.disputes) is PublicStatus.PAID
    assert after.open_cases == frozenset()
    body = notification(decision)
    assert body is not None
    assert body["type"] == "order.dispute_ended"


def test_a_lost_claim_keeps_its_case() -> None:
    state = paid_state(a_dispute(), cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=LOST, changed_at=LATER))
    assert decision.outcome is Outcome.DISPUTED
    assert decision.change is not None
    after = applied(state, decision.change)
    assert after.open_cases == DISPUTED_CASE
    assert public_status(after.order, after.payments, after.disputes) is PublicStatus.DISPUTED


@pytest.mark.parametrize(
    ("known", "seen"),
    [
        pytest.param({"state": WON, "changed_at": LATER}, {"state": OPEN}, id="created after won"),
        pytest.param({"state": LOST, "changed_at": LATER}, {"state": UNDER_REVIEW}, id="updated after lost"),
        pytest.param({"state": UNDER_REVIEW}, {"state": OPEN, "changed_at": LATER}, id="back to open"),
        pytest.param({"state": WON, "changed_at": LATER}, {"state": LOST}, id="an older decision"),
        pytest.param({}, {}, id="the same again"),
        pytest.param({}, {"changed_at": LATER}, id="the same, read again later"),
        pytest.param({}, {"dispute_kind": INQUIRY, "state": CLOSED, "changed_at": LATER}, id="back to an inquiry"),
        pytest.param({}, {"state": None}, id="only the id"),
    ],
)
def test_a_late_message_changes_nothing(known: dict[str, Any], seen: dict[str, Any]) -> None:
    decision = decide(paid_state(a_dispute(**known), cases=DISPUTED_CASE), disputed(**seen))
    assert decision.change is None
    assert decision.outcome in (Outcome.NOTHING_NEW, Outcome.UNCLEAR)
    assert decision.observation is not None


@pytest.mark.parametrize(
    ("known", "seen"),
    [
        pytest.param({"kind": INQUIRY}, {"changed_at": EARLIER}, id="an inquiry becomes a claim"),
        pytest.param({"kind": INQUIRY, "state": CLOSED}, {}, id="also after it was closed"),
        pytest.param({}, {"state": UNDER_REVIEW}, id="answered"),
        pytest.param({"state": LOST}, {"state": WON, "changed_at": LATER}, id="a newer decision"),
        pytest.param({}, {"respond_by": LATER, "changed_at": LATER}, id="a date to answer by"),
    ],
)
def test_a_dispute_moves_forward(known: dict[str, Any], seen: dict[str, Any]) -> None:
    decision = decide(paid_state(a_dispute(**known)), disputed(**seen))
    assert kept(decision).state is (seen.get("state") or OPEN)
    assert kept(decision).kind is CLAIM


def test_what_a_newer_message_lacks_is_kept() -> None:
    known = a_dispute(reason="fraudulent", respond_by=LATER)
    seen = a_dispute(state=UNDER_REVIEW, amount=None, currency=None, changed_at=LATER)
    merged = advanced(known, seen)
    assert merged == a_dispute(state=UNDER_REVIEW, reason="fraudulent", respond_by=LATER, changed_at=LATER)


@pytest.mark.parametrize(
    ("dispute", "is_there"),
    [
        (a_dispute(), False),
        (a_dispute(state=UNDER_REVIEW), False),
        (a_dispute(state=LOST), False),
        (a_dispute(state=WON), True),
        (a_dispute(state=CLOSED), True),
        (a_dispute(kind=INQUIRY), True),
        (a_dispute(kind=INQUIRY, state=CLOSED), True),
        (a_dispute(kind=REVERSAL, state=LOST), False),
        (a_dispute(kind=REFUND, state=LOST), True),
        (a_dispute(WECHAT), True),
    ],
)
def test_money_is_there_unless_a_dispute_withholds_it(dispute: Dispute, is_there: bool) -> None:
    assert is_withheld((dispute,), ALIPAY) is not is_there


def test_an_inquiry_is_told_and_moves_no_money() -> None:
    decision = decide(paid_state(), disputed(dispute_kind=INQUIRY))
    assert case_reasons(decision) == [CaseReason.DISPUTED]
    assert decision.change is not None
    after = applied(paid_state(), decision.change)
    assert public_status(after.order, after.payments, after.disputes) is PublicStatus.PAID


def test_a_claim_that_is_won_restores_what_was_reversed_before() -> None:
    """PayPal sends nothing when reversed money comes back."""
    reversal = a_dispute(dispute_id="r-1", kind=REVERSAL, state=LOST)
    state = paid_state(a_dispute(), reversal, cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (is_withheld(after.disputes, ALIPAY), after.open_cases) == (False, frozenset())


@pytest.mark.parametrize("kind", [INQUIRY, REFUND])
def test_only_a_claim_that_is_won_restores_what_was_reversed(kind: DisputeKind) -> None:
    """The buyer's question, or a refund that reached the buyer after all, says nothing about the reversed money."""
    reversal = a_dispute(dispute_id="r-1", kind=REVERSAL, state=LOST)
    state = paid_state(a_dispute(kind=kind), reversal, cases=DISPUTED_CASE)
    decision = decide(state, disputed(dispute_kind=kind, state=WON, changed_at=LATER))
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (is_withheld(after.disputes, ALIPAY), after.open_cases) == (True, DISPUTED_CASE)


def test_a_reversal_that_arrives_after_the_win_withholds_nothing() -> None:
    state = paid_state(a_dispute(state=WON, changed_at=LATER))
    decision = decide(state, disputed(dispute_id="r-1", dispute_kind=REVERSAL, state=LOST))
    assert (case_reasons(decision), decision.outcome) == ([], Outcome.DISPUTE_ENDED)
    assert decision.change is not None
    assert not is_withheld(applied(state, decision.change).disputes, ALIPAY)


def test_a_reversal_after_the_win_is_another_one() -> None:
    state = paid_state(a_dispute(state=WON))
    decision = decide(state, disputed(dispute_id="r-1", dispute_kind=REVERSAL, state=LOST, changed_at=LATER))
    assert case_reasons(decision) == [CaseReason.DISPUTED]


def test_the_case_stays_while_another_dispute_is_open() -> None:
    state = paid_state(a_dispute(), a_dispute(dispute_id="d-2"), cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert decision.change is not None
    assert decision.change.resolutions == ()


def test_a_failed_refund_is_a_case_of_its_own() -> None:
    decision = decide(paid_state(), disputed(dispute_kind=REFUND, state=LOST, dispute_id="re-1"))
    assert (case_reasons(decision), decision.outcome) == ([CaseReason.REFUND_FAILED], Outcome.REFUND_FAILED)
    body = notification(decision)
    assert body is not None
    assert body["type"] == "order.refund_failed"


def test_a_failed_refund_opens_its_case_once() -> None:
    """The query of the refund may have opened it already."""
    cases = frozenset({(ALIPAY, CaseReason.REFUND_FAILED)})
    decision = decide(paid_state(cases=cases), disputed(dispute_kind=REFUND, state=LOST))
    assert case_reasons(decision) == []


def test_a_refund_that_took_another_way_is_only_kept() -> None:
    """Alipay pays it to the buyer's balance if the bank card does not take it."""
    decision = decide(paid_state(), disputed(dispute_kind=REFUND, state=CLOSED))
    assert kept(decision).state is CLOSED
    assert (case_reasons(decision), notification(decision)) == ([], None)


def test_a_message_without_a_time_is_of_now() -> None:
    assert kept(decide(paid_state(), disputed(changed_at=None))).changed_at == NOW


@pytest.mark.parametrize(
    ("evidence", "is_paid", "queries"),
    [
        (disputed(), True, False),
        (disputed(), False, True),
        (disputed(dispute_kind=REVERSAL, state=LOST), True, True),
        (disputed(dispute_kind=REFUND, state=LOST), True, True),
    ],
)
def test_the_channel_is_queried_where_sums_may_differ(evidence: Disputed, is_paid: bool, queries: bool) -> None:
    assert shows_other_money(paid_payment() if is_paid else a_payment(), evidence) is queries


def test_a_dispute_of_a_payment_that_the_channel_does_not_know_is_not_done() -> None:
    plan = CallbackPlan(commits=True, queries=True, differs=False)
    assert not callback_result(plan, disputed(), missing(), Outcome.STILL_OPEN).is_done
    assert callback_result(plan, disputed(), paid(), Outcome.PAID).is_done


@pytest.mark.parametrize("key", [ALIPAY, WECHAT])
def test_a_dispute_at_another_account_is_of_no_payment_here(key: PaymentKey) -> None:
    evidence = disputed(channel_account="other:acct_2") if key == ALIPAY else disputed()
    assert on_dispute(paid_state(), key, evidence, Source.CALLBACK).outcome is Outcome.UNKNOWN_PAYMENT


def test_a_hint_keeps_the_id_of_its_dispute_only() -> None:
    hint = hint_of(disputed(dispute_reason="fraudulent"), "main")
    assert hint == Disputed(channel_account="main", out_trade_no="", dispute_id="d-1", dispute_kind=CLAIM)


def test_disputed_money_is_not_refunded() -> None:
    """The buyer would have it twice."""
    state = a_state(closed_order(), paid_payment(), disputes=(a_dispute(),))
    assert on_refund_requested(state, RefundRequest(key=ALIPAY, by="kim")).outcome is Outcome.NOT_REFUNDABLE


def test_disputed_money_is_not_accepted() -> None:
    state = a_state(closed_order(), paid_payment(), disputes=(a_dispute(),))
    assert on_late_accepted(state, "kim").outcome is Outcome.NOT_ACCEPTABLE


def test_late_money_that_is_disputed_already_is_not_refunded_by_the_policy() -> None:
    state = a_state(closed_order(), a_payment(), disputes=(a_dispute(),))
    decision = on_callback(state, ALIPAY, paid(), Rules(late_policy=LatePolicy.REFUND), Source.CALLBACK)
    assert decision.change is not None
    assert decision.change.refunds == ()


@pytest.mark.parametrize(
    ("worlds", "paid_by", "live"),
    [
        ((True,), None, True),
        ((False,), None, False),
        ((None,), None, None),
        ((), None, None),
        ((True, False), None, None),
        ((True, False), WECHAT, False),
    ],
)
def test_an_order_is_of_the_world_of_its_payments(
    worlds: tuple[bool | None, ...], paid_by: PaymentKey | None, live: bool | None
) -> None:
    payments = [a_payment(key, live=world) for key, world in zip((ALIPAY, WECHAT), worlds, strict=False)]
    order = an_order() if paid_by is None else paid_order(paid_by)
    assert a_state(order, *payments).live is live


# -- money that was disputed before it was seen here -------------------------------------------------------------------


def test_money_that_is_withheld_pays_no_order() -> None:
    """The callback was lost, and the claim came before our query."""
    state = a_state(an_order(), a_payment(), disputes=(a_dispute(),), cases=DISPUTED_CASE)
    decision = on_query(state, ALIPAY, paid(), RULES, Source.QUERY)
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (after.order.status, after.payments[0].status) == ("paying", "paid")
    assert decision.change.notification is None


@pytest.mark.parametrize("ending", [WON, CLOSED])
def test_an_order_becomes_paid_once_its_money_is_there(ending: DisputeState) -> None:
    state = a_state(an_order(), paid_payment(), disputes=(a_dispute(),), cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=ending, changed_at=LATER))
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (decision.outcome, after.order.status, after.order.paid_by) == (Outcome.PAID, "paid", ALIPAY)
    assert (after.open_cases, after.disputes[0].state) == (frozenset(), ending)
    body = notification(decision)
    assert body is not None
    assert body["type"] == "order.paid"


def test_about_restored_money_of_a_closed_order_a_person_decides() -> None:
    state = a_state(closed_order(), paid_payment(), disputes=(a_dispute(),), cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert (decision.outcome, case_reasons(decision)) == (Outcome.PAID_LATE, [CaseReason.PAID_LATE])


def test_a_person_who_was_asked_is_not_asked_again() -> None:
    cases = DISPUTED_CASE | {(ALIPAY, CaseReason.PAID_LATE)}
    state = a_state(closed_order(), paid_payment(), disputes=(a_dispute(),), cases=cases)
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert (decision.outcome, case_reasons(decision)) == (Outcome.DISPUTE_ENDED, [])


TWICE = (paid_payment(), paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))


def test_restored_money_of_an_order_that_another_payment_has_paid_came_twice() -> None:
    """It was withheld when it was seen, so the order could be paid another way; and now both are there."""
    state = a_state(paid_order(WECHAT), *TWICE, disputes=(a_dispute(),), cases=DISPUTED_CASE)
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert (decision.outcome, case_reasons(decision)) == (Outcome.DOUBLE_PAYMENT, [CaseReason.DOUBLE_PAYMENT])
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (after.order.paid_by, after.disputes[0].state, after.refunds) == (WECHAT, WON, ())
    body = notification(decision)
    assert body is not None
    assert body["type"] == "order.double_payment"


@pytest.mark.parametrize(
    ("cases", "refunds"),
    [
        (DISPUTED_CASE | {(ALIPAY, CaseReason.DOUBLE_PAYMENT)}, ()),
        (DISPUTED_CASE, (a_refund(status=RefundStatus.PROCESSING),)),
    ],
    ids=["a person was asked", "it is going back"],
)
def test_money_that_came_twice_is_asked_about_once(cases: Cases, refunds: tuple[Refund, ...]) -> None:
    state = a_state(paid_order(WECHAT), *TWICE, disputes=(a_dispute(),), cases=cases, refunds=refunds)
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert (decision.outcome, case_reasons(decision)) == (Outcome.DISPUTE_ENDED, [])


@pytest.mark.parametrize("known", [0, None], ids=["nothing", "unknown"])
def test_a_partial_refund_of_withheld_money_is_a_case(known: int | None) -> None:
    """Also where it was not known before how much had gone back: that question ends."""
    payment = a_payment() if known == 0 else paid_payment(refunded_amount=None)
    unknown = set() if known == 0 else {(ALIPAY, CaseReason.REFUND_AMOUNT_UNKNOWN)}
    state = a_state(an_order(), payment, disputes=(a_dispute(),), cases=DISPUTED_CASE | unknown)
    decision = on_query(state, ALIPAY, refunded(refunded_amount=100), RULES, Source.QUERY)
    assert decision.change is not None
    after = applied(state, decision.change)
    assert after.open_cases == DISPUTED_CASE | {(ALIPAY, CaseReason.REFUNDED_OUTSIDE)}
    assert (after.order.status, after.payments[0].refunded_amount) == ("paying", 100)


def test_late_money_that_is_withheld_is_not_accepted_by_the_policy() -> None:
    state = a_state(closed_order(), a_payment(), disputes=(a_dispute(),), cases=DISPUTED_CASE)
    decision = on_callback(state, ALIPAY, paid(), RULES, Source.CALLBACK)
    assert decision.change is not None
    assert (decision.outcome, decision.change.order.status) == (Outcome.PAID_LATE, "closed")


def test_an_order_stays_unpaid_while_another_dispute_withholds_its_money() -> None:
    state = a_state(an_order(), paid_payment(), disputes=(a_dispute(), a_dispute(dispute_id="d-2")))
    decision = decide(state, disputed(state=WON, changed_at=LATER))
    assert decision.change is not None
    assert decision.change.order.status == "paying"
