"""WeChat Pay's credentials, and the rules that they and the account's address have to keep."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from channels.description import CERTIFICATE, PRIVATE, PUBLIC, AccountDescription
from channels.kit.rsa import load_certificate, load_private_key, load_public_key
from channels.wechatpay.keys import seal_key
from core.account import AccountConfig
from core.errors import ConfigurationError

HOST = "https://api.mch.weixin.qq.com"

_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,32}\Z")]
_Serial = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Fa-f]{1,64}\Z")]
_KeyId = Annotated[str, msgspec.Meta(pattern=r"\APUB_KEY_ID_[0-9A-Za-z]{1,64}\Z")]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`private_key` and `merchant_serial` are ours and sign; all keys below `apiv3_key` verify messages.

    `public_keys`: id (`PUB_KEY_ID_…`) → PEM; responses signed with the first one are requested.
    `download_certificates`: the platform certificates are fetched and renewed.
    """

    appid: _Id
    mchid: _Id
    merchant_serial: _Serial
    private_key: str
    apiv3_key: str
    public_keys: dict[_KeyId, str] = {}
    platform_certificates: list[str] = []
    download_certificates: bool = False


DESCRIPTION = AccountDescription(
    credentials=Credentials,
    hosts=("api.mch.weixin.qq.com", "api2.mch.weixin.qq.com"),
    shapes={
        "appid": "the app's id, such as wx…",
        "mchid": "the merchant number 商户号, digits",
        "merchant_serial": "the serial number of our API certificate 商户API证书, 40 hexadecimal digits",
        "private_key": f"{PRIVATE}; it is apiclient_key.pem",
        "apiv3_key": "the APIv3 key, exactly 32 characters, as it was entered in the console",
        "public_keys": f"PUB_KEY_ID_… → WeChat Pay's public key 微信支付公钥, {PUBLIC}",
        "platform_certificates": f"a list of WeChat Pay's certificates 平台证书, {CERTIFICATE}",
        "download_certificates": "true or false: whether platform certificates are renewed by themselves",
    },
    identity=("mchid", "appid"),
    merchant=("mchid",),
    public=("merchant_serial",),
    request_keys=("mchid", "merchant_serial", "private_key"),
    response_keys=("public_keys", "platform_certificates"),
    callback_keys=("apiv3_key",),
    rotated=("public_keys", "platform_certificates"),
    one_of=("public_keys", "platform_certificates", "download_certificates"),
    readers={
        "private_key": load_private_key,
        "apiv3_key": seal_key,
        "public_keys": load_public_key,
        "platform_certificates": load_certificate,
    },
)


def read_credentials(account: AccountConfig) -> Credentials:
    """The account's credentials.

    Raises:
        ConfigurationError: they are not of this form, verify nothing, or are for another host than the account's.
    """
    credentials = account.credentials_as(Credentials)
    if not (credentials.public_keys or credentials.platform_certificates or credentials.download_certificates):
        raise ConfigurationError(
            f"account {account.name}: credentials: nothing could be verified: there are no public_keys and no"
            " platform_certificates, and download_certificates is false"
        )
    parts = urlsplit(account.base_url or HOST)
    if not account.live and (parts.hostname or "").endswith(".weixin.qq.com"):
        raise ConfigurationError(f"account {account.name}: WeChat Pay has no host for tests: set base_url, or live")
    if account.live and parts.scheme != "https":
        raise ConfigurationError(f"account {account.name}: base_url of a live account begins with https://")
    return credentials
