"""Calls of WeChat Pay: every request is signed, every signed response is verified before it is read.

https://pay.weixin.qq.com/doc/v3/merchant/4012365336 (our signature) and …/4013053420 (the channel's).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex
from typing import IO, TypeVar
from urllib.parse import urlsplit

import msgspec

from channels.kit.rsa import load_certificate, load_private_key, load_public_key, sign
from channels.kit.signed_message import read_json
from channels.transport import USER_AGENT, Response, Transport
from channels.wechatpay.account import HOST, read_credentials
from channels.wechatpay.keys import SIGNATURE_TYPE, KeyRing, seal_key
from core.account import AccountConfig
from core.errors import ChannelUnavailable, ChannelUnreadable

SECOND_HOST = "https://api2.mch.weixin.qq.com"
"""The same service from another region; each page of the API names both."""

TOLERANCE_S = 300
OK = 200
NO_CONTENT = 204

_Body = TypeVar("_Body")


class Wire:
    """The account's keys and its calls."""

    def __init__(
        self, account: AccountConfig, transport: Transport, *, clock: Callable[[], float] | None = None
    ) -> None:
        credentials = read_credentials(account)
        where = f"account {account.name}: credentials"
        self.appid, self.mchid = credentials.appid, credentials.mchid
        self.downloads_certificates = credentials.download_certificates
        self.seal_key = seal_key(credentials.apiv3_key, f"{where}: apiv3_key")
        self.ring = KeyRing(
            {
                key_id: load_public_key(pem, f"{where}: public_keys: {key_id}")
                for key_id, pem in credentials.public_keys.items()
            },
            [load_certificate(pem, f"{where}: platform_certificates") for pem in credentials.platform_certificates],
        )
        self._private_key = load_private_key(credentials.private_key, f"{where}: private_key")
        self._merchant_serial = credentials.merchant_serial
        self._preferred_key_id = next(iter(credentials.public_keys), "")
        self._base_url = (account.base_url or HOST).rstrip("/")
        self._base_path = urlsplit(self._base_url).path
        self._transport = transport
        self._clock = clock or transport.time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    async def call(self, method: str, path: str, body: object | None = None) -> Response:
        """Sign and send; the response is not verified yet. A query that cannot connect to the first host, and so has
        not reached it, goes to the second one.
        """
        raw = b"" if body is None else msgspec.json.encode(body)
        headers = self._headers(method, self._base_path + path, raw)
        try:
            return await self._transport.call(method, self._base_url + path, headers=headers, body=raw)
        except ChannelUnavailable as error:
            if method != "GET" or self._base_url != HOST or error.detail != "not_connected":
                raise
        return await self._transport.call(method, SECOND_HOST + path, headers=headers, body=raw)

    def verify(self, response: Response, at: datetime, ring: KeyRing | None = None) -> None:
        """Verify that the response, even with an empty body, is the channel's and fresh.

        Raises:
            ChannelUnreadable: it is not.
        """
        signed_at = (ring or self.ring).signed_at("answer", response.headers, response.body, at)
        if signed_at is None:
            raise ChannelUnreadable("signature")
        self._transport.hear(self._base_url, signed_at, by=" signed")
        if abs(at.timestamp() - signed_at) > TOLERANCE_S:
            raise ChannelUnreadable("answer_stale")

    def read(self, response: Response, type_: type[_Body], at: datetime | None = None) -> _Body:
        """Verify the response and decode its body."""
        self.verify(response, at or self.now())
        return read_json(response.body, type_)

    async def download(self, url: str, into: IO[bytes]) -> None:
        """Download an unsigned file of the channel. The signed request goes to no host but the account's."""
        target = self._target_here(url)
        address = f"{self._base_url.removesuffix(self._base_path)}{target}"
        response = await self._transport.download(address, headers=self._headers("GET", target, b""), into=into)
        if response.status != OK:
            raise ChannelUnreadable(f"download_status_{response.status}")

    def sign_package(self, timestamp: str, nonce: str, package: str) -> str:
        """Sign the parameters for the buyer's WeChat: four lines, each ended."""
        return sign(self._private_key, f"{self.appid}\n{timestamp}\n{nonce}\n{package}\n".encode())

    def _headers(self, method: str, target: str, raw: bytes) -> dict[str, str]:
        """Headers of a request. The signed string has five lines, each ended; an empty body is an empty line."""
        timestamp, nonce = str(int(self._clock())), token_hex(16)
        string = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + raw + b"\n"
        fields = {
            "mchid": self.mchid,
            "nonce_str": nonce,
            "signature": sign(self._private_key, string),
            "timestamp": timestamp,
            "serial_no": self._merchant_serial,
        }
        authorization = ",".join(f'{name}="{value}"' for name, value in fields.items())
        headers = {
            "Authorization": f"{SIGNATURE_TYPE} {authorization}",
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        if raw:
            headers["Content-Type"] = "application/json"
        if self._preferred_key_id:
            headers["Wechatpay-Serial"] = self._preferred_key_id
        return headers

    def _target_here(self, url: str) -> str:
        """Path and query of an address on our host."""
        try:
            parts, own = urlsplit(url), urlsplit(self._base_url)
        except ValueError:
            raise ChannelUnreadable("download_url") from None
        if (parts.scheme, parts.netloc) != (own.scheme, own.netloc):
            raise ChannelUnreadable("download_host")
        return parts.path + (f"?{parts.query}" if parts.query else "")
