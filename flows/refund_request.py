"""An operator gives back money: all that is left of a payment, or a part. Above a limit a second operator has to agree.

The decision and the door make it one refund for each key; `flows.refund` then has the channel do it. The caller writes
the act down before it calls anything here that changes something.
"""

from __future__ import annotations

from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from channels.base import LimitsRefunds
from core.acts import Line, Preview, check_reason
from core.decision import Decision, Outcome
from core.errors import InvalidRequest, NotFound, NotPossible, PreviewOutdated, RefundConflict, UnknownAccount
from core.lifecycle import (
    RefundRequest,
    known_refund,
    on_refund_requested,
    refund_number,
    refund_obstacle,
    refundable_amount,
)
from core.money import minor_units
from core.operators import KEY_ID
from core.order import OrderState, Payment, Refund
from core.previews import APPROVAL_HOURS, refund_preview, refund_refusal
from core.sentences import Sentence, Term
from flows.commit import commit_decision
from runtime.resources import Resources
from storage.postgres.orders import find_state
from storage.postgres.refund_approvals import (
    Approval,
    decide_approval,
    find_approval,
    insert_approval,
    set_refund,
)

REQUEST_KEY_MAX = 64


class RefundWish(Struct, frozen=True, kw_only=True):
    """Money of a payment to be given back; `amount` None: all that is left. The same key of an order is one refund."""

    order_no: str
    out_trade_no: str
    amount: int | None = None
    key: str = ""


def refund_amount(text: str, currency: str) -> int | None:
    """Minor units of an amount as a person writes it; None: it is empty, for all that is left.

    Raises:
        InvalidRequest: it is none of this currency, or nothing.
    """
    if not text.strip():
        return None
    amount = minor_units(text.strip(), currency)
    if amount == 0:
        raise InvalidRequest("nothing is no refund")
    return amount


class RequestedRefund(Struct, frozen=True, kw_only=True):
    """The order as it is then, with the refund; or the approval that it waits for."""

    state: OrderState
    refund: Refund | None = None
    approval: Approval | None = None


async def preview_refund(resources: Resources, wish: RefundWish) -> Preview:
    """Effects of the refund as things stand.

    Raises:
        NotFound: there is no such order, or it has no such payment.
    """
    state, payment = await _find(resources, wish.order_no, wish.out_trade_no)
    request = _request(resources, wish, payment, by="")
    return await _preview(resources, state, payment, request)


async def request_refund(
    resources: Resources,
    wish: RefundWish,
    *,
    by: str,
    reason: str,
    expected_version: int | None = None,
    is_proven: bool = True,
) -> RequestedRefund:
    """Request the refund, or have it wait for a second operator if it is above the limit.

    `expected_version`: the version of the order that the operator looked at. `is_proven`: nodrop knows that `by` is who
    asks. Otherwise nothing waits, for the same person could agree under another name.

    Raises:
        NotFound: there is no such order, or it has no such payment.
        InvalidRequest: the reason or the key.
        RefundConflict: a refund with this key has other terms.
        NotPossible: this money cannot be given back, or not so much of it; or it would wait, and nobody is known.
        PreviewOutdated: the order has moved on since `expected_version`.
    """
    reason = check_reason(reason)
    if len(wish.key) > REQUEST_KEY_MAX:
        raise InvalidRequest(Sentence("key: at most {max} characters", max=REQUEST_KEY_MAX))
    state, payment = await _find(resources, wish.order_no, wish.out_trade_no)
    request = replace(_request(resources, wish, payment, by=by), reason=reason, expected_version=expected_version)
    if known_refund(state, request) is None:
        await _check_channel(resources, state, payment, request)
    return await _commit(resources, state, payment, request, is_proven=is_proven)


