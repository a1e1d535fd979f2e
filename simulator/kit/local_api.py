"""Access check and request parsing of the control APIs of channel and merchant."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import parse_qs

from simulator.kit.asgi import BadBody, Handler, Reply, Request, Response, decode, problem

T = TypeVar("T")


class Refused(Exception):
    """The request is refused with `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def loopback_only(handler: Handler) -> Handler:
    """Wrap a handler: only processes of this machine may call it, by peer and Host, and no browser page."""

    async def guarded(request: Request) -> Reply:
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
        if not (_is_loopback(request.client) and _is_loopback(host.strip("[]"))) or "origin" in request.headers:
            return problem(403, "LOOPBACK_ONLY", "the control API answers processes of this machine only")
        try:
            return await handler(request)
        except Refused as refused:
            return refused.response

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def body_of(request: Request, type_: type[T], *, empty: T | None = None) -> T:
    """Return the body as `type_`, or `empty` if there is none; raises Refused."""
    if empty is not None and not request.body:
        return empty
    try:
        return decode(request.body, type_)
    except BadBody as error:
        raise Refused(problem(400, "INVALID_PARAMETER", str(error))) from error


def number_of(request: Request, name: str, default: float) -> float:
    """Return a number from the query; raises Refused."""
    text = parse_qs(request.query).get(name, [str(default)])[0]
    try:
        return float(text)
    except ValueError as error:
        raise Refused(problem(400, "INVALID_PARAMETER", f"{name} is a number")) from error
