"""Calls of Alipay's gateway: signed requests and verified responses.

The status is always 200; the result is the `code` in the signed node. A 4000x without a signature proves nothing:
neither payment nor failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode, urlsplit

import msgspec

from channels.alipay.account import Credentials
from channels.alipay.keys import KeyRing
from channels.alipay.trade import ID
from channels.alipay.wire import read_envelope, string_to_sign, time_text
from channels.kit.signed_message import read_json
from channels.kit.web_address import web_address
from channels.transport import Response, Transport
from core.account import AccountConfig
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable, ConfigurationError

LIVE_GATEWAY = "https://openapi.alipay.com/gateway.do"
TEST_GATEWAY = "https://openapi-sandbox.dl.alipaydev.com/gateway.do"
LIVE_DOMAIN = "alipay.com"
TEST_DOMAIN = "alipaydev.com"
DOMAINS = (LIVE_DOMAIN, "alipayobjects.com", TEST_DOMAIN)
"""Alipay's own domains; statement files are on hosts below them."""

_BUSY = ("SYSTEM_ERROR", "SYSTEM_RATE_LIMIT", "USER_RATE_LIMIT")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result in every node: code 10000 is success, others have a `sub_code`.

    The prefixes of `sub_code` (ACQ., aop.ACQ., isp.) vary, so only the part after the last dot is compared.
    """

    code: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{5}\Z")]
    sub_code: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_.\-]{1,64}\Z")] | None = None
    out_trade_no: Annotated[str, msgspec.Meta(pattern=rf"\A(?:{ID})?\Z")] | None = None

    @property
    def reason(self) -> str:
        return self.sub_code or self.code

    @property
    def short_code(self) -> str:
        return self.reason.rpartition(".")[2]


class Gateway:
    """The gateway calls of one application."""

    def __init__(
        self,
        account: AccountConfig,
        credentials: Credentials,
        keys: KeyRing,
        transport: Transport,
        clock: Callable[[], float],
    ) -> None:
        self._url = gateway_url(account)
        self._host = urlsplit(self._url).hostname or ""
        self._is_live = account.live
        self._app_id = credentials.app_id
        self._app_auth_token = credentials.app_auth_token
        self._keys = keys
        self._transport = transport
        self._clock = clock

    async def call(self, method: str, body: Mapping[str, str]) -> bytes:
        """Return the verified node of a successful call. Raises as `send`, `verified_node` and `require_success`."""
        return require_success(self.verified_node(method, await self.send(method, body)))

    async def send(self, method: str, body: Mapping[str, str], *, notify_url: str = "") -> Response:
        """Send a signed request. Only `charset` is in the address, where the gateway needs it and logs may show it."""
        parameters = self._signed(method, body, notify_url=notify_url)
        charset = parameters.pop("charset")
        return await self._transport.call(
            "POST",
            f"{self._url}?charset={charset}",
            headers={"Content-Type": f"application/x-www-form-urlencoded;charset={charset}"},
            body=urlencode(parameters).encode(),
        )

    def page(self, method: str, body: Mapping[str, str], *, notify_url: str, return_url: str) -> str:
        """Return the whole call as an address for the buyer's browser."""
        parameters = self._signed(method, body, notify_url=notify_url, return_url=return_url)
        return f"{self._url}?{urlencode(parameters)}"

    def verified_node(self, method: str, response: Response) -> bytes:
        """Return the bytes of the response's node after verifying its signature.

        Raises:
            ChannelUnreadable: it does not verify, or there is no such node.
        """
        if response.status != HTTPStatus.OK:
            raise ChannelUnreadable(f"status_{response.status}")
        envelope = read_envelope(response.body, f"{method.replace('.', '_')}_response")
        if envelope.sign is None:
            # The reason is for people, not for decisions.
            raise ChannelUnreadable(f"unsigned_{read_json(envelope.node, Outcome).reason}")
        if not self._keys.verifies("answer", envelope.sign, envelope.node, envelope.cert_sn):
            raise ChannelUnreadable("signature")
        return envelope.node

    def statement_address(self, text: str) -> str:
        """Return the file's address: on Alipay's hosts, or on the host of a simulated gateway; live only over TLS."""
        parts = urlsplit(web_address(text))
        if _is_alipay_host(self._host):
            # Alipay still writes http: here, and serves https: at the same place.
            parts = parts._replace(scheme="https")
            is_known = _is_alipay_host(parts.hostname or "")
        else:
            is_known = parts.hostname == self._host
        if not is_known or "@" in parts.netloc or (self._is_live and parts.scheme != "https"):
            raise ChannelUnreadable("statement_address")
        return parts.geturl()

    def _signed(
        self, method: str, body: Mapping[str, str], *, notify_url: str = "", return_url: str = ""
    ) -> dict[str, str]:
        parameters = {
            "app_id": self._app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": time_text(datetime.fromtimestamp(self._clock(), UTC)),
            "version": "1.0",
            "notify_url": notify_url,
            "return_url": return_url,
            "app_auth_token": self._app_auth_token,
            **self._keys.request_parameters,
            "biz_content": msgspec.json.encode(body).decode(),
        }
        present = {name: value for name, value in parameters.items() if value}
        return present | {"sign": self._keys.sign(string_to_sign(present))}


def gateway_url(account: AccountConfig) -> str:
    """The address of the gateway: `base_url`, its path added where it is a bare host, or the channel's own.

    Raises:
        ConfigurationError: a live account at a gateway for tests, a test one at a gateway that moves money (Alipay has
            had several of either), or one of Alipay's without TLS.
    """
    base_url = account.base_url.rstrip("/")
    if not base_url:
        return LIVE_GATEWAY if account.live else TEST_GATEWAY
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")  # a host is the same with a dot at its end
    if _is_below(host, TEST_DOMAIN if account.live else LIVE_DOMAIN):
        side, kind = ("a live", "tests") if account.live else ("a test", "live payments")
        raise ConfigurationError(f"account {account.name}: base_url: {side} account at the gateway for {kind}")
    if _is_alipay_host(host) and parts.scheme != "https":
        raise ConfigurationError(f"account {account.name}: base_url: Alipay is called over https")
    return base_url if base_url.endswith("/gateway.do") else f"{base_url}/gateway.do"


def require_success(node: bytes) -> bytes:
    """Return the node if the call succeeded.

    Raises:
        ChannelUnavailable: system error (20000) or rate limit (40005); the call may be repeated.
        ChannelUnreadable: neither success nor refusal (10003 is "in process"): the outcome is unknown.
        ChannelRefused: definite, with the `sub_code`.
    """
    outcome = read_json(node, Outcome)
    if outcome.code == "10000":
        return node
    if outcome.code in ("20000", "40005") or outcome.short_code in _BUSY:
        raise ChannelUnavailable(outcome.reason)
    if not outcome.code.startswith("4"):
        raise ChannelUnreadable(f"code_{outcome.code}")
    raise ChannelRefused(outcome.reason)


def _is_alipay_host(host: str) -> bool:
    return any(_is_below(host, domain) for domain in DOMAINS)


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