async def approve_refund(
    resources: Resources, approval_id: int, *, by: str, reason: str = "", is_proven: bool = True
) -> RequestedRefund:
    """A second operator agrees, and the refund is requested. To do it again ends what was cut off. `is_proven` as in
    `request_refund`.

    What cannot be refunded as things stand is not approved: else whoever asked for it could end that alone, later.

    Raises:
        NotFound: there is no such approval.
        NotPossible: it is this operator's own, was decided otherwise, has expired, the money is gone meanwhile, or
            nobody is known.
    """
    approval = await _get_approval(resources, approval_id)
    _check_proven(is_proven=is_proven)
    state, payment = await _find(resources, approval.order_no, approval.out_trade_no)
    request = RefundRequest(
        key=payment.key,
        by=approval.requested_by,
        amount=approval.amount,
        request_key=approval.request_key,
        reason=approval.reason,
        approved_by=approval.decided_by or by,
    )
    refusal = _approval_refusal(approval, state, request, by)
    if refusal is not None:
        raise NotPossible(refusal)
    if approval.decision is None:
        obstacle = refund_obstacle(state, payment.key, request.amount)
        if obstacle is not None and known_refund(state, request) is None:
            raise NotPossible(refund_refusal(state, payment, obstacle))
        await _check_channel(resources, state, payment, request)
        await _decide(resources, approval, "approved", by=by, reason=reason)
    requested = await _commit(resources, state, payment, request, is_proven=True)
    if requested.refund is not None:
        await set_refund(resources.db, approval.id, requested.refund.refund_no)
    return replace(requested, approval=await _get_approval(resources, approval_id))


async def decline_refund(
    resources: Resources, approval_id: int, *, by: str, reason: str, is_proven: bool = True
) -> Approval:
    """A second operator does not agree: nothing is refunded. Raises as `approve_refund`, and InvalidRequest."""
    approval = await _get_approval(resources, approval_id)
    _check_proven(is_proven=is_proven)
    return await _decide(resources, approval, "declined", by=by, reason=check_reason(reason))


async def preview_approval(
    resources: Resources, approval_id: int, *, by: str, declines: bool = False, is_proven: bool = True
) -> Preview:
    """Effects of the approval, or of declining it, as things stand. Raises NotFound."""
    approval = await _get_approval(resources, approval_id)
    unknown = None if is_proven else Line("approval.needs_person")
    if declines:
        line = Line("approval.declines", {"requested_by": approval.requested_by})
        return Preview(lines=(line,), refusal=_refusal(approval, by) or unknown)
    state, payment = await _find(resources, approval.order_no, approval.out_trade_no)
    request = RefundRequest(
        key=payment.key, by="", amount=approval.amount, request_key=approval.request_key, approved_by=by
    )
    preview = await _preview(resources, state, payment, request)
    request_line = Line("approval.asked_by", {"requested_by": approval.requested_by, "reason": approval.reason})
    refusal = _approval_refusal(approval, state, request, by) or unknown
    return replace(preview, lines=(request_line, *preview.lines), refusal=refusal or preview.refusal)


# -- in parts ----------------------------------------------------------------------------------------------------------


async def _find(resources: Resources, order_no: str, out_trade_no: str) -> tuple[OrderState, Payment]:
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    payment = next((row for row in state.payments if row.out_trade_no == out_trade_no), None)
    if payment is None:
        names = {"order_no": order_no, "out_trade_no": out_trade_no}
        raise NotFound(Sentence("order {order_no} has no payment {out_trade_no}", **names))
    return state, payment


def _request(resources: Resources, wish: RefundWish, payment: Payment, *, by: str) -> RefundRequest:
    return RefundRequest(
        key=payment.key,
        by=by,
        amount=wish.amount,
        request_key=wish.key,
        alone_max=resources.settings.refund_alone_max(payment.currency),
    )


async def _preview(resources: Resources, state: OrderState, payment: Payment, request: RefundRequest) -> Preview:
    fault = await _channel_fault(resources, state, payment, request)
    if fault is not None and fault.key != "refund.wrong_amount":
        return Preview(lines=(), refusal=fault, version=state.order.version)
    return refund_preview(state, request, wrong_amount="" if fault is None else str(fault.figures["detail"]))


async def _channel_fault(
    resources: Resources, state: OrderState, payment: Payment, request: RefundRequest
) -> Line | None:
    """The reason why the channel cannot be asked for this refund, or takes no such amount; None: it is not known
    beforehand.
    """
    try:
        account = await resources.accounts.get(payment.channel_account)
    except UnknownAccount:
        return Line("refund.no_account", {"account": payment.channel_account})
    if payment.live not in (None, account.config.live):
        return Line("refund.other_world", {"account": payment.channel_account})
    amount = request.amount or refundable_amount(state, payment) or 0
    if not isinstance(account.channel, LimitsRefunds):
        return None
    try:
        account.channel.check_refund(amount, payment.currency)
    except InvalidRequest as error:
        return Line("refund.wrong_amount", {"detail": error.sentence})
    return None


async def _check_channel(resources: Resources, state: OrderState, payment: Payment, request: RefundRequest) -> None:
    """Raises NotPossible: the account cannot be called about this payment, or its channel takes no such amount."""
    fault = await _channel_fault(resources, state, payment, request)
    if fault is not None:
        raise NotPossible(fault)


