r"""Alipay's wire format: strings to sign, the signed part of a response, the fields of a form.

Signatures cover raw bytes: a response's node is its exact substring, with `\/` and white space, and a callback's values
are URL-decoded once and never re-encoded. Nothing here knows a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from core.errors import ChannelUnreadable

ZONE = timezone(timedelta(hours=8))
"""Time zone of all of Alipay's times and days."""

FORM_FIELDS_MAX = 200
"""A callback about a payment has about 30."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_ENCODED = re.compile(rb"(?:[\x21-\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*")
_NAME = re.compile(rb"[0-9A-Za-z_.\-]{1,64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,3})?", re.ASCII)


class Envelope(NamedTuple):
    """The parts of a response: the signed bytes and their signature. `sign` None: unsigned."""

    node: bytes
    sign: str | None
    cert_sn: str


def string_to_sign(parameters: Mapping[str, str]) -> bytes:
    """String to sign of a request: all parameters but `sign` and empty ones, sorted, values before URL encoding."""
    signed = {name: value for name, value in parameters.items() if value and name != "sign"}
    return "&".join(f"{name}={signed[name]}" for name in sorted(signed)).encode()


def callback_string(form: Mapping[bytes, bytes], excluded: Collection[bytes]) -> bytes:
    """String to sign of a callback: all received fields but `excluded`, sorted, in the callback's charset."""
    return b"&".join(b"%b=%b" % (name, form[name]) for name in sorted(form) if name not in excluded)


def read_envelope(body: bytes, node_name: str) -> Envelope:
    """The node of this name, or else `error_response`, at the top level only.

    Raises:
        ChannelUnreadable: no JSON object, text after it, a repeated key (of which the signature covers one),
            both nodes or none, or a node that is no object.
    """
    members: dict[str, bytes] = {}
    try:
        # As Latin-1 each byte is one character, so a member's text is exactly its bytes.
        for name, value in _members(body.decode("latin-1")):
            if name in members:
                raise ChannelUnreadable("key_twice")
            members[name] = value.encode("latin-1")
    except (ValueError, RecursionError):
        raise ChannelUnreadable("body") from None
    nodes = [members[name] for name in (node_name, "error_response") if name in members]
    if len(nodes) != 1 or not nodes[0].startswith(b"{"):
        raise ChannelUnreadable("node")
    sign = members.get("sign")
    return Envelope(nodes[0], None if sign is None else _text(sign), _text(members.get("alipay_cert_sn", b'""')))


def read_form(body: bytes) -> dict[bytes, bytes]:
    """The fields of a form, decoded once; they stay bytes because the charset is one of the fields.

    Raises:
        ValueError: malformed, too many fields, an invalid name, or a repeated one, which two parsers read differently.
    """
    form: dict[bytes, bytes] = {}
    pairs = body.split(b"&", FORM_FIELDS_MAX)
    if len(pairs) > FORM_FIELDS_MAX:
        raise ValueError("too many fields")
    for pair in pairs:
        name, equals, value = pair.partition(b"=")
        if not name or not equals or not _ENCODED.fullmatch(pair):
            raise ValueError("not a field")
        decoded = _decode(name)
        if decoded in form or not _NAME.fullmatch(decoded):
            raise ValueError("repeated field or invalid name")
        form[decoded] = _decode(value)
    return form


def has_embedded_field(form: Mapping[bytes, bytes], names: Collection[bytes]) -> bool:
    """Whether a value contains text that looks like one of these fields in the signed string.

    `subject=a&total_amount=1` is the same string as one field or as two, so its signature proves neither.
    """
    return any(b"&%b=" % name in value for name in names for value in form.values() if b"&" in value)


def time_text(at: datetime) -> str:
    """Format a time in Alipay's zone: `2026-11-23 12:00:00`."""
    return at.astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S")


def read_time(text: str) -> datetime:
    """Parse a time in Alipay's zone, with or without milliseconds.

    Raises:
        ValueError: another form, or no valid time.
    """
    if _TIME.fullmatch(text) is None:
        raise ValueError("not a time")
    whole, _, fraction = text.partition(".")
    local = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE)
    return (local + timedelta(milliseconds=int(fraction.ljust(3, "0")))).astimezone(UTC)


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Name and raw text of each member of a JSON object."""
    at = _after(text, 0, "{")
    while True:
        name, end = _DECODER.raw_decode(text, _skip(text, at))
        if not isinstance(name, str):
            raise ValueError("a name is a string")  # noqa: TRY004 - as for every other fault of the text
        start = _skip(text, _after(text, end, ":"))
        _, end = _DECODER.raw_decode(text, start)
        yield name, text[start:end]
        mark = _skip(text, end)
        if text[mark : mark + 1] != ",":
            break
        at = mark + 1
    if _skip(text, _after(text, end, "}")) != len(text):
        raise ValueError("more after the object")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None, "it matches nothing too"
    return match.end()


def _after(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"{mark} is missing")
    return at + 1


def _text(member: bytes) -> str:
    if not member.startswith(b'"'):
        raise ChannelUnreadable("sign")
    return str(json.loads(member.decode("latin-1")))


def _decode(encoded: bytes) -> bytes:
    return unquote_to_bytes(encoded.replace(b"+", b" "))
