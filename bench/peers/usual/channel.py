"""The sandbox channel of docs/sandbox-protocol.md: signatures, and the two calls that the service makes."""

from __future__ import annotations

import hmac
import json
import re
import time
from datetime import datetime
from typing import Any

import httpx

from bench.peers.usual.settings import CHANNEL_URL, KEY_ID, KEY_SECRET, MERCHANT_ID, TIMEOUT_S

TOLERANCE_S = 300
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)

_SIGNATURE = re.compile(r"t=([0-9]{1,12}),k=([A-Za-z0-9_\-]{1,32}),v1=([0-9a-f]{64})", re.ASCII)


class BadSignature(Exception):
    """A callback or a response that the channel did not sign, or not now."""


class Refused(Exception):
    """The channel's signed refusal."""


def _mac(*lines: str | bytes) -> str:
    joined = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return hmac.digest(KEY_SECRET, joined, "sha256").hex()


def _verify(header: str, kind: str, *lines: str | bytes) -> None:
    match = _SIGNATURE.fullmatch(header)
    if match is None or match[2] != KEY_ID or abs(time.time() - int(match[1])) > TOLERANCE_S:
        raise BadSignature
    if not hmac.compare_digest(_mac(kind, match[1], *lines), match[3]):
        raise BadSignature


def verify_callback(callback_id: str, signature: str, body: bytes) -> dict[str, Any]:
    """Return the callback's body; raises BadSignature."""
    _verify(signature, "CALLBACK", callback_id, MERCHANT_ID, body)
    return dict(json.loads(body))


def _signed(
    http: httpx.AsyncClient | httpx.Client, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[str, httpx.Request]:
    at = str(int(time.time()))
    mac = _mac("REQUEST", at, method, path, MERCHANT_ID, body)
    signature = {"Sandbox-Merchant": MERCHANT_ID, "Sandbox-Signature": f"t={at},k={KEY_ID},v1={mac}"}
    content = {"Content-Type": "application/json", **headers, **signature}
    return mac, http.build_request(method, CHANNEL_URL + path, headers=content, content=body)


def _read(mac: str, response: httpx.Response) -> dict[str, Any]:
    if response.is_server_error:
        response.raise_for_status()
    _verify(response.headers.get("sandbox-signature", ""), "ANSWER", mac, str(response.status_code), response.content)
    if response.is_client_error:
        raise Refused(response.json()["code"])
    return dict(response.json())


def async_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=TIMEOUT_S, limits=LIMITS, trust_env=False)


def client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_S, limits=LIMITS, trust_env=False)


async def create_payment(
    http: httpx.AsyncClient,
    *,
    out_trade_no: str,
    amount: int,
    currency: str,
    subject: str,
    expires_at: datetime,
    callback_url: str,
) -> str:
    """Create it at the channel; return the address where the buyer pays."""
    terms = {"out_trade_no": out_trade_no, "amount": amount, "currency": currency, "subject": subject}
    body = json.dumps({**terms, "expires_at": expires_at.isoformat(), "callback_url": callback_url}).encode()
    mac, request = _signed(http, "POST", "/v1/payments", body, {"Idempotency-Key": out_trade_no})
    return str(_read(mac, await http.send(request))["pay_url"])


def query_payment(http: httpx.Client, out_trade_no: str) -> dict[str, Any]:
    """Return the payment as the channel has it."""
    mac, request = _signed(http, "GET", f"/v1/payments/{out_trade_no}", b"", {})
    return _read(mac, http.send(request))
