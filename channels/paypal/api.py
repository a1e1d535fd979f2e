"""Calls of PayPal's REST API: access token, one repeat after a 401, meaning of errors.

Nothing is signed in either direction: TLS authenticates PayPal. An error counts only with the `debug_id` that each of
PayPal's errors has; an error of a router in between proves nothing.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec

from channels.kit.signed_message import read_json
from channels.kit.single_flight import SingleFlight
from channels.transport import RESPONSE_BYTES_MAX, Response, Transport, current_urgency
from core.admission import Urgency
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable

RENEW_BEFORE_S = 300.0
"""A token is not used in its last five minutes: the call that carries it takes time, and clocks differ."""

KEEP_AHEAD_S = 900.0
"""`keep_current` renews this long before the end, so that no request waits for a token."""

_OK = frozenset({200, 201, 202, 204})
_UNAUTHORIZED = 401
_UNKNOWN = frozenset({408, 409})
"""409: another request with the same PayPal-Request-Id is still running."""

_CODE = re.compile(r"[A-Z0-9_]{1,64}", re.ASCII)
_Code = Annotated[str, msgspec.Meta(pattern=rf"\A{_CODE.pattern}\Z")]


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,4096}\Z")]
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class _Detail(msgspec.Struct, frozen=True, kw_only=True):
    """Newer calls name an issue by a code, older ones (reporting) by a sentence."""

    issue: str | None = None


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    name: _Code
    debug_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    details: tuple[_Detail, ...] = ()


class Api:
    """One account's calls. `base_url` has no slash at its end."""

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        client_id: str,
        client_secret: str,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._base_url = base_url
        self._basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._clock = clock
        self._token_calls: SingleFlight[Urgency | None, str] = SingleFlight()
        self._token = ""
        self._token_until = 0.0

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        response_bytes_max: int = RESPONSE_BYTES_MAX,
    ) -> Response:
        """Return the response, unless its status leaves the outcome unknown. One deadline covers the token too.

        A 401 means that the token ended early (PayPal may do that at any time): one new token and one repeat.

        Raises:
            ChannelUnavailable: as the transport, and for 408 and 409.
            ChannelUnreadable: as the transport, and when no token is granted or a new one is refused too.
        """
        try:
            async with asyncio.timeout(self._transport.timeout_s):
                return await self._call(method, path, body, headers, response_bytes_max)
        except TimeoutError:
            raise ChannelUnavailable("timed_out") from None

    async def _call(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None, response_bytes_max: int
    ) -> Response:
        token = await self._current_token()
        response = await self._send(method, path, body, token, headers, response_bytes_max)
        if response.status == _UNAUTHORIZED:
            if token == self._token:
                self._token = ""
            token = await self._current_token()
            response = await self._send(method, path, body, token, headers, response_bytes_max)
        if response.status == _UNAUTHORIZED:
            raise ChannelUnreadable("unauthorized")
        if response.status in _UNKNOWN:
            raise ChannelUnavailable(f"status_{response.status}")
        return response

    async def keep_current(self) -> None:
        """Renew the token ahead of its end. An unused account has none and gets none."""
        if self._token and self._clock() >= self._token_until - KEEP_AHEAD_S:
            await self._renewed_token()

    async def _current_token(self) -> str:
        if self._token and self._clock() < self._token_until:
            return self._token
        return await self._renewed_token()

    async def _renewed_token(self) -> str:
        """One call for all who need it with the same urgency: nobody waits for the share of strangers."""
        return await self._token_calls.run(current_urgency(), self._fetch_token)

    async def _fetch_token(self) -> str:
        requested_at = self._clock()
        response = await self._transport.call(
            "POST",
            f"{self._base_url}/v1/oauth2/token",
            headers={
                "Authorization": f"Basic {self._basic}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            body=b"grant_type=client_credentials",
        )
        if response.status not in _OK:
            raise ChannelUnreadable(f"token_status_{response.status}")
        token = read_json(response.body, _Token)
        self._token_until = requested_at + max(token.expires_in - RENEW_BEFORE_S, token.expires_in / 2)
        self._token = token.access_token
        return token.access_token

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        token: str,
        headers: Mapping[str, str] | None,
        response_bytes_max: int,
    ) -> Response:
        return await self._transport.call(
            method,
            self._base_url + path,
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                **(headers or {}),
            },
            body=body,
            response_bytes_max=response_bytes_max,
        )


def require_success(response: Response) -> Response:
    """Return the response unless it is a refusal.

    Raises:
        ChannelRefused: by PayPal; `code` is the issue if one is named, else the error's name.
        ChannelUnreadable: the error is not of PayPal's form.
    """
    if response.status in _OK:
        return response
    error = read_json(response.body, _Error)
    issues = [detail.issue for detail in error.details if detail.issue and _CODE.fullmatch(detail.issue)]
    raise ChannelRefused(issues[0] if issues else error.name)


def is_not_found(body: bytes) -> bool | None:
    """Whether the body is a not-found error; None when it is no error."""
    try:
        return read_json(body, _Error).name == "RESOURCE_NOT_FOUND"
    except ChannelUnreadable:
        return None
