"""WeChat Pay's complaints, and its notices of refunds that did not reach the buyer.

https://pay.weixin.qq.com/doc/v3/merchant/4012289719 : the notice of a complaint holds its id and the action only.
"""

from __future__ import annotations

from typing import Any

from simulator.kernel.dispatch import Call
from simulator.kernel.disputes import Dispute
from simulator.kernel.ledger import Payment
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response, json_response, problem
from simulator.wechatpay.bodies import rfc3339
from simulator.wechatpay.wire import signed

_STATES = {"open": "PENDING", "under_review": "PROCESSING"}


def dispute_notice(dispute: Dispute, payment: Payment) -> tuple[str, str, dict[str, Any]]:
    """Return event type, original type and the plain content."""
    if dispute.kind == "refund":
        return "REFUND.ABNORMAL", "refund", _refund(dispute, payment)
    is_new = dispute.sequence == 1
    content = {
        "complaint_id": dispute.dispute_id,
        "action_type": "CREATE_COMPLAINT" if is_new else "MERCHANT_RESPONSE",
    }
    return "COMPLAINT.CREATE" if is_new else "COMPLAINT.STATE_CHANGE", "complaint", content


def show_complaint(simulation: Simulation, call: Call) -> Response:
    found = simulation.find_dispute(call.account, call.request.params["number"])
    if found is None:
        return problem(404, "RESOURCE_NOT_EXISTS", "投诉单不存在")
    dispute, payment = found
    order = {
        "transaction_id": payment.transaction_id,
        "out_trade_no": payment.terms.out_trade_no,
        "amount": dispute.amount,
    }
    complaint = {
        "complaint_id": dispute.dispute_id,
        "complaint_time": rfc3339(dispute.opened_at),
        "complaint_detail": "商品未收到",
        "complaint_state": _STATES.get(dispute.state, "PROCESSED"),
        "complainted_mchid": payment.merchant_id,
        "complaint_order_info": [order],
        "complaint_full_refunded": False,
        "incoming_user_response": dispute.sequence > 1,
        "user_complaint_times": dispute.sequence,
        "problem_type": "REFUND",
    }
    return signed(call, json_response(complaint))


def _refund(dispute: Dispute, payment: Payment) -> dict[str, Any]:
    return {
        "mchid": payment.merchant_id,
        "out_trade_no": payment.terms.out_trade_no,
        "transaction_id": payment.transaction_id,
        "out_refund_no": f"console-{dispute.dispute_id}",
        "refund_id": f"5{dispute.dispute_id}",
        "refund_status": "ABNORMAL",
        "user_received_account": "招商银行信用卡0403",
        "amount": {
            "total": payment.terms.amount,
            "refund": dispute.amount,
            "payer_total": payment.terms.amount,
            "payer_refund": dispute.amount,
        },
    }
