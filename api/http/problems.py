"""RFC 9457 problem details of faults, by one table. `api.pages.problems` has the page of each type.

A problem says what the caller can act upon and nothing else: never a stack, a value of ours or another order's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec

from api.http.errors import BodyTooLarge, BodyTooSlow, Forbidden, MethodNotAllowed, Unauthorized, UnsupportedBody
from api.http.response import Response
from core import errors
from core.act_view import PreviewView, view_preview

PROBLEM_JSON = "application/problem+json"

RETRY_AFTER_S = 15
"""Channels send a callback again by themselves; a merchant's client should not be faster while we are down."""

UNEXPECTED = "internal_error"
UNAVAILABLE = "unavailable"


class Kind(NamedTuple):
    """The status of a fault and the stable last part of its type's address."""

    status: int
    slug: str


KINDS: Mapping[type[errors.NodropError], Kind] = MappingProxyType(
    {
        errors.InvalidRequest: Kind(400, "invalid_request"),
        Unauthorized: Kind(401, "unauthorized"),
        Forbidden: Kind(403, "forbidden"),
        errors.NotFound: Kind(404, "not_found"),
        errors.UnknownAccount: Kind(404, "unknown_account"),
        MethodNotAllowed: Kind(405, "method_not_allowed"),
        BodyTooSlow: Kind(408, "body_too_slow"),
        errors.OrderConflict: Kind(409, "order_conflict"),
        errors.NumberTaken: Kind(409, "number_taken"),
        errors.RefundConflict: Kind(409, "refund_conflict"),
        errors.NotPossible: Kind(409, "not_possible"),
        errors.PreviewOutdated: Kind(409, "preview_outdated"),
        errors.OrderPaid: Kind(409, "order_paid"),
        errors.OrderClosed: Kind(409, "order_closed"),
        errors.PaymentUnclear: Kind(409, "payment_unclear"),
        BodyTooLarge: Kind(413, "body_too_large"),
        UnsupportedBody: Kind(415, "unsupported_body"),
        errors.PaymentRefused: Kind(422, "payment_refused"),
        errors.TooManyRequests: Kind(429, "too_many_requests"),
        errors.CallbackForged: Kind(401, "callback_forged"),
        errors.CallbackStale: Kind(400, "callback_stale"),
        errors.CallbackRejected: Kind(400, "callback_rejected"),
        # Whether anything happened is not known, so: the same request again, which is safe for every address of ours.
        errors.OutcomeUnknown: Kind(503, "channel_unavailable"),
        errors.StorageError: Kind(503, UNAVAILABLE),
    }
)

_TITLES = {UNEXPECTED: "Something went wrong on our side.", UNAVAILABLE: "The service cannot answer at this moment."}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details. `type` is the address of a page about it, `detail` is made for people.

    A program compares the last part of `type`, which is stable, as in `order_conflict`. `preview` is there with
    `preview_outdated`: what the act would do now.
    """

    type: Annotated[str, msgspec.Meta(extra_json_schema={"format": "uri"})]
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    preview: PreviewView | None = None


def kind_of(error: BaseException) -> Kind:
    """The row of the nearest class in the tree; anything that is not in it is a bug of ours."""
    return kind_of_type(type(error))


def kind_of_type(fault: type[BaseException]) -> Kind:
    """The row of a class of faults, as `kind_of`."""
    for base in fault.__mro__:
        if base in KINDS:
            return KINDS[base]
    return Kind(500, UNEXPECTED)


def type_of(slug: str, public_url: str) -> str:
    """`https://pay.example.com/problems/not_found`: absolute, for it is also read where nobody knows who sent it."""
    return f"{public_url.rstrip('/')}/problems/{slug}"


class Problems:
    """Makes the responses. `public_url` is the address under which callers reach this service."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    def response(self, error: BaseException, request_id: str, *headers: tuple[str, str]) -> Response:
        """The problem of this fault. A fault of ours is not explained to the outside, nor a forgery to its maker."""
        kind = kind_of(error)
        is_silent = kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, errors.CallbackRejected)
        detail = "" if is_silent or not isinstance(error, errors.NodropError) else error.detail
        preview = view_preview(error.preview) if isinstance(error, errors.PreviewOutdated) else None
        return self._response(kind, detail, request_id, *_headers(error, kind), *headers, preview=preview)

    def overloaded(self, request_id: str) -> Response:
        """More requests at once than this process takes: refused at once, rather than by a time-out."""
        return self._response(Kind(503, UNAVAILABLE), "too many requests at once", request_id, ("retry-after", "2"))

    def out_of_time(self, request_id: str) -> Response:
        """The handler did not finish within its deadline; the sweep finds again what it was doing."""
        return self._response(
            Kind(503, UNAVAILABLE), "not done in time", request_id, ("retry-after", str(RETRY_AFTER_S))
        )

    def _response(
        self,
        kind: Kind,
        detail: str,
        request_id: str,
        *headers: tuple[str, str],
        preview: PreviewView | None = None,
    ) -> Response:
        problem = Problem(
            type=type_of(kind.slug, self._public_url),
            title=title_of(kind.slug),
            status=kind.status,
            detail=detail,
            instance=f"urn:nodrop:request:{request_id}",
            preview=preview,
        )
        body = msgspec.json.encode(problem)
        return Response(status=kind.status, body=body, content_type=PROBLEM_JSON, headers=headers)


def _headers(error: BaseException, kind: Kind) -> tuple[tuple[str, str], ...]:
    match kind.status:
        case 401:
            # RFC 9110 wants a challenge with every 401; a callback is authenticated by its signature.
            scheme = 'Bearer realm="nodrop"' if isinstance(error, Unauthorized) else 'Signature realm="nodrop"'
            return (("www-authenticate", scheme),)
        case 429 if isinstance(error, errors.TooManyRequests):
            return (("retry-after", str(max(1, ceil(error.retry_after_s)))),)
        case 503:
            return (("retry-after", str(RETRY_AFTER_S)),)
    return ()


def all_kinds() -> dict[str, Kind]:
    """Every type of problem there is, by its slug."""
    return {kind.slug: kind for kind in (*KINDS.values(), Kind(500, UNEXPECTED))}


def title_of(slug: str) -> str:
    """The sentence for people."""
    if slug in _TITLES:
        return _TITLES[slug]
    return next(error.title for error, kind in KINDS.items() if kind.slug == slug)
