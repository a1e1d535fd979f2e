"""What both clients share: the requests that they send, and what httpx may raise, in the terms of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

from nodrop_client.calls import Answer, Call
from nodrop_client.errors import NoAnswer, UnreadableAnswer

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
"""The service answers within 25 seconds, also when a channel does not."""


def base_of(url: str) -> str:
    """The service's address, without the slash at its end."""
    if httpx.URL(url).scheme not in ("http", "https"):
        raise ValueError("the service's address begins with https:// or http://")
    return url.rstrip("/")


def headers_of(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}", "accept": "application/json", "user-agent": _USER_AGENT}


def request_of(base: str, headers: dict[str, str], call: Call[Any]) -> dict[str, Any]:
    """The arguments for httpx."""
    return {
        "method": call.method,
        "url": base + call.path,
        "params": dict(call.query) or None,
        "content": call.content,
        "headers": headers | dict(call.headers),
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


def _version() -> str:
    try:
        return version("nodrop-client")
    except PackageNotFoundError:  # used from a checkout
        return "0"


_USER_AGENT = f"nodrop-client/{_version()}"
