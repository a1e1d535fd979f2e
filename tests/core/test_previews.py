"""Effects of an act, in sentences: by the rules that decide when it is done."""

from typing import Any

import pytest
from msgspec.structs import replace

from core.acts import Line, Preview, Sum
from core.dispute import DisputeKind
from core.evidence import Evidence
from core.lifecycle import LatePolicy, RefundRequest
from core.order import OrderState, OrderStatus, Origin, RefundReason, RefundStatus
from core.previews import (
    accept_preview,
    attach_preview,
    close_preview,
    evidence_line,
    query_preview,
    refund_preview,
    refund_refusal,
)
from core.sentences import Term
from tests.core.states import (
    ALIPAY,
    NOW,
    RULES,
    WECHAT,
    a_dispute,
    a_payment,
    a_refund,
    a_state,
    an_order,
    closed_order,
    missing,
    paid,
    paid_order,
    paid_payment,
    refunded,
    unclear,
)

SILENT = {"notify_url": None}


def keys(preview: Preview) -> list[str]:
    return [line.key for line in preview.lines]


def warnings(preview: Preview) -> list[str]:
    return [line.key for line in preview.warnings]


def refusal(preview: Preview) -> str | None:
    return None if preview.refusal is None else preview.refusal.key


def texts(preview: Preview) -> list[str]:
    """Every sentence in English: its figures are there."""
    refused = [] if preview.refusal is None else [preview.refusal]
    return [line.text for line in (*preview.lines, *preview.warnings, *refused)]


# -- refunds -----------------------------------------------------------------------------------------------------------


def refund(state: OrderState, amount: int | None = None, key: str = "k", wrong: str = "", **more: Any) -> Preview:
    request = RefundRequest(key=ALIPAY, by="anna", amount=amount, request_key=key, **more)
    preview = refund_preview(state, request, wrong_amount=wrong)
    assert preview.version == state.order.version
    return preview


def test_a_refund_says_how_much_goes_back_and_what_is_left() -> None:
    preview = refund(a_state(paid_order(), paid_payment()), 1250)
    assert texts(preview) == [
        "12.50 CNY of payment alipay-000001 go back to the buyer, by refund ralipay-000001 at alipay.",
        "76.38 CNY of 88.88 CNY are left then.",
        "The order stays paid.",
        "The merchant is notified (order.refunded) once the channel has done it.",
        "This money has paid the order. What becomes of the goods is the merchant's to decide.",
    ]
    assert preview.is_possible
    assert keys(refund(a_state(closed_order(**SILENT), paid_payment())))[-1] == "order.not_notified"


def test_a_refund_of_all_that_is_left_names_the_sum() -> None:
    preview = refund(a_state(closed_order(), paid_payment(refunded_amount=88)), key="")
    assert preview.lines[0].figures["amount"] == Sum(8800, "CNY")
    assert preview.lines[1].figures["left"] == Sum(0, "CNY")


def test_a_refund_above_the_limit_waits_unless_it_is_approved() -> None:
    state = a_state(paid_order(), paid_payment())
    waiting = refund(state, 501, alone_max=500)
    assert waiting.lines[-1] == Line("refund.waits", {"hours": 72, "limit": Sum(500, "CNY")})
    assert "5.00 CNY" in texts(waiting)[-2]
    assert "refund.waits" not in keys(refund(state, 501, alone_max=500, approved_by="bob"))
    assert "refund.waits" not in keys(refund(state, 500, alone_max=500))


def test_what_a_person_should_know_before_a_refund_is_a_warning() -> None:
    under_way = a_refund(amount=1000, reason=RefundReason.OPERATOR)
    failed = a_refund(refund_no="r-0", amount=2000, status=RefundStatus.FAILED, settled_at=NOW)
    state = a_state(
        paid_order(),
        paid_payment(refunded_amount=1100, channel_refunds={"console-1": 100}),
        refunds=(failed, under_way),
        disputes=(a_dispute(kind=DisputeKind.INQUIRY),),
    )
    preview = refund(state, 1000)
    assert warnings(preview) == [
        "refund.pays_order",
        "refund.on_its_way",
        "refund.went_outside",
        "refund.has_inquiry",
        "refund.same_amount",
    ]
    assert preview.warnings[1].figures["amount"] == Sum(1000, "CNY")
    assert preview.warnings[2].figures["amount"] == Sum(100, "CNY")
    assert preview.warnings[4].figures["refund_no"] == under_way.refund_no
    assert len(texts(preview)) == 9
    assert warnings(refund(a_state(closed_order(), paid_payment()), 1000)) == []


def test_a_key_that_is_known_leads_to_nothing_more_or_to_a_conflict() -> None:
    known = a_refund(amount=1000, request_key="k")
    state = a_state(paid_order(), paid_payment(), refunds=(known,))
    same, other = refund(state, 1000), refund(state, 999)
    assert (keys(same), same.is_possible) == (["refund.known"], True)
    assert (keys(other), refusal(other)) == ([], "refund.other_terms")
    assert "ralipay-000001" in texts(same)[0]
    assert "ralipay-000001" in texts(other)[0]


def test_a_refund_that_cannot_be_made_says_why() -> None:
    left = refund(a_state(paid_order(), paid_payment(refunded_amount=8000)), 889)
    assert texts(left) == ["So much is not left: 8.88 CNY can still go back."]
    assert refusal(refund(a_state(an_order(), a_payment()))) == "refund.not_paid"
    assert refusal(refund(a_state(paid_order(WECHAT), paid_payment(WECHAT)))) == "refund.no_payment"
    wrong = refund(a_state(paid_order(), paid_payment()), 1, wrong="whole units only")
    assert (texts(wrong)[-1], wrong.is_possible) == ("The channel takes no such amount: whole units only.", False)
    many = refund_refusal(a_state(paid_order(), paid_payment()), paid_payment(), "refund.too_many")
    assert many.text == "A payment has at most 50 refunds."
    assert refund_refusal(a_state(paid_order()), None, None).key == "refund.no_payment"


