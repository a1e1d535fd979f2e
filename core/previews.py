"""Effects of an operator's act on an order, in sentences: by the same rules that decide when it is done."""

from __future__ import annotations

from core.acts import Figure, Line, Preview, Sum
from core.dispute import DisputeKind, unsettled
from core.evidence import Evidence, Paid, Refunded, Unclear, kind_term
from core.lifecycle import (
    LatePolicy,
    RefundRequest,
    Rules,
    acceptable_payments,
    is_same_refund,
    known_refund,
    needs_approval,
    on_refresh,
    outside_amount,
    refund_number,
    refund_obstacle,
    refundable_amount,
)
from core.lifecycle.refunding import REFUNDS_MAX
from core.order import OrderState, OrderStatus, Origin, Payment, Refund, RefundStatus
from core.sentences import Sentence, Term

APPROVAL_HOURS = 72
"""Life of a refund that waits for a second operator: over a weekend. After that somebody has to want it again."""


# -- refunds -----------------------------------------------------------------------------------------------------------


def refund_preview(state: OrderState, request: RefundRequest, *, wrong_amount: str = "") -> Preview:
    """The preview of a refund. `wrong_amount`: why its channel takes no refund of this amount."""
    version = state.order.version
    known = known_refund(state, request)
    if known is not None:
        line = Line("refund.known", {"refund_no": known.refund_no, "status": Term("order.refund_", known.status)})
        other = Line("refund.other_terms", {"refund_no": known.refund_no})
        is_same = is_same_refund(known, request)
        return Preview(lines=(line,) if is_same else (), refusal=None if is_same else other, version=version)
    payment, obstacle = state.payment(request.key), refund_obstacle(state, request.key, request.amount)
    if payment is None or obstacle is not None:
        return Preview(lines=(), refusal=refund_refusal(state, payment, obstacle), version=version)
    left = refundable_amount(state, payment) or 0
    amount = request.amount or left
    lines = [
        Line(
            "refund.gives_back",
            {
                "amount": Sum(amount, payment.currency),
                "out_trade_no": payment.out_trade_no,
                "refund_no": refund_number(payment.out_trade_no, 1 + len(state.refunds_of(payment.key))),
                "account": payment.channel_account,
            },
        ),
        Line(
            "refund.leaves",
            {"left": Sum(left - amount, payment.currency), "whole": Sum(payment.amount, payment.currency)},
        ),
        Line("order.stays", {"status": Term("orders.status_", state.order.status)}),
        Line("order.not_notified" if state.order.notify_url is None else "refund.is_notified"),
    ]
    if not request.approved_by and needs_approval(state, amount, request.alone_max):
        limit = Sum(request.alone_max or 0, payment.currency)
        lines.append(Line("refund.waits", {"hours": APPROVAL_HOURS, "limit": limit}))
    refusal = Line("refund.wrong_amount", {"detail": wrong_amount}) if wrong_amount else None
    warnings = _refund_warnings(state, payment, amount)
    return Preview(lines=tuple(lines), warnings=warnings, refusal=refusal, version=version)


def refund_refusal(state: OrderState, payment: Payment | None, obstacle: str | None) -> Line:
    """The sentence of `refund_obstacle`, with its figures."""
    if obstacle == "refund.too_much" and payment is not None:
        return Line(obstacle, {"left": Sum(refundable_amount(state, payment) or 0, payment.currency)})
    figures = {"limit": REFUNDS_MAX} if obstacle == "refund.too_many" else {}
    return Line(obstacle or "refund.no_payment", figures)


def _refund_warnings(state: OrderState, payment: Payment, amount: int) -> tuple[Line, ...]:
    refunds = [row for row in state.refunds_of(payment.key) if row.status is not RefundStatus.FAILED]
    under_way = sum(row.amount for row in refunds if not row.status.is_final)
    outside = outside_amount(state, payment)
    inquiries = [one for one in unsettled(state.disputes, payment.key) if one.kind is DisputeKind.INQUIRY]
    same = _same_amount(refunds, amount)
    warnings = {
        "refund.pays_order": state.order.paid_by == payment.key,
        "refund.on_its_way": under_way > 0,
        "refund.went_outside": outside > 0,
        "refund.has_inquiry": bool(inquiries),
        "refund.same_amount": same is not None,
    }
    figures: dict[str, dict[str, str | int | Sum]] = {
        "refund.on_its_way": {"amount": Sum(under_way, payment.currency)},
        "refund.went_outside": {"amount": Sum(outside, payment.currency)},
        "refund.same_amount": {"refund_no": "" if same is None else same.refund_no},
    }
    return tuple(Line(key, figures.get(key, {})) for key, is_so in warnings.items() if is_so)


def _same_amount(refunds: list[Refund], amount: int) -> Refund | None:
    return next((row for row in reversed(refunds) if row.amount == amount), None)


# -- late money, closing, querying -------------------------------------------------------------------------------------


