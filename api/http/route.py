"""Routes: what one address takes, who may call it and what it gives, and the way from a path to its route.

Dispatch, authentication, body caps and OpenAPI are read from the same rows. `C` is what all handlers share.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from api.http.errors import MethodNotAllowed
from api.http.request import Request, read_json, read_query
from api.http.response import Reply
from core.errors import NodropError, NotFound

JSON_BODY_BYTES_MAX = 160 * 1024
"""The largest order that the schema admits, each character escaped as two surrogates, has 132 KiB."""

C = TypeVar("C")
T = TypeVar("T", bound=msgspec.Struct)


class Auth(StrEnum):
    """The callers that are allowed. A page token and a callback's signature are verified by the handler."""

    ANYONE = "anyone"
    API_KEY = "api_key"
    PAGE_TOKEN = "page_token"  # noqa: S105 - the name of a kind
    SIGNATURE = "signature"


class Media(NamedTuple):
    """The content of a response that is not JSON."""

    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Generic[C]):
    """A handler with what it reads of a request. Made by the four functions below, which check its types."""

    operation_id: str
    respond: Callable[[C, Request], Awaitable[Reply]]
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    body_bytes_max: int = 0


def plain(handler: Callable[[C, Request], Awaitable[Reply]]) -> Endpoint[C]:
    """A handler that takes neither a body nor a query."""
    return Endpoint(operation_id=_operation_id(handler), respond=handler)


def raw_body(bytes_max: int, handler: Callable[[C, Request], Awaitable[Reply]]) -> Endpoint[C]:
    """A handler that reads the bytes of the body itself."""
    return Endpoint(operation_id=_operation_id(handler), respond=handler, body_bytes_max=bytes_max)


def json_body(type_: type[T], handler: Callable[[C, Request, T], Awaitable[Reply]]) -> Endpoint[C]:
    """A handler of a JSON body."""

    async def respond(context: C, request: Request) -> Reply:
        return await handler(context, request, read_json(request, type_))

    operation_id = _operation_id(handler)
    return Endpoint(operation_id=operation_id, respond=respond, body=type_, body_bytes_max=JSON_BODY_BYTES_MAX)


def query(type_: type[T], handler: Callable[[C, Request, T], Awaitable[Reply]]) -> Endpoint[C]:
    """A handler of a query string."""

    async def respond(context: C, request: Request) -> Reply:
        return await handler(context, request, read_query(request, type_))

    return Endpoint(operation_id=_operation_id(handler), respond=respond, query=type_)


def _operation_id(handler: Callable[..., object]) -> str:
    """`orders_place` of `api.v1.orders.place`, `pages_show` of `api.pages.handlers.show`. Clients are generated from
    these names.
    """
    module = handler.__module__.removesuffix(".handlers").rpartition(".")[2]
    return f"{module}_{handler.__name__}"


@dataclass(frozen=True, slots=True)
class Route(Generic[C]):
    """A method and a pattern whose parameters are single segments. `responses` are types, or `Media`, by status."""

    method: str
    pattern: str
    auth: Auth
    endpoint: Endpoint[C]
    summary: str
    responses: Mapping[int, type[msgspec.Struct] | Media]
    faults: Sequence[type[NodropError]] = ()
    is_exempt: bool = False
    """From the cap on requests at once: health and metrics must be readable while the process is overloaded."""


class Match(NamedTuple, Generic[C]):
    """The route of a path, and the parameters in the path."""

    route: Route[C]
    params: Mapping[str, str]


_UNREADABLE = "\ufffd"
_SEGMENT = re.compile(rb"[^\x00-\x1f\x7f]{1,200}")


class Router(Generic[C]):
    """Finds the route of a path. Fixed segments win over parameters, by the order of the table."""

    def __init__(self, routes: Sequence[Route[C]]) -> None:
        self._by_length: dict[int, dict[tuple[str, ...], dict[str, Route[C]]]] = {}
        for route in routes:
            pattern = tuple(route.pattern.split("/"))
            self._by_length.setdefault(len(pattern), {}).setdefault(pattern, {})[route.method] = route

    def find(self, method: str, raw_path: bytes) -> Match[C]:
        """The route and its parameters, percent-decoded.

        Raises:
            NotFound: nothing is at this path.
            MethodNotAllowed: something is, for other methods; its detail names them.
        """
        segments = [_text(segment) for segment in raw_path.split(b"/")]
        for pattern, methods in self._by_length.get(len(segments), {}).items():
            params = _params(pattern, segments)
            if params is not None:
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    raise MethodNotAllowed(", ".join(sorted(methods)))
                return Match(route, params)
        raise NotFound("nothing is at this address")


def _params(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    """The parameters of segments that match the pattern, else None."""
    params: dict[str, str] = {}
    for expected, segment in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not segment:
                return None
            params[expected[1:-1]] = segment
        elif expected != segment:
            return None
    return params


def _text(raw: bytes) -> str:
    """One segment as text; U+FFFD, which no name of ours holds, for one that cannot be a name."""
    decoded = unquote_to_bytes(raw)
    if decoded and _SEGMENT.fullmatch(decoded) is None:
        return _UNREADABLE
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        return _UNREADABLE
