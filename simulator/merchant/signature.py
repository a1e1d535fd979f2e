"""Signatures of notifications, verified without the library that nodrop signs with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

from simulator.kit.asgi import Request

TOLERANCE_S = 300
SECRET_PREFIX = "whsec_"  # noqa: S105 - https://github.com/standard-webhooks/standard-webhooks, the form of a secret


def secret_bytes(secret: str) -> bytes:
    """Return the key of a secret, which is `whsec_` and base64, perhaps without its padding.

    Raises ValueError without repeating the secret.
    """
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a secret is whsec_ and base64")
    return key


def is_signed(keys: tuple[bytes, ...], request: Request, now: datetime) -> bool:
    """Return whether a `v1` signature over `id.timestamp.body` is by one of the keys, and the time is current."""
    webhook_id, at = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
    if not webhook_id or not (at.isascii() and at.isdigit()) or abs(now.timestamp() - int(at[:12])) > TOLERANCE_S:
        return False
    signed = f"{webhook_id}.{at}.".encode("latin-1") + request.body
    wanted = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in keys]
    given = [
        text.removeprefix("v1,").encode("latin-1")
        for text in request.headers.get("webhook-signature", "").split(" ")
        if text.startswith("v1,")
    ]
    return any(hmac.compare_digest(one, other) for one in wanted for other in given)