def _check_proven(*, is_proven: bool) -> None:
    """Raises NotPossible: nodrop does not know who it is."""
    if not is_proven:
        raise NotPossible(Line("approval.needs_person"))


async def _commit(
    resources: Resources, state: OrderState, payment: Payment, request: RefundRequest, *, is_proven: bool
) -> RequestedRefund:
    """The request through the door; or the approval that it waits for."""
    decide = partial(on_refund_requested, request=request)
    committed = await commit_decision(resources, state.order.order_no, decide, known=state)
    after = committed.state_after or state
    match committed.decision.outcome:
        case Outcome.MOVED:
            raise PreviewOutdated(await _preview(resources, after, payment, request))
        case Outcome.OTHER_TERMS:
            raise _key_conflict(request.request_key or "")
        case Outcome.NOT_REFUNDABLE:
            payment = after.payment(payment.key) or payment
            obstacle = refund_obstacle(after, payment.key, request.amount)
            raise NotPossible(refund_refusal(after, payment, obstacle))
        case Outcome.NEEDS_APPROVAL:
            _check_proven(is_proven=is_proven)
            return RequestedRefund(state=after, approval=await _ask(resources, after, payment, request))
    return RequestedRefund(state=after, refund=_requested(committed.decision, after, request))


def _requested(decision: Decision, after: OrderState, request: RefundRequest) -> Refund | None:
    """The refund that this request has just made, or else the one that it has led to before."""
    made = () if decision.change is None else decision.change.refunds
    return made[0] if made else known_refund(after, request)


async def _ask(resources: Resources, state: OrderState, payment: Payment, request: RefundRequest) -> Approval:
    """Have it wait for a second operator, once for each key."""
    amount = request.amount or refundable_amount(state, payment) or 0
    nth = 1 + len(state.refunds_of(payment.key))
    key = request.request_key or refund_number(payment.out_trade_no, nth)
    approval = await insert_approval(
        resources.db,
        order_no=state.order.order_no,
        account=payment.channel_account,
        out_trade_no=payment.out_trade_no,
        amount=amount,
        currency=payment.currency,
        request_key=key,
        reason=request.reason,
        requested_by=request.by,
        lives_s=APPROVAL_HOURS * 3600.0,
    )
    if (approval.account, approval.out_trade_no, approval.amount) != (*payment.key, amount):
        raise _key_conflict(key)
    if approval.decision == "declined":
        raise NotPossible(Line("refund.was_declined", {"by": approval.decided_by or ""}))
    if approval.is_expired:
        raise NotPossible(Line("refund.has_expired"))
    return approval


async def _get_approval(resources: Resources, approval_id: int) -> Approval:
    approval = await find_approval(resources.db, approval_id)
    if approval is None:
        raise NotFound(Sentence("approval {id}", id=str(approval_id)))
    return approval


async def _decide(resources: Resources, approval: Approval, decision: str, *, by: str, reason: str) -> Approval:
    """Decide, once. Of two operators at the same time one does, and the other is told who did."""
    refusal = _refusal(approval, by)
    if refusal is not None:
        raise NotPossible(refusal)
    decided = await decide_approval(resources.db, approval.id, decision=decision, by=by, reason=reason)
    if decided is None:
        now = await _get_approval(resources, approval.id)
        raise NotPossible(_refusal(now, by) or Line("approval.expired"))
    return decided


def _approval_refusal(approval: Approval, state: OrderState, request: RefundRequest, by: str) -> Line | None:
    """The reason why this operator cannot approve it, or end an approval that was cut off. After its time the refund
    that it has become is still noted with it.
    """
    if approval.decision != "approved":
        return _refusal(approval, by)
    is_over = approval.is_expired and known_refund(state, request) is None
    return Line("approval.expired") if is_over else None


def _refusal(approval: Approval, by: str) -> Line | None:
    """The reason why this operator cannot decide about it."""
    if approval.decision is not None:
        return Line(
            "approval.decided",
            {"by": approval.decided_by or "", "decision": Term("money.decision_", approval.decision)},
        )
    if approval.is_expired:
        return Line("approval.expired")
    if KEY_ID.fullmatch(approval.requested_by) is not None:  # by an earlier release
        return Line("approval.needs_person")
    return Line("approval.own") if approval.requested_by == by else None


def _key_conflict(key: str) -> RefundConflict:
    return RefundConflict(Sentence("key {key} is of a refund with another payment or amount", key=key))
