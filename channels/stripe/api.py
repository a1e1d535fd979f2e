"""Calls of Stripe's API: keys, forms, refusals and lists. https://docs.stripe.com/api

Responses are not signed. Only TLS authenticates Stripe, hence no plain HTTP beyond this machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from channels.kit.signed_message import read_json
from channels.stripe.objects import Listed, Page, Refusal, read_refusal
from channels.transport import Response, Transport
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable

PAGE_SIZE = 100
"""Stripe's maximum."""

PAGE_BYTES_MAX = 4 << 20
"""A hundred events with their objects are about half a megabyte."""

_NOT_FOUND = 404
_CONFLICT = 409
_ERRORS = 400

Fields = Sequence[tuple[str, str]]

_T = TypeVar("_T")


class Refused(ChannelRefused):
    """Stripe understood the request and refused it, with this status and refusal."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.code_or_type)
        self.status = status
        self.refusal = refusal

    @property
    def is_missing(self) -> bool:
        return self.status == _NOT_FOUND and self.code == "resource_missing"


class Api:
    """Calls on behalf of one secret key."""

    def __init__(self, transport: Transport, base_url: str, secret_key: str, version: str) -> None:
        self._transport = transport
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {secret_key}", "Stripe-Version": version}

    async def get(self, path: str, query: Fields = (), *, response_bytes_max: int = 1 << 20) -> Response:
        """Return the response of a GET, even if it is a refusal."""
        url = f"{self._base_url}{path}?{urlencode(query)}" if query else self._base_url + path
        return await self._transport.call("GET", url, headers=self._headers, response_bytes_max=response_bytes_max)

    async def post(self, path: str, form: Fields = (), *, idempotency_key: str = "") -> Response:
        """Send a change and return its response.

        Raises:
            Refused: definite.
            ChannelUnavailable: a request with the same key is running (409). Stripe keeps the first response to a key
                for at least a day and repeats even a 500. Such a creation stays unknown: without its id it cannot be
                queried, and without its address it cannot be paid. Once the key is forgotten, the creation is done
                again, or refused because its time is over.
        """
        headers = self._headers | {"Content-Type": "application/x-www-form-urlencoded"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        url = self._base_url + path
        return require_success(await self._transport.call("POST", url, headers=headers, body=urlencode(form).encode()))

    async def pages(self, path: str, query: Fields, *, pages_max: int) -> AsyncIterator[list[msgspec.Raw]]:
        """Pages of a list, newest first, at most `pages_max` of them.

        Raises:
            ChannelUnreadable: a page is malformed, or empty although more should follow.
        """
        after: Fields = ()
        for _ in range(pages_max):
            page_query = [*query, ("limit", str(PAGE_SIZE)), *after]
            response = require_success(await self.get(path, page_query, response_bytes_max=PAGE_BYTES_MAX))
            page = read_json(response.body, Page)
            yield page.data
            if not page.has_more:
                return
            if not page.data:
                raise ChannelUnreadable("empty_page")
            after = (("starting_after", read_raw(page.data[-1], Listed).id),)


def require_success(response: Response) -> Response:
    """Return the response unless it is a refusal.

    Raises:
        Refused: by Stripe.
        ChannelUnavailable: a request with the same idempotency key is running.
        ChannelUnreadable: an error that is not Stripe's, or the key was used with other parameters, so an unknown
            object may exist under it.
    """
    if response.status < _ERRORS:
        return response
    refusal = read_refusal(response.body)
    if response.status == _CONFLICT:
        raise ChannelUnavailable(f"status_{_CONFLICT}")
    if refusal.type == "idempotency_error":
        raise ChannelUnreadable("idempotency_error")
    raise Refused(response.status, refusal)


def read_raw(raw: msgspec.Raw, type_: type[_T]) -> _T:
    """Decode a part of a body that `read_json` has read, so it has no repeated key."""
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, ValueError):
        raise ChannelUnreadable("object") from None
