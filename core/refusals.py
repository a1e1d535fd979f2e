"""Callbacks that were refused, as they are noted for people. Nothing is decided by what a stranger has sent: it is
shown beside the order whose payment it names, so that somebody sees that a channel called and was not understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address, ip_network

import msgspec

from core.errors import CallbackStale, ChannelUnavailable, NodropError, UnknownAccount
from core.evidence import distinct_ids
from core.order import ACCOUNT_NAME

BODY_START_BYTES = 8192
"""Of a refused body no more is looked at or kept."""

CLAIMED_IDS_MAX = 8
DETAIL_CHARACTERS_MAX = 200
HEADER_CHARACTERS_MAX = 2048

NO_ACCOUNT = ""
"""The account of a callback to a name that no account has."""

# Names of the fields that hold a payment's number or id at some channel. A pattern, not a parser: a body that proves
# nothing may be cut off, or be anything.
_NAMES = "out_trade_no|trade_no|transaction_id|custom_id|invoice_id|payment_intent|id"
_IN_JSON = re.compile(rf'"(?:{_NAMES})"\s*:\s*"([^"\\\x00-\x1f]{{6,128}})"')
_IN_FORM = re.compile(r"(?:^|&)(?:out_trade_no|trade_no)=([0-9A-Za-z_.*\-]{6,128})(?=&|$)", re.ASCII)

_MESSAGE_IN_JSON = re.compile(rb'\s*\{\s*"id"\s*:\s*"([0-9A-Za-z_.\-]{6,128})"')
_MESSAGE_IN_FORM = re.compile(rb"(?:^|&)notify_id=([0-9A-Za-z_.\-]{6,128})(?=&|$)")
_SERIAL_HEADERS = {
    "wechatpay-serial": re.compile(r"^([0-9A-Za-z_]{1,64})$", re.ASCII),
    "paypal-cert-url": re.compile(r"/([0-9A-Za-z_\-]{1,64})$", re.ASCII),
}
_TIME_HEADERS = {
    "wechatpay-timestamp": re.compile(r"^([0-9]{1,12})$", re.ASCII),
    "paypal-transmission-time": re.compile(r"^([0-9TZ:.+\-]{10,35})$", re.ASCII),
    "stripe-signature": re.compile(r"(?:^|,)t=([0-9]{1,12})(?=,|$)", re.ASCII),
}

_PREFIX_V4, _PREFIX_V6 = 24, 48


class Verdict(StrEnum):
    """Reason why a callback was refused, in a word.

    `not_verifiable`: the key or certificate that verifies it could not be fetched; its channel sends it again.
    """

    FORGED = "forged"
    STALE = "stale"
    NOT_VERIFIABLE = "not_verifiable"
    UNKNOWN_ACCOUNT = "unknown_account"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Claims of a refused callback about itself: the channel's id of the message, the serial of the key, and the time
    of the signature, as they stand there. Empty: none.

    A body that is sealed (WeChat Pay's) names no payment. The same message sent again, and genuine, does.
    """

    message_id: str = ""
    serial: str = ""
    at: str = ""


class RefusedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A refused callback, as it is stored. `ids` are the ids that its body claims; `network` is where it came from,
    wide enough to be nobody's address.
    """

    account: str
    verdict: Verdict
    detail: str
    body_hash: bytes
    body_bytes: int
    body_start: bytes
    headers: Mapping[str, str]
    network: str
    ids: tuple[str, ...]
    claims: Claims = Claims()
    copies: int = 1


def verdict_of(error: NodropError) -> Verdict:
    """The verdict that a fault of the verification is."""
    match error:
        case CallbackStale():
            return Verdict.STALE
        case ChannelUnavailable():
            return Verdict.NOT_VERIFIABLE
        case UnknownAccount():
            return Verdict.UNKNOWN_ACCOUNT
    return Verdict.FORGED


def refused_callback(
    account: str, error: NodropError, headers: Mapping[str, str], body: bytes, address: str
) -> RefusedCallback:
    """The record of it. `headers` are those that the verification reads, `address` is the caller's.

    Of an account that does not exist the name is the detail, if it could be one: mostly it is misspelt in an address.
    """
    verdict = verdict_of(error)
    is_known = verdict is not Verdict.UNKNOWN_ACCOUNT
    name = account if ACCOUNT_NAME.fullmatch(account) else ""
    return RefusedCallback(
        account=account if is_known else NO_ACCOUNT,
        verdict=verdict,
        detail=error.detail[:DETAIL_CHARACTERS_MAX] if is_known else name,
        body_hash=sha256(body).digest(),
        body_bytes=len(body),
        body_start=body[:BODY_START_BYTES] if is_known else b"",
        headers={name: text[:HEADER_CHARACTERS_MAX] for name, text in headers.items()} if is_known else {},
        network=network_of(address),
        ids=claimed_ids(body) if is_known else (),
        claims=claims_of(headers, body) if is_known else Claims(),
    )


def claimed_ids(body: bytes) -> tuple[str, ...]:
    """Ids that a body which proves nothing claims a payment by: a few, in their order."""
    text = body[:BODY_START_BYTES].decode("utf-8", "replace")
    found = [match[1] for pattern in (_IN_JSON, _IN_FORM) for match in pattern.finditer(text)]
    return distinct_ids(*found)[:CLAIMED_IDS_MAX]


def claims_of(headers: Mapping[str, str], body: bytes) -> Claims:
    """The claims of a callback; texts of other forms are none."""
    message = _MESSAGE_IN_JSON.match(body[:BODY_START_BYTES]) or _MESSAGE_IN_FORM.search(body[:BODY_START_BYTES])
    return Claims(
        message_id="" if message is None else message[1].decode(),
        serial=_claimed(headers, _SERIAL_HEADERS),
        at=_claimed(headers, _TIME_HEADERS),
    )


def _claimed(headers: Mapping[str, str], names: Mapping[str, re.Pattern[str]]) -> str:
    found = (pattern.search(headers.get(name, "")) for name, pattern in names.items())
    return next((match[1] for match in found if match is not None), "")


def network_of(address: str) -> str:
    """The network of an address: its first 24 bits, or 48 of IPv6. Empty if it is none."""
    try:
        ip = ip_address(address.partition("/")[0])
    except ValueError:
        return ""
    prefix = _PREFIX_V4 if ip.version == 4 else _PREFIX_V6  # noqa: PLR2004 - the versions of IP
    return str(ip_network((ip, prefix), strict=False))