def accept_preview(state: OrderState) -> Preview:
    """The preview of accepting late money: the first payment pays, others are double payments."""
    version = state.order.version
    if state.order.status is OrderStatus.PAID:
        return Preview(lines=(), refusal=Line("accept.is_paid"), version=version)
    acceptable = acceptable_payments(state)
    if not acceptable:
        return Preview(lines=(), refusal=Line("accept.no_money"), version=version)
    paid, *others = acceptable
    amount = Sum(paid.amount, paid.currency)
    lines = [
        Line("accept.pays", {"out_trade_no": paid.out_trade_no, "amount": amount, "account": paid.channel_account}),
        Line("order.not_notified" if state.order.notify_url is None else "accept.is_notified"),
    ]
    left = refundable_amount(state, paid) or 0
    went_back = Line(
        "accept.went_back",
        {"amount": Sum(paid.amount - left, paid.currency), "left": Sum(left, paid.currency)},
    )
    warnings = (
        *([went_back] if left < paid.amount else []),
        *([Line("accept.leaves_others", {"count": len(others)})] if others else []),
    )
    return Preview(lines=tuple(lines), warnings=warnings, version=version)


def close_preview(state: OrderState) -> Preview:
    """The preview of ending an order now, as its deadline would."""
    order, version = state.order, state.order.version
    if order.is_resolved:
        key = "close.is_paid" if order.status is OrderStatus.PAID else "close.is_closed"
        return Preview(lines=(), refusal=Line(key), version=version)
    count = len(state.open_payments())
    asks = (Line("close.asks", {"count": count}), Line("close.if_unpaid"))
    lines = asks if count else (Line("close.at_once"),)
    notified = Line("order.not_notified" if order.notify_url is None else "order.is_notified")
    return Preview(lines=(*lines, notified), warnings=(Line("close.may_pay"),) if count else (), version=version)


def query_preview(state: OrderState, rules: Rules) -> Preview:
    """The preview of querying an order's payments now."""
    count = len(on_refresh(state, rules).query)
    if not count:
        return Preview(lines=(), refusal=Line("query.nothing"), version=state.order.version)
    lines = (Line("query.asks", {"count": count}), Line("query.commits"))
    return Preview(lines=lines, version=state.order.version)


# -- attaching ---------------------------------------------------------------------------------------------------------


def evidence_line(account: str, number: str, evidence: Evidence) -> Line:
    """The answer of a channel about a number."""
    figures: dict[str, Figure] = {"account": account, "number": number}
    if isinstance(evidence, Paid | Refunded):
        figures |= {
            "amount": Sum(evidence.amount, evidence.currency),
            "transaction": evidence.channel_transaction_id,
        }
        if isinstance(evidence, Paid):
            return Line("attach.says_paid", figures)
        gone = "?" if evidence.refunded_amount is None else Sum(evidence.refunded_amount, evidence.currency)
        return Line("attach.says_refunded", figures | {"refunded": gone})
    says = kind_term(evidence)
    if isinstance(evidence, Unclear):
        return Line(
            "attach.says_other",
            figures | {"evidence": Sentence("{kind} ({reason})", kind=says, reason=evidence.reason)},
        )
    return Line("attach.says_other", figures | {"evidence": says})


def attach_preview(
    state: OrderState,
    evidence: Evidence,
    *,
    account: str,
    number: str,
    origin: Origin,
    is_other_world: bool,
    policy: LatePolicy,
    known: Payment | None,
    is_known_beside: bool,
) -> Preview:
    """The preview of attaching a payment that nodrop does not know to this order.

    `known`: it is known all the same. `is_other_world`: the order is about real money and the account about test money,
    or the other way round.
    """
    order, says = state.order, evidence_line(account, number, evidence)
    refusal = _attach_refusal(
        state,
        evidence,
        account=account,
        is_other_world=is_other_world,
        known=known,
        is_known_beside=is_known_beside,
    )
    if refusal is not None:
        return Preview(lines=(says,), refusal=refusal, version=order.version)
    effects = {
        OrderStatus.PAID: Line("attach.comes_twice"),
        OrderStatus.CLOSED: Line("attach.comes_late", {"policy": Term("policy.", policy)}),
    }
    lines = (
        says,
        Line("attach.as_ours" if origin is Origin.OURS else "attach.as_watched"),
        effects.get(order.status, Line("attach.pays")),
        Line("order.not_notified" if order.notify_url is None else "order.is_notified"),
    )
    count = len(state.open_payments())
    warnings = (Line("attach.has_payments", {"count": count}),) if count else ()
    return Preview(lines=lines, warnings=warnings, version=order.version)


def _attach_refusal(
    state: OrderState,
    evidence: Evidence,
    *,
    account: str,
    is_other_world: bool,
    known: Payment | None,
    is_known_beside: bool,
) -> Line | None:
    order = state.order
    if known is not None:
        return Line("attach.is_known", {"order_no": known.order_no, "out_trade_no": known.out_trade_no})
    if is_known_beside:
        return Line("attach.is_known_beside")
    if isinstance(evidence, Unclear):
        return Line("attach.no_answer", {"reason": evidence.reason})
    if not isinstance(evidence, Paid | Refunded) or not _is_there(evidence):
        return Line("attach.no_money")
    if evidence.channel_account != account:
        return Line("attach.other_account", {"account": evidence.channel_account})
    if (evidence.amount, evidence.currency) != (order.amount, order.currency):
        wanted, amount = Sum(order.amount, order.currency), Sum(evidence.amount, evidence.currency)
        return Line("attach.other_amount", {"wanted": wanted, "amount": amount})
    if is_other_world:
        return Line("attach.other_world")
    return None


def _is_there(evidence: Paid | Refunded) -> bool:
    """Whether some of the money is known to be there."""
    if isinstance(evidence, Paid):
        return True
    return evidence.refunded_amount is not None and evidence.refunded_amount < evidence.amount
