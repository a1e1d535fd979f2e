"""The meaning of each channel's words about a dispute: kind and state, and whose money it is."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from channels.alipay import messages as alipay
from channels.paypal import disputes as paypal
from channels.paypal.wire import REVERSAL_EVENT, Event, OwnAccount
from channels.stripe import disputes as stripe
from channels.stripe.objects import Refund
from channels.wechatpay import complaints as wechatpay
from core.errors import ChannelUnreadable
from core.evidence import Disputed, Unclear

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN = OwnAccount(account="main", merchant_id="RD465XN5VS364")


@pytest.mark.parametrize(
    ("status", "kind", "state"),
    [
        ("warning_needs_response", "inquiry", "open"),
        ("warning_under_review", "inquiry", "under_review"),
        ("warning_closed", "inquiry", "closed"),
        ("needs_response", "claim", "open"),
        ("under_review", "claim", "under_review"),
        ("won", "claim", "won"),
        ("lost", "claim", "lost"),
        ("prevented", "claim", "closed"),
    ],
)
def test_a_dispute_of_stripe(status: str, kind: str, state: str) -> None:
    """The object of docs.stripe.com/api/disputes/object. A warning moves no money."""
    document = {
        "id": "du_1MtJUT2eZvKYlo2CNaw2HvEv",
        "object": "dispute",
        "amount": 1000,
        "charge": "ch_1AZtxr2eZvKYlo2CJDX8whov",
        "created": 1680651737,
        "currency": "usd",
        "evidence_details": {"due_by": 1682294399, "has_evidence": False},
        "livemode": False,
        "metadata": {},
        "payment_intent": None,
        "reason": "general",
        "status": status,
    }
    evidence = stripe.dispute_evidence(msgspec.convert(document, stripe.Dispute), account="main", at=AT)
    assert (evidence.dispute_kind, evidence.state) == (kind, state)
    assert (evidence.disputed_amount, evidence.disputed_currency) == (1000, "USD")
    assert (evidence.amount, evidence.currency) == (None, None), "a dispute may be about a part of the payment"
    assert evidence.respond_by == datetime(2023, 4, 23, 23, 59, 59, tzinfo=UTC)
    assert evidence.every_id == ("ch_1AZtxr2eZvKYlo2CJDX8whov",)


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_refund_of_stripe_that_failed(status: str) -> None:
    evidence = stripe.refund_evidence(refund(status), account="main", at=AT)
    assert isinstance(evidence, Disputed)
    assert (evidence.dispute_kind, evidence.state, evidence.disputed_amount) == ("refund", "lost", 500)


@pytest.mark.parametrize("status", ["pending", "requires_action", "succeeded", None])
def test_any_other_refund_of_stripe_only_starts_a_query(status: str | None) -> None:
    assert isinstance(stripe.refund_evidence(refund(status), account="main", at=AT), Unclear)


def test_a_refund_of_stripe_is_named_by_both_of_its_numbers() -> None:
    ours = replace(refund("succeeded"), metadata={"refund_no": "r-000001", "out_trade_no": "number-1"})
    for refund_, number in ((ours, "r-000001"), (refund("succeeded"), None)):
        evidence = stripe.refund_evidence(refund_, account="main", at=AT)
        assert isinstance(evidence, Unclear)
        assert (evidence.refund_no, evidence.channel_refund_no) == (number, "re_1")


def refund(status: str | None) -> Refund:
    document = {"id": "re_1", "object": "refund", "amount": 500, "currency": "usd", "payment_intent": "pi_1"}
    return msgspec.convert(document | {"status": status}, Refund)


def paypal_dispute(**changes: Any) -> paypal.Dispute:
    """The resource of PayPal's published sample of CUSTOMER.DISPUTE.CREATED."""
    document = {
        "dispute_id": "PP-000-042-663-135",
        "create_time": "2018-06-21T13:35:44.000Z",
        "update_time": "2018-06-21T13:35:44.000Z",
        "disputed_transactions": [
            {"seller_transaction_id": "00D10444LD479031K", "seller": {"merchant_id": "RD465XN5VS364"}, "items": []}
        ],
        "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
        "status": "OPEN",
        "dispute_amount": {"currency_code": "USD", "value": "3.00"},
        "dispute_life_cycle_stage": "CHARGEBACK",
    }
    return msgspec.json.decode(msgspec.json.encode(document | changes), type=paypal.Dispute)


@pytest.mark.parametrize(
    ("changes", "kind", "state"),
    [
        ({"dispute_life_cycle_stage": "INQUIRY"}, "inquiry", "open"),
        ({}, "claim", "open"),
        ({"status": "WAITING_FOR_SELLER_RESPONSE"}, "claim", "open"),
        ({"status": "WAITING_FOR_BUYER_RESPONSE"}, "claim", "under_review"),
        ({"status": "UNDER_REVIEW"}, "claim", "under_review"),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_SELLER_FAVOUR"}}, "claim", "won"),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "CANCELED_BY_BUYER"}}, "claim", "won"),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_BUYER_FAVOUR"}}, "claim", "lost"),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_WITH_PAYOUT"}}, "claim", "lost"),
        ({"status": "RESOLVED"}, "claim", "lost"),
        (
            {
                "status": "RESOLVED",
                "dispute_life_cycle_stage": "INQUIRY",
                "dispute_outcome": {"outcome_code": "RESOLVED_BUYER_FAVOUR"},
            },
            "claim",
            "lost",
        ),
    ],
)
def test_a_dispute_of_paypal(changes: dict[str, Any], kind: str, state: str) -> None:
    """An outcome that does not say that the merchant has the money counts as lost."""
    [evidence] = paypal.dispute_evidence(paypal_dispute(**changes), OWN)
    assert (evidence.dispute_kind, evidence.state, evidence.disputed_amount) == (kind, state, 300)
    assert (evidence.channel_account, evidence.out_trade_no) == ("main", "00D10444LD479031K")


