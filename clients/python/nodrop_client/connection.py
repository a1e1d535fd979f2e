"""Requests as both clients send them, limits of an answer, and what httpx may raise, in the terms of this package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

from nodrop_client.calls import Answer, Call
from nodrop_client.errors import AnswerTooLarge, AnswerTooSlow, NoAnswer, UnreadableAnswer


def _version() -> str:
    try:
        return version("nodrop-client")
    except PackageNotFoundError:  # used from a checkout
        return "0"


USER_AGENT = f"nodrop-client/{_version()}"

TIMEOUT_S = 30.0
"""The service answers within 25 seconds, also when a channel does not."""

CONNECT_TIMEOUT_S = 5.0

ANSWER_BYTES_MAX = 32 * 1024 * 1024
"""A page of 200 orders whose metadata are as large as they may be has about 10 MiB."""

_PACKINGS = ("", "identity", "gzip", "deflate")
"""Content-Encoding of one layer, of which a chunk grows to 64 MiB at most. httpx would also take others, and layers."""

_API_KEY = re.compile(r"[!-~]+", re.ASCII)
"""Characters that a header takes: httpx repeats one that it refuses in the text of its error."""


class Service:
    """The service's address, the merchant's key, how long an answer may take and how large it may be."""

    def __init__(self, url: str, api_key: str, timeout_s: float, answer_bytes_max: int) -> None:
        if httpx.URL(url).scheme not in ("http", "https"):
            raise ValueError("the service's address begins with https:// or http://")
        if _API_KEY.fullmatch(api_key) is None:
            raise ValueError("an API key is letters, digits and signs, without spaces or an end of line")
        self._base = url.rstrip("/")
        self._headers = {
            "authorization": f"Bearer {api_key}",
            "accept": "application/json",
            "accept-encoding": "gzip",
            "user-agent": USER_AGENT,
        }
        self.timeout_s, self.answer_bytes_max = timeout_s, answer_bytes_max
        self._timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments for httpx, also those for which a client that was given has its own."""
        return {
            "method": call.method,
            "url": self._base + call.path,
            "params": dict(call.query) or None,
            "content": call.content,
            "headers": self._headers | dict(call.headers),
            "timeout": self._timeout,
            "follow_redirects": False,  # the key goes nowhere else
        }


class Reading:
    """One answer as it comes: within the size, and until the time `ends_at`. The rest is not read.

    Raises:
        UnreadableAnswer: nobody asked for a body that is packed like this.
        AnswerTooLarge, AnswerTooSlow
    """

    def __init__(self, response: httpx.Response, service: Service, ends_at: float) -> None:
        self._response, self._service, self._ends_at = response, service, ends_at
        self._content = bytearray()
        if response.headers.get("content-encoding", "").strip().lower() not in _PACKINGS:
            raise UnreadableAnswer("the body is packed in an unknown way", status=response.status_code)

    def take(self, chunk: bytes, now: float) -> None:
        self._content += chunk
        if len(self._content) > self._service.answer_bytes_max:
            detail = f"the answer has more than {self._service.answer_bytes_max} bytes"
            raise AnswerTooLarge(detail, status=self._response.status_code)
        if now > self._ends_at:
            raise too_slow(self._service)

    def answer(self) -> Answer:
        return Answer(self._response.status_code, self._response.headers, bytes(self._content))


def too_slow(service: Service) -> AnswerTooSlow:
    return AnswerTooSlow(f"no whole answer within {service.timeout_s:g} s")


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Errors of httpx as this package's. Its messages may hold addresses, and are kept as the cause only."""
    try:
        yield
    except httpx.TransportError as error:
        raise NoAnswer(f"no answer: {type(error).__name__}") from error
    except httpx.DecodingError as error:
        raise UnreadableAnswer("the body cannot be unpacked", status=0) from error
