"""Alipay's credentials."""

from __future__ import annotations

from typing import Annotated

import msgspec

from channels.description import CERTIFICATE, PRIVATE, PUBLIC, AccountDescription
from channels.kit.rsa import load_certificate, load_private_key, load_public_key

_AppId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{8,32}\Z")]
_SellerId = Annotated[str, msgspec.Meta(pattern=r"\A2088[0-9]{12}\Z")]
_KeyId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_\-]{1,32}\Z")]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either Alipay's public keys, by an id of ours or as a list, or the three kinds of certificates.

    `seller_id` is the Alipay user who gets the money; it is compared with the seller that a callback names.
    """

    app_id: _AppId
    seller_id: _SellerId
    private_key: str
    alipay_public_keys: dict[_KeyId, str] | list[str] = {}
    app_certificate: str = ""
    alipay_certificates: list[str] = []
    alipay_root_certificate: str = ""
    app_auth_token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{0,128}\Z")] = ""

    @property
    def in_certificate_mode(self) -> bool:
        return bool(self.app_certificate or self.alipay_certificates or self.alipay_root_certificate)


DESCRIPTION = AccountDescription(
    credentials=Credentials,
    hosts=("openapi.alipay.com", "openapi-sandbox.dl.alipaydev.com"),
    shapes={
        "app_id": "APPID, 16 digits, such as 2021…",
        "seller_id": "the Alipay user who gets the money (PID), 16 digits beginning with 2088",
        "private_key": f"{PRIVATE}, or the bare base64 of Alipay's key tool",
        "alipay_public_keys": f"a list, or id → key, of Alipay's public keys 支付宝公钥, {PUBLIC} or base64",
        "app_certificate": f"appCertPublicKey_….crt of the console, {CERTIFICATE}",
        "alipay_certificates": f"a list of alipayCertPublicKey_RSA2.crt, {CERTIFICATE}",
        "alipay_root_certificate": f"alipayRootCert.crt, {CERTIFICATE}",
        "app_auth_token": "the merchant's token, if a service provider calls for the merchant",
    },
    identity=("app_id", "seller_id"),
    merchant=("seller_id",),
    request_keys=("app_id", "private_key", "app_certificate", "app_auth_token"),
    response_keys=("alipay_public_keys", "alipay_certificates"),
    callback_keys=("seller_id",),
    rotated=("alipay_public_keys", "alipay_certificates"),
    one_of=("alipay_public_keys", "alipay_certificates"),
    readers={
        "private_key": load_private_key,
        "alipay_public_keys": load_public_key,
        "app_certificate": load_certificate,
        "alipay_certificates": load_certificate,
    },
)
