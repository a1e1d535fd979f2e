"""Verification of a callback: by its signature, or by PayPal's endpoint.

The signed string contains only a CRC-32 of the raw body, as an unsigned decimal. A checksum stops accidents, not
forgers: another body can be given the CRC-32 of a genuine callback. PayPal does not say that its endpoint, which is
sent the same headers, compares more. So a callback of this channel is a hint that only starts a query:
`trust_callback` is refused. https://developer.paypal.com/api/rest/webhooks/rest/
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Literal

import msgspec

from channels.kit.rsa import is_signed
from channels.kit.signed_message import read_json, record_check
from channels.paypal.api import Api
from channels.paypal.certificates import Certificates
from channels.transport import Response, with_urgency
from core.admission import Urgency
from core.errors import CallbackForged, ChannelNotCalled, ChannelUnavailable, ChannelUnreadable, OutcomeUnknown

ALGORITHM = "SHA256withRSA"
VERIFICATION = "/v1/notifications/verify-webhook-signature"
SIGNATURE_HEADERS = (
    "paypal-auth-algo",
    "paypal-cert-url",
    "paypal-transmission-id",
    "paypal-transmission-sig",
    "paypal-transmission-time",
)

_OK = 200
_ID = re.compile(r"[0-9A-Za-z_.\-]{1,64}", re.ASCII)
_TIME = re.compile(r"[0-9TZ:.+\-]{10,40}", re.ASCII)


class Transmission(msgspec.Struct, frozen=True, kw_only=True):
    """The signature headers of one delivery."""

    id: str
    time: str
    signature: str
    cert_url: str


class _Verdict(msgspec.Struct, frozen=True, kw_only=True):
    verification_status: Literal["SUCCESS", "FAILURE"]


def read_headers(headers: Mapping[str, str]) -> Transmission:
    """The five signature headers, with lower-case names. The algorithm is fixed; they must name the same one.

    Raises:
        CallbackForged: one is missing or malformed.
    """
    if headers.get("paypal-auth-algo") != ALGORITHM:
        raise CallbackForged("auth_algo")
    transmission = Transmission(
        id=headers.get("paypal-transmission-id", ""),
        time=headers.get("paypal-transmission-time", ""),
        signature=headers.get("paypal-transmission-sig", ""),
        cert_url=headers.get("paypal-cert-url", ""),
    )
    if (
        _ID.fullmatch(transmission.id) is None
        or _TIME.fullmatch(transmission.time) is None
        or not transmission.signature.isascii()
    ):
        raise CallbackForged("transmission")
    return transmission


async def verify_offline(
    certificates: Certificates, webhook_id: str, transmission: Transmission, body: bytes, received_at: datetime
) -> None:
    """Verify the signature with PayPal's certificate. Raises as `Channel.verify_callback`."""
    certificate_id = certificates.id_in(transmission.cert_url)
    key = await certificates.key(transmission.cert_url, received_at)
    string = signed_string(transmission, webhook_id, body)
    is_good = is_signed(key, transmission.signature, string)
    record_check("callback", algorithm=ALGORITHM, key=certificate_id, string=string, is_good=is_good)
    if not is_good:
        raise CallbackForged("signature")


def signed_string(transmission: Transmission, webhook_id: str, body: bytes) -> bytes:
    """id|time|webhook|crc32; `zlib.crc32` is unsigned, as PayPal writes it."""
    return f"{transmission.id}|{transmission.time}|{webhook_id}|{zlib.crc32(body)}".encode()


async def verify_at_endpoint(
    api: Api, certificates: Certificates, webhook_id: str, transmission: Transmission, body: bytes
) -> None:
    """Have PayPal verify the callback. Raises as `Channel.verify_callback`."""
    certificate_id = certificates.id_in(transmission.cert_url)
    request = _verification_request(transmission, webhook_id, body)
    try:
        response = await _ask_endpoint(api, request, is_known=certificates.is_known(transmission.cert_url))
        is_good = response.status == _OK and read_json(response.body, _Verdict).verification_status == "SUCCESS"
    except OutcomeUnknown as error:
        raise ChannelUnavailable(f"verification_{error.detail}") from None
    record_check("callback", algorithm="PayPal's endpoint", key=certificate_id, string=request, is_good=is_good)
    if not is_good:
        raise CallbackForged("verification")
    certificates.learn(transmission.cert_url)


async def _ask_endpoint(api: Api, request: bytes, *, is_known: bool) -> Response:
    """One verification. A callback whose certificate a genuine one named before uses what is left of the rate first;
    anybody may name it, so the shares of other calls stay theirs. All others have the share of strangers.
    """
    if is_known:
        with suppress(ChannelNotCalled), with_urgency(Urgency.REFRESH):
            return await api.call("POST", VERIFICATION, request)
    return await api.call("POST", VERIFICATION, request)


def _verification_request(transmission: Transmission, webhook_id: str, body: bytes) -> bytes:
    """The request for PayPal's endpoint, with the event as raw bytes: reserialised, it would have another checksum.

    The body must be one JSON object. One that closed the object early could add a `webhook_id` of the sender, and
    PayPal would truthfully confirm *that* webhook.
    """
    try:
        read_json(body, dict[str, msgspec.Raw])
    except ChannelUnreadable:
        raise CallbackForged("body") from None
    fields = {
        "auth_algo": ALGORITHM,
        "cert_url": transmission.cert_url,
        "transmission_id": transmission.id,
        "transmission_sig": transmission.signature,
        "transmission_time": transmission.time,
        "webhook_id": webhook_id,
    }
    return msgspec.json.encode(fields)[:-1] + b',"webhook_event":' + body + b"}"
