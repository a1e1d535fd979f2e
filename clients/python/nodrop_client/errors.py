"""Every fault of a call as one tree, made from the service's problem documents (RFC 9457).

NodropError
├── NoAnswer              no answer came: the outcome is unknown, and the same call again is safe
│   └── AnswerTooSlow     it was not whole within `timeout_s`
├── UnreadableAnswer      an answer that is not the service's, as of a proxy or a router
│   └── AnswerTooLarge    it has more than `answer_bytes_max` bytes
├── NotDefinite           `watch` ended, and the order was still open
├── NotificationRejected  not to be acknowledged
│   ├── NotificationForged
│   ├── NotificationStale
│   └── NotificationUnreadable
└── Problem               the service said no
    ├── InvalidRequest, Unauthorized, Forbidden, NotFound, UnknownAccount
    ├── OrderConflict, NumberTaken, OrderPaid, OrderClosed, PaymentUnclear, PaymentRefused
    └── TooManyRequests, Unavailable   the same call again after `retry_after_s`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from nodrop_client.models import Order

_GATEWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_REQUEST_URN = "urn:nodrop:request:"


class NodropError(Exception):
    """`is_transient`: the same call again may succeed, and nothing happens twice."""

    is_transient = False
    retry_after_s: float | None = None


class NoAnswer(NodropError):
    is_transient = True


class AnswerTooSlow(NoAnswer):
    """The answer was not whole in time, however much of it came."""


class UnreadableAnswer(NodropError):
    def __init__(self, detail: str, *, status: int) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class AnswerTooLarge(UnreadableAnswer):
    """The rest of the answer was not read."""


class NotDefinite(NodropError):
    """`order` is the last one that was read, None if none was. It says nothing about money: it may be paid yet."""

    def __init__(self, order: Order | None) -> None:
        super().__init__("the order is not definite yet" if order else "the order could not be read")
        self.order = order


class NotificationRejected(NodropError):
    pass


class NotificationForged(NotificationRejected):
    pass


class NotificationStale(NotificationRejected):
    pass


class NotificationUnreadable(NotificationRejected):
    pass


class Problem(NodropError):
    """`slug` is made for programs, `detail` for people. `trace_id` finds the request in the service's log."""

    def __init__(
        self,
        *,
        status: int,
        type_: str = "",
        title: str = "",
        detail: str = "",
        trace_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.status, self.type, self.title, self.detail, self.trace_id = status, type_, title, detail, trace_id
        self.retry_after_s = retry_after_s
        parts = (f"{status} {self.slug}".strip(), title, detail, trace_id and f"trace {trace_id}")
        super().__init__(": ".join(filter(None, parts)))

    @property
    def slug(self) -> str:
        """The last part of `type`: "order_conflict". Empty if that is no address."""
        return _slug(self.type)


class InvalidRequest(Problem):
    pass


class Unauthorized(Problem):
    pass


class Forbidden(Problem):
    pass


class NotFound(Problem):
    pass


class UnknownAccount(Problem):
    pass


class OrderConflict(Problem):
    """An order with this number exists with other terms."""


class NumberTaken(Problem):
    pass


class OrderPaid(Problem):
    pass


class OrderClosed(Problem):
    pass


class PaymentUnclear(Problem):
    """An earlier payment of the order may still be paid; another one can be started once its channel has answered."""


class PaymentRefused(Problem):
    pass


class TooManyRequests(Problem):
    is_transient = True


class Unavailable(Problem):
    """The outcome is unknown: the same call again, or `get`, tells it."""

    is_transient = True


_KINDS: Mapping[str, type[Problem]] = {
    "invalid_request": InvalidRequest,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "unknown_account": UnknownAccount,
    "order_conflict": OrderConflict,
    "number_taken": NumberTaken,
    "order_paid": OrderPaid,
    "order_closed": OrderClosed,
    "payment_unclear": PaymentUnclear,
    "payment_refused": PaymentRefused,
    "too_many_requests": TooManyRequests,
    "channel_unavailable": Unavailable,
    "unavailable": Unavailable,
}


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> NodropError:
    """The error of an answer that is not a success. Only a problem document is the service's own word: a 404 of a
    router during a deploy is not "no such order".
    """
    retry_after_s = _retry_after_s(headers.get("retry-after", ""))
    fields = _problem_fields(headers, content)
    if fields is None and status in _GATEWAY:
        return Unavailable(status=status, retry_after_s=retry_after_s)
    if fields is None and status == HTTPStatus.TOO_MANY_REQUESTS:
        return TooManyRequests(status=status, retry_after_s=retry_after_s)
    if fields is None:
        return UnreadableAnswer("the answer is no problem document", status=status)
    type_, instance = fields.get("type", ""), fields.get("instance", "")
    kind = _KINDS.get(_slug(type_), Problem if status < HTTPStatus.INTERNAL_SERVER_ERROR else Unavailable)
    return kind(
        status=status,
        type_=type_,
        title=fields.get("title", ""),
        detail=fields.get("detail", ""),
        trace_id=instance.removeprefix(_REQUEST_URN) if instance.startswith(_REQUEST_URN) else "",
        retry_after_s=retry_after_s,
    )


def _slug(type_: str) -> str:
    try:
        return urlsplit(type_).path.rpartition("/")[2]
    except ValueError:
        return ""


def _problem_fields(headers: Mapping[str, str], content: bytes) -> dict[str, str] | None:
    if headers.get("content-type", "").partition(";")[0].strip() != "application/problem+json":
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return {name: value for name, value in document.items() if isinstance(value, str)}


def _retry_after_s(text: str) -> float | None:
    """The seconds of the header. The form with a date needs a clock that agrees with the server's, and is ignored."""
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None  # noqa: PLR2004 - a week is shorter
