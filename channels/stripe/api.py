"""Stripe's API as a client sees it: keys, forms, refusals and lists. https://docs.stripe.com/api

Answers are not signed. That Stripe gave them is known from TLS alone, hence no plain HTTP beyond this machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from channels.kit.json_body import read_json
from channels.stripe.objects import Listed, Page, Refusal, read_refusal
from channels.transport import Response, Transport
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable

PAGE_SIZE = 100
"""The most that Stripe gives at a time."""

PAGE_BYTES_MAX = 4 << 20
"""A hundred events with the objects in them come to about half a megabyte."""

_NOT_FOUND = 404
_CONFLICT = 409
_ERRORS = 400

Fields = Sequence[tuple[str, str]]

_T = TypeVar("_T")


class Refused(ChannelRefused):
    """Stripe understood the request and refused it, with this status and in these words."""

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
        """The answer as it came, a refusal too."""
        url = f"{self._base_url}{path}?{urlencode(query)}" if query else self._base_url + path
        return await self._transport.call("GET", url, headers=self._headers, response_bytes_max=response_bytes_max)

    async def post(self, path: str, form: Fields = (), *, idempotency_key: str = "") -> Response:
        """One change.

        Raises:
            Refused: definite.
            ChannelUnavailable: the same key is at work (409). Stripe keeps the first answer to a key for a day at
                least, and repeats it even when it was a 500: such a creation stays unknown however often it is asked
                for, and nothing can be queried, for its id was never told. Nor can it be paid: nobody has its address.
                When the key is forgotten, the creation is done again, or refused because its time is over.
        """
        headers = self._headers | {"Content-Type": "application/x-www-form-urlencoded"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        url = self._base_url + path
        return require_success(await self._transport.call("POST", url, headers=headers, body=urlencode(form).encode()))

    async def pages(self, path: str, query: Fields, *, pages_max: int) -> AsyncIterator[list[msgspec.Raw]]:
        """A list, page by page, newest first; after `pages_max` pages it ends, whatever there is more.

        Raises:
            ChannelUnreadable: a page is none, or says that there is more and shows nothing.
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
    """The answer, unless it refuses.

    Raises:
        Refused: in Stripe's own words.
        ChannelUnavailable: the same idempotency key is at work.
        ChannelUnreadable: in nobody's words; or the key was used with other parameters, so that there may be something
            under it that is not known here.
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
    """A part of a body that was read before, by `read_json`, so that nothing in it has a key twice."""
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, ValueError):
        raise ChannelUnreadable("object") from None
