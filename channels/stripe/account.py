"""Stripe's credentials, and the address of the account."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from channels.description import AccountDescription
from core.account import AccountConfig
from core.errors import ConfigurationError

HOST = "https://api.stripe.com"
API_VERSION = "2025-03-31.basil"
"""From this version on, amounts of a session are in the requested currency, whatever the buyer is shown."""

_SecretKey = Annotated[str, msgspec.Meta(pattern=r"\A(sk|rk)_(test|live)_[0-9A-Za-z_]{3,240}\Z")]
_WebhookSecret = Annotated[str, msgspec.Meta(pattern=r"\Awhsec_[!-~]{3,250}\Z")]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`webhook_secrets` are all valid together, so that one is rolled without a gap; `account_id` is our own."""

    secret_key: _SecretKey
    webhook_secrets: Annotated[tuple[_WebhookSecret, ...], msgspec.Meta(min_length=1, max_length=8)]
    account_id: Annotated[str, msgspec.Meta(pattern=r"\Aacct_[0-9A-Za-z]{1,64}\Z")] | None = None
    api_version: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[a-z]{1,32})?\Z")] = API_VERSION


DESCRIPTION = AccountDescription(
    credentials=Credentials,
    hosts=("api.stripe.com",),
    shapes={
        "secret_key": "sk_test_… or sk_live_…, or a restricted key rk_…, as `live` says",
        "webhook_secrets": "a list of signing secrets of the endpoint, whsec_…; every one verifies",
        "account_id": "acct_…, the account whose events are taken",
        "api_version": "the version of the API, such as 2024-06-20",
    },
    identity=("account_id",),
    merchant=("account_id", "secret_key"),
    public=("api_version",),
    request_keys=("secret_key",),
    callback_keys=("webhook_secrets",),
    rotated=("webhook_secrets",),
    unknown_reference="pi_000000000000000000000000",
)


def read_credentials(account: AccountConfig) -> Credentials:
    """The account's credentials.

    Raises:
        ConfigurationError: they are not of this form, or mix test and live.
    """
    credentials = account.credentials_as(Credentials)
    world = "live" if account.live else "test"
    if credentials.secret_key.split("_")[1] != world:
        raise ConfigurationError(
            f"account {account.name}: credentials: secret_key is not of the {world} world; live is {account.live}"
        )
    return credentials


def base_url(account: AccountConfig) -> str:
    """The address of the API, over TLS unless it is a simulator on this machine.

    Raises:
        ConfigurationError: plain HTTP beyond this machine, or for a live account.
    """
    url = account.base_url.rstrip("/") or HOST
    parts = urlsplit(url)
    if parts.scheme != "https" and (account.live or parts.scheme != "http" or not _is_loopback(parts.hostname or "")):
        raise ConfigurationError(f"account {account.name}: base_url is https://…: nothing else proves who answers")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
