"""PayPal's credentials, and the addresses of the account's API and of its certificates."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from cryptography.x509 import load_pem_x509_certificates

from channels.description import CERTIFICATE, AccountDescription
from core.account import AccountConfig
from core.errors import ConfigurationError

_HOSTS = {True: "api-m.paypal.com", False: "api-m.sandbox.paypal.com"}
_CERTIFICATE_HOSTS = {
    True: ("api.paypal.com", "api-m.paypal.com"),
    False: ("api.sandbox.paypal.com", "api-m.sandbox.paypal.com"),
}

_Word = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-.]{8,256}\Z")]
_Host = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-z.\-]{1,253}(?::[0-9]{1,5})?\Z")]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`merchant_id` is the payee's, as the console shows it; `webhook_id` the id of the webhook that calls us.

    `ca_certificates` (PEM) are the roots of PayPal's signing certificate; none: the roots that this system trusts.
    `certificate_hosts` are for a PayPal that is not PayPal's; none: the host of `base_url`.
    """

    client_id: _Word
    client_secret: _Word
    webhook_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z]{1,50}\Z")]
    merchant_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Z]{13}\Z")]
    verify_webhooks: Literal["offline", "endpoint"] = "offline"
    ca_certificates: tuple[str, ...] = ()
    certificate_hosts: tuple[_Host, ...] = ()


def _read_authorities(text: str, name: str) -> None:
    """Accept any certificates, several in one text and with keys of any kind: they only vouch for others."""
    try:
        load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ConfigurationError(f"{name} is no certificate in PEM: -----BEGIN CERTIFICATE-----") from None


DESCRIPTION = AccountDescription(
    credentials=Credentials,
    hosts=tuple(_HOSTS.values()),
    shapes={
        "client_id": "the app's client ID, as the developer dashboard shows it",
        "client_secret": "the app's secret",
        "webhook_id": "the id of the webhook that calls us, as the dashboard lists it",
        "merchant_id": "the payee's merchant ID, 13 capital letters and digits",
        "verify_webhooks": '"offline" or "endpoint"',
        "ca_certificates": f"a list of authorities to trust instead of this system's, {CERTIFICATE}",
        "certificate_hosts": "a list of hosts, for a PayPal that is not PayPal's",
    },
    identity=("client_id", "merchant_id"),
    merchant=("merchant_id",),
    public=("webhook_id", "verify_webhooks", "certificate_hosts"),
    request_keys=("client_id", "client_secret"),
    callback_keys=("webhook_id", "merchant_id", "ca_certificates"),
    readers={"ca_certificates": _read_authorities},
    unknown_reference="00000000000000000",
)


def read_credentials(account: AccountConfig) -> Credentials:
    """The account's credentials.

    Raises:
        ConfigurationError: they are not of this form, or the account trusts its callbacks.
    """
    credentials = account.credentials_as(Credentials)
    if account.trust_callback:
        raise ConfigurationError(
            f"account {account.name}: trust_callback is not for paypal: its signature covers no more than a "
            "checksum of the body"
        )
    return credentials


def addresses(account: AccountConfig, certificate_hosts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Base URL of the API, and the origins from which its certificates may come.

    Raises:
        ConfigurationError: live and test are mixed.
    """
    base_url = account.base_url.rstrip("/") or f"https://{_HOSTS[account.live]}"
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")  # a host is the same with a dot at its end
    if host != "paypal.com" and not host.endswith(".paypal.com"):
        hosts = certificate_hosts or (parts.netloc,)
        return base_url, tuple(f"{parts.scheme}://{origin}" for origin in hosts)
    if base_url != f"https://{_HOSTS[account.live]}":
        kind = "live" if account.live else "test"
        raise ConfigurationError(
            f"account {account.name}: base_url: a {kind} account is at https://{_HOSTS[account.live]}"
        )
    if certificate_hosts:
        raise ConfigurationError(f"account {account.name}: credentials: certificate_hosts: PayPal's are known")
    return base_url, tuple(f"https://{host}" for host in _CERTIFICATE_HOSTS[account.live])
