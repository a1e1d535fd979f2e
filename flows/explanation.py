"""Explanations: a callback or a response, read by the code of the service, with the result of each step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from channels.base import Channel, Ignored, ReadsResponses
from channels.kit.signed_message import SignatureCheck, recorded_checks
from channels.transport import Response
from core.errors import (
    CallbackForged,
    CallbackStale,
    ChannelError,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
)
from core.evidence import Approved, Evidence, Unclear, kind_of
from core.lifecycle import mismatch
from core.order import Payment
from flows.explanation_notes import Note

TOO_MANY, BROKEN = 429, 500


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence, or the reason why there is none, and every signature that was checked.

    `reason` is one word for programs; `detail` is the adapter's own code. `notes` are for people.
    """

    verdict: str
    reason: str = ""
    detail: str = ""
    evidence: Evidence | None = None
    notification_id: str | None = None
    is_hint: bool = False
    checks: tuple[SignatureCheck, ...] = ()
    notes: tuple[Note, ...] = ()


_NO_EVIDENCE = Note("no_evidence")
_IGNORED = {
    Ignored.NO_MONEY: ("no_payment", Note("no_money")),
    Ignored.OTHER_WORLD: ("other_world", Note("other_world")),
}


def named(explanation: Explanation, payment: Payment) -> Explanation:
    """The explanation with the number of the payment that one of its ids names, as the service takes it."""
    assert explanation.evidence is not None, "it is found by its evidence"
    return replace(explanation, evidence=replace(explanation.evidence, out_trade_no=payment.out_trade_no))


def with_note(explanation: Explanation, note: Note) -> Explanation:
    return replace(explanation, notes=(*explanation.notes, note))


async def explain_callback(
    channel: Channel, headers: Mapping[str, str], body: bytes, at: datetime | None, now: datetime
) -> Explanation:
    """Verify as `flows.callback` does. `at` None: it is judged as if it came now."""
    explanation = await _verify(channel, headers, body, at or now)
    notes = list(explanation.notes)
    if explanation.reason == "stale" and at is None:
        notes.append(Note("judged_now"))
    elif explanation.verdict == "rejected" and at is not None:
        other = await _verify(channel, headers, body, now)
        if other.verdict != "rejected":
            notes.append(Note("only_then", {"now": f"{now:%Y-%m-%dT%H:%M:%SZ}"}))
    if explanation.reason == "forged" and body != body.rstrip(b"\r\n"):
        other = await _verify(channel, headers, body.rstrip(b"\r\n"), at or now)
        if other.reason != "forged":
            notes.append(Note("line_break"))
    return replace(explanation, notes=tuple(notes))


async def _verify(channel: Channel, headers: Mapping[str, str], body: bytes, at: datetime) -> Explanation:
    with recorded_checks() as checks:
        try:
            callback = await channel.verify_callback(headers, body, received_at=at)
        except CallbackForged as error:
            return _rejected("forged", error, checks)
        except CallbackStale as error:
            return _rejected("stale", error, checks)
        except ChannelUnavailable as error:
            return _rejected("not_verifiable", error, checks, _needed(error))
    if callback.evidence is None:
        reason, note = _IGNORED[callback.ignored]
        explanation = Explanation(verdict="unclear", reason=reason, checks=tuple(checks), notes=(note,))
    else:
        explanation = _of_evidence(callback.evidence, checks)
    if callback.unreadable:
        explanation = with_note(replace(explanation, detail=callback.unreadable, notes=()), Note("unreadable"))
    if callback.is_hint:
        explanation = with_note(explanation, Note("hint"))
    return replace(explanation, notification_id=callback.notification_id, is_hint=callback.is_hint)


def explain_answer(
    channel: Channel, payment: Payment, response: Response, at: datetime | None, now: datetime
) -> Explanation:
    """Read as a query does. `at` None: it is judged as if it came now."""
    if channel.queries_by_reference and payment.channel_reference is None:
        payment = replace(payment, channel_reference=_id_in(response.body))
        explanation = _read(channel, payment, response, at or now)
        return with_note(explanation, Note("reference_not_compared"))
    explanation = _read(channel, payment, response, at or now)
    if explanation.verdict != "rejected" or "stale" not in explanation.detail:
        return explanation
    if at is None:
        return with_note(explanation, Note("judged_now"))
    if _read(channel, payment, response, now).verdict != "rejected":
        return with_note(explanation, Note("only_then_answer"))
    return explanation


def _read(channel: Channel, payment: Payment, response: Response, at: datetime) -> Explanation:
    if response.status == TOO_MANY or response.status >= BROKEN:  # as the transport has it: nothing is read
        return Explanation(verdict="unclear", reason=f"status_{response.status}", notes=(_NO_EVIDENCE,))
    if not isinstance(channel, ReadsResponses):
        return Explanation(verdict="rejected", reason="unreadable", detail="answer_bound_to_its_question")
    with recorded_checks() as checks:
        try:
            return _of_evidence(channel.read_response(payment, response, received_at=at), checks)
        except ChannelUnreadable as error:
            return _rejected("unreadable", error, checks)
        except ChannelRefused as error:
            reason = f"refused_{error.code}"
            return Explanation(verdict="unclear", reason=reason, checks=tuple(checks), notes=(_NO_EVIDENCE,))
        except ChannelUnavailable as error:
            reason = error.detail or "unavailable"
            return Explanation(verdict="unclear", reason=reason, checks=tuple(checks), notes=(_NO_EVIDENCE,))


def compare(explanation: Explanation, payment: Payment | None, account: str) -> Explanation:
    """The explanation compared with the expected payment; without one, with the account alone."""
    evidence = explanation.evidence
    if evidence is None:
        return explanation
    if payment is None:
        differs = evidence.channel_account != account
        difference = f"account_mismatch: evidence of {evidence.channel_account}" if differs else ""
    else:
        case = mismatch(payment, evidence)
        difference = "" if case is None else f"{case[0].value}: {case[1]}"
    if not difference:
        return explanation
    note = Note("mismatch_hint" if explanation.is_hint else "mismatch", {"kind": kind_of(evidence)})
    return replace(with_note(explanation, note), verdict="mismatch", reason=difference)


def without_amount(payment: Payment, explanation: Explanation) -> Payment:
    """The payment with the amount of the evidence, so that a payment known by its number alone is no mismatch."""
    evidence = explanation.evidence
    if evidence is None:
        return payment
    return replace(payment, amount=evidence.amount or 0, currency=evidence.currency or payment.currency)


def _of_evidence(evidence: Evidence, checks: Sequence[SignatureCheck]) -> Explanation:
    explanation = Explanation(verdict=kind_of(evidence), evidence=evidence, checks=tuple(checks))
    match evidence:
        case Approved():
            return replace(explanation, verdict="unpaid", reason="approved", notes=(Note("approved"),))
        case Unclear(reason=reason):
            return replace(explanation, verdict="unclear", reason=reason, notes=(_NO_EVIDENCE,))
    return explanation


def _rejected(reason: str, error: ChannelError, checks: Sequence[SignatureCheck], *notes: Note) -> Explanation:
    detail = "" if error.detail == reason else error.detail
    return Explanation(verdict="rejected", reason=reason, detail=detail, checks=tuple(checks), notes=notes)


def _needed(error: ChannelUnavailable) -> Note:
    if error.detail == "no_certificate_yet":
        return Note("certificate_needed")
    return Note("fetch_failed", {"reason": error.detail or "unavailable"})


def _id_in(body: bytes) -> str | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    id_ = value.get("id") if isinstance(value, dict) else None
    return id_ if isinstance(id_, str) else None
