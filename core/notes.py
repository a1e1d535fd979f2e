"""Notes of events and errors of refunds as sentences of known form.

Every order writes a note, so no phrase is stored beside it. Ours have the few forms below: a note is wholly one of
them, or stays as it is written. Codes of channels have a translation where their meaning is documented, the rest stay
codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.sentences import Phrase

FORMS = (
    "by {person}",
    "{refund_no} by {person}",
    "{refund_no} by {person}, approved by {second}",
    "refund {refund_no} requested",
    "gives up {numbers}",
    "refused: {code}",
    "query refused: {code}",
    "paid, and disputed before",
    "payer",
)
"""Forms in which `core.lifecycle` and `flows.refund` write notes and errors."""

CODES = (
    # ours
    *("timed_out", "not_connected", "other_world", "unknown_account", "disputed", "refund_gap", "rate", "breaker"),
    *("busy", "asked_by_another", "unreadable", "not_captured", "trade_status", "trade_state", "refund_told"),
    # Alipay: https://opendocs.alipay.com/open/common/105806
    *("ACQ.SELLER_BALANCE_NOT_ENOUGH", "ACQ.TRADE_HAS_CLOSE", "ACQ.TRADE_HAS_SUCCESS", "ACQ.TRADE_HAS_FINISHED"),
    *("ACQ.TRADE_NOT_EXIST", "ACQ.TRADE_STATUS_ERROR", "ACQ.SYSTEM_ERROR", "ACQ.INVALID_PARAMETER"),
    *("ACQ.REASON_TRADE_BEEN_FREEZEN", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "ACQ.DISCORDANT_REPEAT_REQUEST"),
    # WeChat Pay: https://pay.weixin.qq.com/doc/v3/merchant/4012791883
    *("NOT_ENOUGH", "USER_ACCOUNT_ABNORMAL", "RESOURCE_NOT_EXISTS", "SYSTEM_ERROR", "FREQUENCY_LIMITED", "PARAM_ERROR"),
    *("NO_AUTH", "SIGN_ERROR", "RULE_LIMIT", "BANK_ERROR", "ACCOUNT_ERROR", "TRADE_ERROR", "INVALID_REQUEST"),
    *("OUT_TRADE_NO_USED", "APPID_MCHID_NOT_MATCH"),
    # Stripe: https://docs.stripe.com/error-codes
    *("charge_already_refunded", "charge_disputed", "insufficient_funds", "amount_too_large", "amount_too_small"),
    # PayPal: https://developer.paypal.com/api/rest/reference/orders/v2/errors/
    *("CAPTURE_FULLY_REFUNDED", "INSTRUMENT_DECLINED", "PAYER_CANNOT_PAY", "TRANSACTION_REFUSED"),
    *("ORDER_ALREADY_CAPTURED", "DUPLICATE_INVOICE_ID"),
)
"""Codes with a translation, which has the code beside it."""

_KNOWN_CODES = frozenset(CODES)
_WORD = r"[^\s,]+"
_WORDS: Mapping[str, str] = {"numbers": ".+", "code": r"[^\s:,]+"}


def _pattern(form: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", form)
    named = (rf"(?P<{name}>{_WORDS.get(name, _WORD)})" for name in parts[1::2])
    return re.compile("".join(re.escape(part) + next(named, "") for part in parts[::2]))


_PATTERNS = {form: _pattern(form) for form in FORMS}


def phrase_of_note(text: str) -> Phrase | None:
    """The form of a note and its words; None: it is none of ours."""
    if text in _KNOWN_CODES:
        return Phrase(text)
    for form, pattern in _PATTERNS.items():
        match = pattern.fullmatch(text)
        if match is not None:
            return Phrase(form, {name: _value(name, word) for name, word in match.groupdict().items()})
    return None


def _value(name: str, word: str) -> str | Phrase:
    return Phrase(word) if name == "code" and word in _KNOWN_CODES else word
