"""Runs a callback or an answer through the very code of the service, and keeps what each step said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from channels.base import Channel, ReadsResponses
from channels.kit.trace import SignatureCheck, recorded_checks
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

TOO_MANY, BROKEN = 429, 500


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: evidence, or why there is none, and every signature that was checked on the way.

    `reason` is one word for programs; `detail` is the adapter's own code. `notes` are for people.
    """

    verdict: str
    reason: str = ""
    detail: str = ""
    evidence: Evidence | None = None
    notification_id: str | None = None
    checks: tuple[SignatureCheck, ...] = ()
    notes: tuple[str, ...] = ()


async def explain_callback(channel: Channel, headers: Mapping[str, str], body: bytes, at: datetime | None) -> Told:
    """As `flows.callback` verifies it. `at` None: it is judged as if it came now."""
    now = datetime.now(UTC)
    told = await _verified(channel, headers, body, at or now)
    notes = list(told.notes)
    if told.reason == "stale" and at is None:
        notes.append("it is judged as if it came now: --at says when it was received")
    elif told.verdict == "rejected" and at is not None:
        again = await _verified(channel, headers, body, now)
        if again.verdict != "rejected":
            notes.append(f"only because of --at: now, at {now:%Y-%m-%dT%H:%M:%SZ}, it would be taken")
    if told.reason == "forged" and body != body.rstrip(b"\r\n"):
        again = await _verified(channel, headers, body.rstrip(b"\r\n"), at or now)
        if again.reason != "forged":
            notes.append("without the line break at the end of the body it verifies: an editor has put it there")
    return replace(told, notes=tuple(notes))


async def _verified(channel: Channel, headers: Mapping[str, str], body: bytes, at: datetime) -> Told:
    with recorded_checks() as heard:
        try:
            callback = await channel.verify_callback(headers, body, received_at=at)
        except CallbackForged as error:
            return _rejected("forged", error, heard)
        except CallbackStale as error:
            return _rejected("stale", error, heard)
        except ChannelUnreadable as error:
            return _rejected("unreadable", error, heard)
        except ChannelUnavailable as error:
            return _rejected("not_verifiable", error, heard, _needed(error))
    if callback.evidence is None:
        notes = ("it is genuine and concerns no payment: it is acknowledged, and that is all",)
        told = Told(verdict="unclear", reason="no_payment", checks=tuple(heard), notes=notes)
    else:
        told = _of_evidence(callback.evidence, heard)
    return replace(told, notification_id=callback.notification_id)


def explain_answer(channel: Channel, payment: Payment, answer: Response, at: datetime | None) -> Told:
    """As a query reads it. `at` None: it is judged as if it came now."""
    if channel.queries_by_reference and payment.channel_reference is None:
        told = _read(channel, replace(payment, channel_reference=_id_in(answer.body)), answer, at or datetime.now(UTC))
        note = "whether it is the payment that was asked for is not compared: no channel_reference was given"
        return replace(told, notes=(*told.notes, note))
    told = _read(channel, payment, answer, at or datetime.now(UTC))
    if told.verdict != "rejected" or "stale" not in told.detail:
        return told
    if at is None:
        return replace(told, notes=(*told.notes, "it is judged as if it came now: --at says when it was received"))
    if _read(channel, payment, answer, datetime.now(UTC)).verdict != "rejected":
        return replace(told, notes=(*told.notes, "only because of --at: now it would be taken"))
    return told


def _read(channel: Channel, payment: Payment, answer: Response, at: datetime) -> Told:
    if answer.status == TOO_MANY or answer.status >= BROKEN:  # as the transport has it: nothing is read
        return Told(verdict="unclear", reason=f"status_{answer.status}", notes=(_NOTHING_LEARNT,))
    if not isinstance(channel, ReadsResponses):
        return Told(verdict="rejected", reason="unreadable", detail="answer_bound_to_its_question")
    with recorded_checks() as heard:
        try:
            return _of_evidence(channel.read_response(payment, answer, received_at=at), heard)
        except ChannelUnreadable as error:
            return _rejected("unreadable", error, heard)
        except ChannelRefused as error:
            reason = f"refused_{error.code}"
            return Told(verdict="unclear", reason=reason, checks=tuple(heard), notes=(_NOTHING_LEARNT,))
        except ChannelUnavailable as error:
            reason = error.detail or "unavailable"
            return Told(verdict="unclear", reason=reason, checks=tuple(heard), notes=(_NOTHING_LEARNT,))


_NOTHING_LEARNT = "it says nothing about money: the payment stays as it is, and is asked about again"


def compared(told: Told, payment: Payment | None, account: str) -> Told:
    """With the payment that it should be of; without one, still with the account."""
    evidence = told.evidence
    if evidence is None:
        return told
    if payment is None:
        differs = evidence.channel_account != account
        found = f"account_mismatch: evidence of {evidence.channel_account}" if differs else ""
    else:
        case = mismatch(payment, evidence)
        found = "" if case is None else f"{case[0].value}: {case[1]}"
    if not found:
        return told
    note = f"it is genuine and says {kind_of(evidence)}, of something else: a case opens, and nothing becomes paid"
    return replace(told, verdict="mismatch", reason=found, notes=(*told.notes, note))


def without_amount(payment: Payment, told: Told) -> Payment:
    """Of a payment of which only the number is known, the amount is what the evidence says: nothing is compared."""
    if told.evidence is None:
        return payment
    return replace(payment, amount=told.evidence.amount or 0, currency=told.evidence.currency or payment.currency)


def _of_evidence(evidence: Evidence, heard: list[SignatureCheck]) -> Told:
    match evidence:
        case Approved():
            note = "the buyer has agreed, and the money is taken only when the channel is asked to"
            return Told(verdict="unpaid", reason="approved", evidence=evidence, checks=tuple(heard), notes=(note,))
        case Unclear(reason=reason):
            return Told(
                verdict="unclear", reason=reason, evidence=evidence, checks=tuple(heard), notes=(_NOTHING_LEARNT,)
            )
    return Told(verdict=kind_of(evidence), evidence=evidence, checks=tuple(heard))


def _rejected(reason: str, error: ChannelError, heard: list[SignatureCheck], *notes: str) -> Told:
    detail = "" if error.detail == reason else error.detail
    return Told(verdict="rejected", reason=reason, detail=detail, checks=tuple(heard), notes=notes)


def _needed(error: ChannelUnavailable) -> str:
    if error.detail == "no_certificate_yet":
        return "the account downloads the channel's certificates, which a running process does; here there are none"
    return (
        "the channel's certificate, or its own verification, had to be fetched from the channel and could not be "
        f"({error.detail or 'unavailable'}); the service answers 503, and the channel sends the callback again"
    )


def _id_in(body: bytes) -> str | None:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = told.get("id") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None
