"""An operator answers a case by a choice that fits its reason: the act is done, and then the case is resolved, unless
the act itself ends it later. Of two operators at once one resolves it, and the other is told who did.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from core.acts import Line, Preview, check_reason
from core.case_choices import Choice, choices_for
from core.errors import NotFound, NotPossible
from core.evidence import Source
from core.order import OrderState
from core.previews import query_preview
from core.sentences import Sentence
from flows.accept import accept_late, preview_accept
from flows.attach import attach_payment, preview_attach
from flows.cases import get_case, resolve, too_late
from flows.refresh import refresh_order
from flows.refund_request import RefundWish, preview_refund, request_refund
from runtime.resources import Resources
from storage.postgres.cases import CaseRow, resolve_case
from storage.postgres.orders import find_state
from storage.postgres.refund_approvals import Approval


class Answer(Struct, frozen=True, kw_only=True):
    """An answer to a case. `amount` and `key` are of a refund, `order_no` names the order for money that is unknown.

    `case_version` is that of the case as it was seen, `expected_version` that of its order; None: whatever it is.
    """

    choice: Choice
    amount: int | None = None
    key: str = ""
    order_no: str | None = None
    case_version: int | None = None
    expected_version: int | None = None


class Answered(Struct, frozen=True, kw_only=True):
    """The case as it is then, with its order, and the approval that a refund waits for."""

    case: CaseRow
    state: OrderState | None = None
    approval: Approval | None = None


def refusal_of(case: CaseRow, choice: Choice) -> Line | None:
    """The reason for which the case has no such answer, without a look at anything else."""
    if case.resolved_at is not None:
        return _resolved(case)
    if choice not in choices_for(case.reason, has_order=case.order_no is not None):
        return Line("case.no_choice")
    if choice in (Choice.REFUND, Choice.ATTACH) and case.out_trade_no is None:
        return Line("case.no_payment")
    return None


async def preview_answer(resources: Resources, case_id: int, answer: Answer) -> Preview:
    """Effects of the answer as things stand.

    Raises:
        NotFound: there is no such case, or it names what is not there any more.
    """
    case = await get_case(resources.db, case_id)
    refusal = refusal_of(case, answer.choice)
    if refusal is not None:
        return Preview(lines=(), refusal=refusal)
    match answer.choice:
        case Choice.ACCEPT:
            preview, end = await preview_accept(resources, _order_of(case)), "case.ends"
        case Choice.REFUND:
            preview, end = await preview_refund(resources, _wish(case, answer)), "case.ends_with_refund"
        case Choice.QUERY:
            preview, end = await _preview_query(resources, _order_of(case)), "case.stays"
        case Choice.ATTACH:
            number = case.out_trade_no or ""
            wanted = answer.order_no or case.order_no or ""
            _, preview = await preview_attach(resources, wanted, case.account or "", number)
            end = "case.ends"
        case _:
            return Preview(lines=(Line("case.notes"),))
    return replace(preview, lines=(*preview.lines, *((Line(end),) if preview.is_possible else ())))


async def answer_case(
    resources: Resources, case_id: int, answer: Answer, *, by: str, reason: str, is_proven: bool = True
) -> Answered:
    """Do what the choice says, and resolve the case with the reason if that ends it. `is_proven` as of a refund.

    Raises:
        NotFound: there is no such case.
        NotPossible: somebody has resolved it, or has changed it since; the choice does not fit it, or the act is not
            possible now.
        PreviewOutdated, RefundConflict, InvalidRequest, UnknownAccount: of the act.
    """
    reason = check_reason(reason)
    if answer.choice is Choice.NOTE:
        noted = await resolve(resources.db, case_id, resolution=reason, by=by, version=answer.case_version)
        return Answered(case=noted)
    case = await get_case(resources.db, case_id)
    refusal = refusal_of(case, answer.choice)
    if refusal is not None:
        raise NotPossible(refusal)
    if answer.case_version not in (None, case.version):
        raise too_late(case)
    answered = await _act(resources, case, answer, by=by, reason=reason, is_proven=is_proven)
    if answer.choice.ends_case:  # the act itself may have resolved it
        await resolve_case(resources.db, case_id, resolution=reason, by=by)
    return replace(answered, case=await get_case(resources.db, case_id))


async def _act(
    resources: Resources, case: CaseRow, answer: Answer, *, by: str, reason: str, is_proven: bool
) -> Answered:
    version = answer.expected_version
    match answer.choice:
        case Choice.ACCEPT:
            order_no = _order_of(case)
            state = await accept_late(resources, order_no, by=by, expected_version=version)
            return Answered(case=case, state=state)
        case Choice.REFUND:
            wish = _wish(case, answer)
            requested = await request_refund(
                resources, wish, by=by, reason=reason, expected_version=version, is_proven=is_proven
            )
            return Answered(case=case, state=requested.state, approval=requested.approval)
        case Choice.QUERY:
            state = await refresh_order(resources, _order_of(case), trailing=True, by=Source.OPERATOR)
            return Answered(case=case, state=state)
        case Choice.ATTACH:
            wanted, number = answer.order_no or case.order_no or "", case.out_trade_no or ""
            state = await attach_payment(
                resources, wanted, case.account or "", number, by=by, reason=reason, expected_version=version
            )
            return Answered(case=case, state=state)
    return Answered(case=case)


def _resolved(case: CaseRow) -> Line:
    return Line("case.is_resolved", {"by": case.by or "", "resolution": case.resolution or ""})


def _order_of(case: CaseRow) -> str:
    assert case.order_no is not None, "the choices without an order are others"
    return case.order_no


def _wish(case: CaseRow, answer: Answer) -> RefundWish:
    return RefundWish(
        order_no=_order_of(case), out_trade_no=case.out_trade_no or "", amount=answer.amount, key=answer.key
    )


async def _preview_query(resources: Resources, order_no: str) -> Preview:
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    return query_preview(state, resources.rules)
