"""Requests as both clients send them, and what httpx may raise, in the terms of this package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

from nodrop_client.calls import Answer, Call
from nodrop_client.errors import NoAnswer, UnreadableAnswer


def _version() -> str:
    try:
        return version("nodrop-client")
    except PackageNotFoundError:  # used from a checkout
        return "0"


USER_AGENT = f"nodrop-client/{_version()}"

TIMEOUT_S = 30.0
"""The service answers within 25 seconds, also when a channel does not."""

CONNECT_TIMEOUT_S = 5.0

_API_KEY = re.compile(r"[!-~]+", re.ASCII)
"""Characters that a header takes: httpx repeats one that it refuses in the text of its error."""


class Service:
    """The service's address, the merchant's key, and how long an answer may take."""

    def __init__(self, url: str, api_key: str, timeout_s: float) -> None:
        if httpx.URL(url).scheme not in ("http", "https"):
            raise ValueError("the service's address begins with https:// or http://")
        if _API_KEY.fullmatch(api_key) is None:
            raise ValueError("an API key is letters, digits and signs, without spaces or an end of line")
        self._base = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}", "accept": "application/json", "user-agent": USER_AGENT}
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


def answer_of(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Errors of httpx as this package's. Its messages may hold addresses, and are kept as the cause only."""
    try:
        yield
    except httpx.TransportError as error:
        raise NoAnswer(f"no answer: {type(error).__name__}") from error
    except httpx.DecodingError as error:
        raise UnreadableAnswer("the body cannot be unpacked", status=0) from error
