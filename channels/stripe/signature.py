"""Verification of the header `Stripe-Signature`. https://docs.stripe.com/webhooks/signature

    t=1533204620,v1=<64 hex>[,v1=<64 hex>][,v0=<64 hex>]

HMAC-SHA256 over the time, a full stop and the raw body. While a secret is rolled there is one `v1` for each secret.
`v0` is Stripe's scheme for tests; accepting it would accept forgeries.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from channels.kit.signed_message import record_check
from core.errors import CallbackForged, CallbackStale

TOLERANCE_S = 300
HEADER_CHARACTERS_MAX = 2048
"""More than twenty signatures; a roll has two."""

_PART = re.compile(r"([a-z][a-z0-9]*)=([^,]*)", re.ASCII)
_TIME = re.compile(r"[0-9]{1,12}", re.ASCII)


class _Header(NamedTuple):
    time: str
    signatures: tuple[bytes, ...]


def verify(header: str, body: bytes, secrets: Sequence[str], *, received_at: datetime) -> None:
    """Verify that one of the secrets signed this body, within the tolerance of its receipt, on both sides.

    A secret is used in raw UTF-8 with its `whsec_`; it is not base64 as in Standard Webhooks.

    Raises:
        CallbackForged: no secret signed it.
        CallbackStale: one signed it, at another time.
    """
    parsed = _parse(header)
    string = f"{parsed.time}.".encode() + body
    if not any(_is_signed(name, secret, string, parsed.signatures) for name, secret in _named(secrets)):
        raise CallbackForged("signature")
    if abs(received_at.timestamp() - int(parsed.time)) > TOLERANCE_S:
        raise CallbackStale("time")


def _parse(header: str) -> _Header:
    """Parse strictly: exactly one time, and every part of the form name=value."""
    if len(header) > HEADER_CHARACTERS_MAX:
        raise CallbackForged("signature_header")
    parts = [_PART.fullmatch(part) for part in header.split(",")]
    named = [(part[1], part[2]) for part in parts if part is not None]
    times = [value for name, value in named if name == "t"]
    if len(named) < len(parts) or len(times) != 1 or _TIME.fullmatch(times[0]) is None:
        raise CallbackForged("signature_header")
    # As bytes: `hmac.compare_digest` raises TypeError for text that is not ASCII.
    return _Header(times[0], tuple(value.encode(errors="replace") for name, value in named if name == "v1"))


def _named(secrets: Sequence[str]) -> list[tuple[str, str]]:
    """Secrets with their place in the configuration; an empty one, with which anybody can sign, is left out."""
    return [(f"webhook_secrets[{at}]", secret) for at, secret in enumerate(secrets) if secret]


def _is_signed(name: str, secret: str, string: bytes, signatures: Sequence[bytes]) -> bool:
    expected = hmac.new(secret.encode(), string, sha256).hexdigest().encode()
    is_good = any(hmac.compare_digest(expected, signature) for signature in signatures)
    record_check("callback", algorithm="HMAC-SHA256", key=name, string=string, is_good=is_good)
    return is_good
