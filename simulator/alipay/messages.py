"""Alipay's messages to the application's gateway address: complaints, and refunds to bank cards.

https://opendocs.alipay.com/open/02ekfv : fields of the gateway, `msg_method` and `biz_content` in JSON.
"""

from __future__ import annotations

import json
from typing import Any

from simulator.alipay.keys import wire_of
from simulator.alipay.wire import refusal, signed_form, success, text_in, time_text, yuan
from simulator.kernel.base import Account, Event
from simulator.kernel.dispatch import Call
from simulator.kernel.disputes import Dispute
from simulator.kernel.ledger import Payment
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response

_STATES = {"open": "MERCHANT_PROCESSING", "under_review": "MERCHANT_FEEDBACKED"}


def message_body(event: Event, account: Account) -> bytes:
    """Return the posted form of a dispute's message: signed like a callback."""
    assert event.dispute is not None, "called for disputes only"
    charset, dispute = wire_of(account).charset, event.dispute
    method, content = "alipay.merchant.tradecomplain.changed", {"complain_event_id": dispute.dispute_id}
    if dispute.kind == "refund":
        method, content = "alipay.trade.refund.depositback.completed", _deposit_back(dispute, event.payment)
    fields = {
        "notify_id": event.callback_id,
        "utc_timestamp": str(int(event.created_at.timestamp() * 1000)),
        "msg_method": method,
        "app_id": account.merchant_id,
        "version": "1.1",
        "biz_content": json.dumps(content, separators=(",", ":")),
        "sign_type": "RSA2",
        "charset": "GBK" if charset == "gbk" else charset,
    }
    return signed_form(fields, account)


def query_complaint(simulation: Simulation, call: Call) -> Response:
    found = simulation.find_dispute(call.account, text_in(call.request, "complain_event_id"))
    if found is None:
        return refusal(call, "COMPLAIN_NOT_EXIST")
    dispute, payment = found
    return success(
        call,
        complain_event_id=dispute.dispute_id,
        status=_STATES.get(dispute.state, "FINISHED"),
        trade_no=payment.transaction_id,
        merchant_order_no=payment.terms.out_trade_no,
        gmt_create=time_text(dispute.opened_at),
        gmt_modified=time_text(dispute.changed_at),
        leaf_category_name="商品未收到",
        complain_reason="商品未收到",
        trade_amount=yuan(dispute.amount),
    )


def _deposit_back(dispute: Dispute, payment: Payment) -> dict[str, Any]:
    return {
        "trade_no": payment.transaction_id,
        "out_trade_no": payment.terms.out_trade_no,
        "out_request_no": dispute.dispute_id,
        "dback_status": "F",
        "dback_amount": yuan(dispute.amount),
    }
