"""The explanation of a callback that was received: its bytes, read again by the code of the service with the account's
keys of today, and compared with the payment that it is about.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from channels.credentials import secrets_of
from core.errors import ConfigurationError, InvalidRequest, NotFound, UnknownAccount
from core.order import Payment, PaymentKey
from core.refusals import Verdict
from flows.explanation import Explanation, compare, explain_callback, named, with_note
from flows.explanation_notes import Note
from flows.explanation_view import Mask, as_json
from runtime.resources import Resources
from storage.postgres.callback_history import CallbackRow, CallbackState, find_raw_callback
from storage.postgres.orders import find_named_payment, find_state_by_payment


class ExplainedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A callback with its explanation. `payment` is the one that it is about, `headers` those that were verified."""

    callback: CallbackRow
    explanation: Explanation
    payment: Payment | None
    headers: Mapping[str, str]
    mask: Mask

    def as_json(self) -> dict[str, Any]:
        """One flat object, masked: as `nodrop explain callback --json` has it."""
        order_no = self.callback.order_no if self.payment is None else self.payment.order_no
        context = {"callback_id": self.callback.id, "account": self.callback.account, "order_no": order_no}
        return as_json(self.explanation, self.mask, context)


class RawBody(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a callback as text, or in base64 where they are none; `is_whole`: nothing is cut off."""

    headers: Mapping[str, str]
    text: str
    encoding: str
    is_whole: bool


async def read_raw(resources: Resources, callback: CallbackRow) -> RawBody:
    """The raw body, with credentials in its headers masked. The caller writes the act down before.

    Raises:
        InvalidRequest: no master key opens it.
        NotFound: it is not kept.
    """
    try:
        raw = await find_raw_callback(resources.db, resources.sealer, callback)
    except ConfigurationError:
        raise InvalidRequest("no master key opens this body") from None
    if raw is None:
        raise NotFound("its raw bytes are not kept")
    mask = await _mask(resources, callback.account)
    try:
        text, encoding = raw.body.decode(), "text"
    except UnicodeDecodeError:
        text, encoding = b64encode(raw.body).decode(), "base64"
    return RawBody(headers=mask.headers(raw.headers), text=text, encoding=encoding, is_whole=raw.is_whole)


async def _mask(resources: Resources, account: str) -> Mask:
    """Secrets of an account that opens."""
    try:
        config = (await resources.accounts.get(account)).config
    except UnknownAccount:
        return Mask(())
    return Mask(secrets_of(config.channel, config.credentials))


async def explain_received(resources: Resources, callback: CallbackRow) -> ExplainedCallback:
    """Verify it again as of the time when it came. Nothing is stored and nothing is handled.

    Raises DatabaseUnavailable. Without its bytes or its account the explanation is what was noted when it came.
    """
    if callback.verdict == Verdict.UNKNOWN_ACCOUNT:
        return _without_bytes(callback, Mask(()), "no_account")
    try:
        account = await resources.accounts.get(callback.account)
    except UnknownAccount:
        return _without_bytes(callback, Mask(()), "account_not_opened")
    mask = Mask(secrets_of(account.config.channel, account.config.credentials))
    try:
        raw = await find_raw_callback(resources.db, resources.sealer, callback)
    except ConfigurationError:
        return _without_bytes(callback, mask, "sealed")
    if raw is None or not raw.is_whole:
        return _without_bytes(callback, mask, "not_kept" if raw is None else "cut_off")
    with account.for_strangers():
        explanation = await explain_callback(
            account.channel, raw.headers, raw.body, callback.received_at, resources.clock.now()
        )
    payment = await _payment(resources, callback, explanation)
    if explanation.evidence is not None:
        explanation = named(explanation, payment) if payment else with_note(explanation, Note("unknown_number"))
        explanation = compare(explanation, payment, callback.account)
    note = _changed(callback, explanation)
    return ExplainedCallback(
        callback=callback,
        explanation=explanation if note is None else with_note(explanation, Note(note)),
        payment=payment,
        headers=raw.headers,
        mask=mask,
    )


def _without_bytes(callback: CallbackRow, mask: Mask, note: str) -> ExplainedCallback:
    """The note made when it came, of a callback whose bytes are not there."""
    if callback.state is CallbackState.REFUSED:
        explanation = Explanation(verdict="rejected", reason=callback.verdict, detail=callback.detail)
    else:
        explanation = Explanation(verdict=callback.kind or "unclear", notification_id=callback.notification_id)
    explanation = with_note(explanation, Note(note))
    return ExplainedCallback(callback=callback, explanation=explanation, payment=None, headers={}, mask=mask)


async def _payment(resources: Resources, callback: CallbackRow, explanation: Explanation) -> Payment | None:
    """The payment that the service finds by the ids in it; of one that proves nothing, the payment that it claims."""
    if explanation.evidence is not None:
        named_here = await find_named_payment(resources.db, callback.account, explanation.evidence)
        return None if named_here is None else named_here[1]
    if callback.out_trade_no is None:
        return None
    key = PaymentKey(callback.account, callback.out_trade_no)
    state = await find_state_by_payment(resources.db, key)
    return None if state is None else state.payment(key)


def _changed(callback: CallbackRow, explanation: Explanation) -> str | None:
    is_refused = callback.state is CallbackState.REFUSED
    if is_refused is (explanation.verdict == "rejected"):
        return None
    return "verifies_now" if is_refused else "does_not_verify_now"
