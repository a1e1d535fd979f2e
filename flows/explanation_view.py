"""An explanation as one flat object, and the mask that takes the secrets of an account out of any text."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from channels.kit.signed_message import SignatureCheck
from core.evidence import Evidence, Refunded
from flows.explanation import Explanation

MASKED = "***"
SECRET_CHARACTERS_MIN = 6
"""Shorter texts are no secrets, and would be found in every number."""

_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|api-?key|password", re.ASCII)


class Mask:
    """Replaces every secret of the account in any text; of a key in PEM, each line."""

    def __init__(self, secrets: Sequence[str]) -> None:
        lines = {line for secret in secrets for line in secret.splitlines() if not line.startswith("-----")}
        texts = sorted((line for line in lines if len(line) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)
        self._texts = texts
        self._bytes = [text.encode() for text in texts]

    def text(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, MASKED)
        return text

    def raw(self, raw: bytes) -> bytes:
        for secret in self._bytes:
            raw = raw.replace(secret, MASKED.encode())
        return raw

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers, without credentials that a proxy or a client put there."""
        return {
            self.text(name): MASKED if _SECRET_HEADER.search(name) else self.text(value)
            for name, value in headers.items()
        }


def as_json(explanation: Explanation, mask: Mask, context: Mapping[str, Any]) -> dict[str, Any]:
    """One flat object. Amounts are in minor units; None: not in the evidence."""
    evidence = explanation.evidence
    return {
        **context,
        "verdict": explanation.verdict,
        "reason": explanation.reason,
        "detail": mask.text(explanation.detail),
        "amount_minor": None if evidence is None else evidence.amount,
        "currency": None if evidence is None else evidence.currency,
        "refunded_amount": _refunded(evidence),
        "out_trade_no": None if evidence is None else evidence.out_trade_no,
        "channel_transaction_id": None if evidence is None else evidence.channel_transaction_id,
        "channel_account": None if evidence is None else evidence.channel_account,
        "at": None if evidence is None else evidence.at,
        "notification_id": explanation.notification_id,
        "is_hint": explanation.is_hint,
        "checks": [_check(check, mask) for check in explanation.checks],
        "notes": [mask.text(note.text) for note in explanation.notes],
    }


def signed_string(check: SignatureCheck, mask: Mask) -> tuple[str, str]:
    """The signed bytes, masked, and their encoding: `text` if they are UTF-8, else `base64`."""
    raw = mask.raw(check.string)
    try:
        return raw.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"


def _check(check: SignatureCheck, mask: Mask) -> dict[str, object]:
    text, encoding = signed_string(check, mask)
    return {
        "what": check.message,
        "algorithm": check.algorithm,
        "key": mask.text(check.key),
        "string": text,
        "encoding": encoding,
        "good": check.is_good,
    }


def _refunded(evidence: Evidence | None) -> int | None:
    return evidence.refunded_amount if isinstance(evidence, Refunded) else None