# -- late money, closing, querying -------------------------------------------------------------------------------------


def test_accepting_names_the_payment_and_what_stays_open() -> None:
    other = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    preview = accept_preview(a_state(closed_order(), paid_payment(refunded_amount=88), other))
    assert texts(preview) == [
        "The order becomes paid by payment alipay-000001: 88.88 CNY at alipay.",
        "The merchant is notified (order.paid, late).",
        "0.88 CNY of it have gone back or are on their way: 88.00 CNY are left.",
        "1 other payments with money stay as double payments, a case each.",
    ]
    silent = accept_preview(a_state(closed_order(**SILENT), paid_payment()))
    assert (keys(silent), warnings(silent)) == (["accept.pays", "order.not_notified"], [])


def test_what_cannot_be_accepted_says_why() -> None:
    assert refusal(accept_preview(a_state(paid_order(), paid_payment()))) == "accept.is_paid"
    assert refusal(accept_preview(a_state(closed_order(), paid_payment(), refunds=(a_refund(),)))) == "accept.no_money"
    assert refusal(accept_preview(a_state(an_order(), a_payment()))) == "accept.no_money"


def test_closing_asks_the_channels_first() -> None:
    preview = close_preview(a_state(an_order(), a_payment()))
    assert (keys(preview), warnings(preview)) == (
        ["close.asks", "close.if_unpaid", "order.is_notified"],
        ["close.may_pay"],
    )
    without = close_preview(a_state(an_order(status=OrderStatus.CREATED, **SILENT)))
    assert (keys(without), warnings(without)) == (["close.at_once", "order.not_notified"], [])
    assert refusal(close_preview(a_state(paid_order(), paid_payment()))) == "close.is_paid"
    assert refusal(close_preview(a_state(closed_order()))) == "close.is_closed"
    assert len(texts(preview)) == 4


def test_querying_counts_the_payments_that_may_have_money() -> None:
    preview = query_preview(a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2)), RULES)
    assert (preview.lines[0].figures, keys(preview)) == ({"count": 2}, ["query.asks", "query.commits"])
    assert refusal(query_preview(a_state(paid_order(), paid_payment()), RULES)) == "query.nothing"


# -- attaching ---------------------------------------------------------------------------------------------------------

OPEN = a_state(an_order(), a_payment(live=True))


def attach(state: OrderState = OPEN, evidence: Evidence | None = None, **more: Any) -> Preview:
    fields: dict[str, Any] = {
        "account": "wechat",
        "number": "n-1",
        "origin": Origin.WATCHED,
        "is_other_world": False,
        "policy": LatePolicy.FLAG,
        "known": None,
        "is_known_beside": False,
    }
    return attach_preview(state, evidence or paid(WECHAT), **fields | more)


def test_attaching_says_what_the_channel_says_and_what_becomes_of_the_order() -> None:
    preview = attach()
    assert texts(preview)[:3] == [
        "wechat says of n-1: paid, 88.88 CNY, transaction t-1.",
        "Another system made the payment: it becomes a watched one, which nodrop never refunds.",
        "The order becomes paid by it, after one more query.",
    ]
    assert warnings(preview) == ["attach.has_payments"]
    assert keys(attach(origin=Origin.OURS))[1] == "attach.as_ours"
    late = attach(a_state(closed_order(**SILENT)))
    assert (keys(late)[2:], late.lines[2].figures) == (
        ["attach.comes_late", "order.not_notified"],
        {"policy": Term("policy.", LatePolicy.FLAG)},
    )
    assert keys(attach(a_state(paid_order(), paid_payment(live=True))))[2] == "attach.comes_twice"
    assert warnings(late) == []


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("attach.is_known", {"known": paid_payment(WECHAT)}),
        ("attach.is_known_beside", {"is_known_beside": True}),
        ("attach.no_answer", {"evidence": unclear(WECHAT)}),
        ("attach.no_money", {"evidence": missing(WECHAT)}),
        ("attach.no_money", {"evidence": refunded(WECHAT, refunded_amount=8888)}),
        ("attach.no_money", {"evidence": refunded(WECHAT, refunded_amount=None)}),
        ("attach.other_account", {"evidence": paid(WECHAT, channel_account="other:m-2")}),
        ("attach.other_amount", {"evidence": paid(WECHAT, amount=8887)}),
        ("attach.other_amount", {"evidence": paid(WECHAT, currency="USD")}),
        ("attach.other_world", {"is_other_world": True}),
        (None, {"evidence": refunded(WECHAT, refunded_amount=1)}),
        (None, {"state": replace(OPEN, payments=())}),
    ],
)
def test_only_money_that_agrees_and_is_known_nowhere_is_attached(key: str | None, changes: dict[str, Any]) -> None:
    preview = attach(**changes)
    assert refusal(preview) == key
    assert texts(preview)


def test_evidence_is_one_line_whatever_its_kind() -> None:
    assert evidence_line("main", "n-1", refunded(refunded_amount=100)).text == (
        "main says of n-1: paid, 88.88 CNY, transaction t-1; 1.00 CNY went back."
    )
    assert "; ? went back" in evidence_line("main", "n-1", refunded(refunded_amount=None)).text
    assert evidence_line("main", "n-1", unclear()).text == "main says of n-1: unclear (timeout)."
    assert evidence_line("main", "n-1", missing()).text == "main says of n-1: missing."
