"""Routes: what one address takes, who may call it and what it gives. `C` is the context that all handlers share.

Dispatch, authentication, body caps and OpenAPI are read from the same rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

import msgspec

from api.http.fields import read_json, read_query
from api.http.request import Request
from api.http.response import Reply
from core.act_names import ActName
from core.errors import NodropError
from core.operators import Role
from storage.postgres.api_keys import Scope

JSON_BODY_BYTES_MAX = 160 * 1024
"""The largest order that the schema admits, each character escaped as two surrogates, has 132 KiB."""

C = TypeVar("C")
T = TypeVar("T", bound=msgspec.Struct)


class Auth(StrEnum):
    """The callers that are allowed. A page token and a callback's signature are verified by the handler."""

    ANYONE = "anyone"
    API_KEY = "api_key"
    PAGE_TOKEN = "page_token"  # noqa: S105 - the name of a kind
    OPERATOR = "operator"
    SIGNATURE = "signature"


class Media(NamedTuple):
    """The content of a response that is not JSON."""

    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Generic[C]):
    """A handler with what it reads of a request. Made by the functions below, which check its types."""

    operation_id: str
    respond: Callable[[C, Request], Awaitable[Reply]]
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    body_bytes_max: int = 0
    needs_body: bool = True


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


def optional_json_body(type_: type[T], handler: Callable[[C, Request, T], Awaitable[Reply]]) -> Endpoint[C]:
    """A handler of a JSON body that may be left out: then it is that of an empty object."""

    async def respond(context: C, request: Request) -> Reply:
        return await handler(context, request, read_json(request, type_) if request.body else type_())

    operation_id = _operation_id(handler)
    return Endpoint(
        operation_id=operation_id, respond=respond, body=type_, body_bytes_max=JSON_BODY_BYTES_MAX, needs_body=False
    )


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
    scope: Scope | None = None
    """The scope that an API key needs here."""
    is_exempt: bool = False
    """From the cap on requests at once: health and metrics must be readable while the process is overloaded."""
    is_shared: bool = False
    """Pages of the origins in PAGE_ORIGINS may read the responses. They hold no cookie and no key."""
    role: Role | None = None
    """The role that an operator needs here."""
    has_own_record: bool = False
    """Its handler writes the act down, with the reason in the body, and no dry run."""
    act: ActName | None = None
    """The act that each call is, which is written down before the handler is called."""
    preview: type[msgspec.Struct] | None = None
    """The 200 of a dry run, where it is none of the responses."""

    def __post_init__(self) -> None:
        if (self.auth is Auth.API_KEY) is not (self.scope is not None):
            raise ValueError(f"{self.method} {self.pattern}: a route has a scope exactly when it takes an API key")
        if (self.auth is Auth.OPERATOR) is not (self.role is not None):
            raise ValueError(f"{self.method} {self.pattern}: a route has a role exactly when it is for operators")
        if (self.scope is Scope.OPERATE and not self.has_own_record) is not (self.act is not None):
            raise ValueError(f"{self.method} {self.pattern}: whoever operates leaves a record: its own, or of an act")