def test_a_dispute_of_paypal_about_several_payments_is_evidence_of_each() -> None:
    transactions = [{"seller_transaction_id": "1A"}, {"seller_transaction_id": "2B"}, {}]
    evidence = paypal.dispute_evidence(paypal_dispute(disputed_transactions=transactions), OWN)
    assert [one.out_trade_no for one in evidence] == ["1A", "2B"]


def test_a_dispute_of_paypal_with_another_merchant_is_of_another_account() -> None:
    transactions = [{"seller_transaction_id": "1A", "seller": {"merchant_id": "OTHER00000000"}}]
    [evidence] = paypal.dispute_evidence(paypal_dispute(disputed_transactions=transactions), OWN)
    assert evidence.channel_account == "other:OTHER00000000"


def test_a_reversal_of_paypal_leads_to_its_capture() -> None:
    """PayPal's published sample of PAYMENT.CAPTURE.REVERSED."""
    document = {
        "id": "09E71677NS257044M",
        "amount": {"currency_code": "USD", "value": "2.51"},
        "note_to_payer": "Payment reversed",
        "status": "COMPLETED",
        "create_time": "2018-08-15T14:30:10-07:00",
        "links": [
            {"href": "https://api.paypal.com/v2/payments/refunds/09E71677NS257044M", "rel": "self", "method": "GET"},
            {"href": "https://api.paypal.com/v2/payments/captures/4L335234718889942", "rel": "up", "method": "GET"},
        ],
    }
    [evidence] = paypal.reversal_evidence(paypal_event(document), "09E71677NS257044M", OWN)
    assert (evidence.dispute_kind, evidence.state, evidence.disputed_amount) == ("reversal", "lost", 251)
    assert evidence.channel_transaction_id == "4L335234718889942"
    with pytest.raises(ChannelUnreadable):
        paypal.reversal_evidence(paypal_event(document | {"links": []}), "09E71677NS257044M", OWN)


@pytest.mark.parametrize(
    ("event_type", "named"),
    [("PAYMENT.CAPTURE.REFUNDED", "09E71677NS257044M"), (REVERSAL_EVENT, "1ANOTHER0REFUND00")],
    ids=["a refund from the console", "another refund"],
)
def test_a_reversal_that_paypals_own_copy_does_not_show_is_none(event_type: str, named: str) -> None:
    """A body made for the checksum of a genuine callback names any event and any refund."""
    document = {"id": "09E71677NS257044M", "links": []}
    assert paypal.reversal_evidence(paypal_event(document, event_type), named, OWN) == ()


def paypal_event(resource: dict[str, Any], event_type: str = REVERSAL_EVENT) -> Event:
    document = {"id": "WH-6F207351SC284371F-0KX52201050121307", "event_type": event_type, "resource": resource}
    return msgspec.json.decode(msgspec.json.encode(document), type=Event)


@pytest.mark.parametrize(
    ("status", "state"), [("PENDING", "open"), ("PROCESSING", "under_review"), ("PROCESSED", "closed")]
)
def test_a_complaint_of_wechatpay(status: str, state: str) -> None:
    document = {
        "complaint_id": "200201820200101080076610000",
        "complaint_time": "2015-05-20T13:29:35.120+08:00",
        "complaint_state": status,
        "complaint_order_info": [{"transaction_id": "4200000404", "out_trade_no": "20190906154617", "amount": 3}],
        "problem_type": "REFUND",
    }
    complaint = msgspec.json.decode(msgspec.json.encode(document), type=wechatpay.Complaint)
    [evidence] = wechatpay.complaint_evidence(complaint, account="main", mchid="1600000001", at=AT)
    assert (evidence.dispute_kind, evidence.state, evidence.disputed_amount) == ("inquiry", state, 3)
    assert evidence.channel_account == "main"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("MERCHANT_PROCESSING", "open"),
        ("MERCHANT_FEEDBACKED", "under_review"),
        ("PLATFORM_PROCESSING", "under_review"),
        ("FINISHED", "closed"),
        ("CANCELLED", "closed"),
        ("CLOSED", "closed"),
        ("A_STATUS_OF_TOMORROW", "open"),
    ],
)
def test_a_complaint_of_alipay(status: str, state: str) -> None:
    document = {
        "complain_event_id": "2020092300102000000001459758",
        "status": status,
        "trade_no": "2020092322001",
        "merchant_order_no": "number-1",
        "trade_amount": "88.88",
        "gmt_create": "2020-09-23 10:00:00",
        "gmt_modified": "2020-09-24 10:00:00",
    }
    evidence = alipay.complaint_evidence(msgspec.convert(document, alipay.Complaint), "main")
    assert (evidence.dispute_kind, evidence.state, evidence.disputed_amount) == ("inquiry", state, 8888)
    assert evidence.changed_at == datetime(2020, 9, 24, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"complain_event_id":1}', '{"complain_event_id":"1","complain_event_id":"2"}']
)
def test_a_message_of_alipay_of_another_form_is_unreadable(content: str) -> None:
    message = alipay.Message(
        notify_id="n-1",
        msg_method=alipay.COMPLAINT,
        app_id="2021000000000001",
        utc_timestamp="1516797622752",
        biz_content=content,
    )
    with pytest.raises(ChannelUnreadable):
        alipay.message_evidence(message, "main")
