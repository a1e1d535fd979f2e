"""Replies of a handler: a whole response, or a stream of server-sent events. Nothing is cached unless it says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from hashlib import sha256
from http import HTTPStatus

import msgspec
from msgspec.structs import replace

JSON = "application/json"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

NO_STORE = ("cache-control", "no-store")
IMMUTABLE = ("cache-control", "public, max-age=31536000, immutable")

_CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HeaderList = list[tuple[bytes, bytes]]


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A whole response. Header names are lower-case. `gzipped` is its body in gzip, of those that `packing` made."""

    status: int = 200
    body: bytes = b""
    gzipped: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class EventStream(msgspec.Struct, frozen=True, kw_only=True):
    """A response that goes on until its generator ends, the client goes or the process drains.

    `place` is held meanwhile. It is taken before anything is awaited, so that streams which are being opened count too.
    """

    events: AsyncGenerator[bytes, None]
    place: AbstractContextManager[object]


Reply = Response | EventStream

_encoder = msgspec.json.Encoder()


def json_response(value: object, status: int = 200, *headers: tuple[str, str]) -> Response:
    return Response(status=status, body=_encoder.encode(value), headers=headers)


def html_response(page: bytes) -> Response:
    """A page that is about no order: it has no script, and no site may show it within one of its own."""
    return Response(body=page, content_type=HTML, headers=(("content-security-policy", _CSP),))


def unless_known(response: Response, version: int, if_none_match: str) -> Response:
    """The response with an entity tag, or 304 when the client names that one (RFC 9110, 13.1.2).

    The tag begins with the version, and ends with a hash: what is shown may change within a version.
    """
    tag = f'"{version}-{sha256(response.body).hexdigest()[:16]}"'
    headers = (("etag", tag), ("cache-control", "private, no-cache"))
    known = [name.strip().removeprefix("W/") for name in if_none_match.split(",")]
    if tag in known or known == ["*"]:
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return replace(response, headers=(*response.headers, *headers))


def see_other(location: str) -> Response:
    """303: GET that address, whatever the method was here."""
    return Response(status=303, headers=(("location", location),))


def encode_headers(response: Response, *, close: bool) -> HeaderList:
    """Headers for the wire. `close` ends the connection, because what the client still sends will not be read."""
    headers: HeaderList = [(b"x-content-type-options", b"nosniff")]
    if response.status != HTTPStatus.NOT_MODIFIED:  # there it would be the length of the body that is not sent
        headers.append((b"content-length", str(len(response.body)).encode()))
    if response.body and response.content_type:
        headers.append((b"content-type", response.content_type.encode("latin-1")))
    if not any(name == "cache-control" for name, _ in response.headers):
        headers.append((b"cache-control", b"no-store"))
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if close:
        headers.append((b"connection", b"close"))
    return headers
