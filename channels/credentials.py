"""What is known of each channel's credentials besides their types: what each key looks like, and what it is good for.

An adapter stops at the first thing that is wrong. Whoever integrates wants to hear of all of them at once, so each key
is looked at here by itself: its type from the adapter's own `Credentials`, its content as the adapter will read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from cryptography.x509 import load_pem_x509_certificates

from channels.alipay import keys as alipay_keys
from channels.kit.rsa import load_certificate, load_private_key, load_public_key
from channels.paypal import adapter as paypal
from channels.sandbox import adapter as sandbox
from channels.stripe import adapter as stripe
from channels.wechatpay import wire as wechatpay_wire
from channels.wechatpay.keys import seal_key
from core.errors import ConfigurationError

EXPIRES_SOON_DAYS = 30

PRIVATE = "our RSA private key in PEM, of 2048 bits at least: -----BEGIN PRIVATE KEY-----"
PUBLIC = "PEM: -----BEGIN PUBLIC KEY-----"
CERTIFICATE = "PEM: -----BEGIN CERTIFICATE-----"


def _read_authorities(text: str, name: str) -> None:
    """Any certificates, also several in one text, and with keys of any kind: they only vouch for others."""
    try:
        load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ConfigurationError(f"{name} is no certificate in PEM: -----BEGIN CERTIFICATE-----") from None


Reader = Callable[[str, str], object]
"""Reads one text of a key, whose name it puts into errors; raises ConfigurationError."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One channel's keys.

    `shapes` says what each looks like, `readers` read what their types leave open. `identity` is whose account it is;
    `public` may be shown too. `signing` is what we are known by in a call, `answering` what verifies answers, `calling`
    what only a callback is read with. Of `rolled` several are valid at a time, so that they can be changed without a
    gap; one of `either` is needed. `no_such` is a reference that no payment has, where a channel is asked by its own.
    """

    struct: type[msgspec.Struct]
    shapes: Mapping[str, str]
    identity: tuple[str, ...]
    signing: tuple[str, ...]
    public: tuple[str, ...] = ()
    answering: tuple[str, ...] = ()
    calling: tuple[str, ...] = ()
    rolled: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    readers: Mapping[str, Reader] = MappingProxyType({})
    no_such: str | None = None


class KeyProblem(NamedTuple):
    """What is wrong with one key; never with its value in it."""

    key: str
    says: str


DESCRIBED: Mapping[str, Described] = MappingProxyType(
    {
        "sandbox": Described(
            struct=sandbox.Credentials,
            shapes={
                "merchant_id": "the merchant's id at the sandbox, such as m-1001",
                "keys": "key id → secret of at least 32 characters; the first signs, every one verifies",
            },
            identity=("merchant_id",),
            signing=("merchant_id", "keys"),
            answering=("keys",),
            rolled=("keys",),
        ),
        "alipay": Described(
            struct=alipay_keys.Credentials,
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
            signing=("app_id", "private_key", "app_certificate", "app_auth_token"),
            answering=("alipay_public_keys", "alipay_certificates"),
            calling=("seller_id",),
            rolled=("alipay_public_keys", "alipay_certificates"),
            either=("alipay_public_keys", "alipay_certificates"),
            readers={
                "private_key": load_private_key,
                "alipay_public_keys": load_public_key,
                "app_certificate": load_certificate,
                "alipay_certificates": load_certificate,
            },
        ),
        "wechatpay": Described(
            struct=wechatpay_wire.Credentials,
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
            public=("merchant_serial",),
            signing=("mchid", "merchant_serial", "private_key"),
            answering=("public_keys", "platform_certificates"),
            calling=("apiv3_key",),
            rolled=("public_keys", "platform_certificates"),
            either=("public_keys", "platform_certificates", "download_certificates"),
            readers={
                "private_key": load_private_key,
                "apiv3_key": seal_key,
                "public_keys": load_public_key,
                "platform_certificates": load_certificate,
            },
        ),
        "stripe": Described(
            struct=stripe.Credentials,
            shapes={
                "secret_key": "sk_test_… or sk_live_…, or a restricted key rk_…, as `live` says",
                "webhook_secrets": "a list of signing secrets of the endpoint, whsec_…; every one verifies",
                "account_id": "acct_…, the account whose events are taken",
                "api_version": "the version of the API, such as 2024-06-20",
            },
            identity=("account_id",),
            public=("api_version",),
            signing=("secret_key",),
            calling=("webhook_secrets",),
            rolled=("webhook_secrets",),
            no_such="pi_000000000000000000000000",
        ),
        "paypal": Described(
            struct=paypal.Credentials,
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
            public=("webhook_id", "verify_webhooks", "certificate_hosts"),
            signing=("client_id", "client_secret"),
            calling=("webhook_id", "merchant_id", "ca_certificates"),
            readers={"ca_certificates": _read_authorities},
            no_such="00000000000000000",
        ),
    }
)


def key_problems(channel: str, credentials: Mapping[str, Any]) -> list[KeyProblem]:
    """Everything that can be told of each key by itself: unknown, missing, of another form, unreadable."""
    described = DESCRIBED[channel]
    fields = {field.encode_name: field for field in msgspec.structs.fields(described.struct)}
    found = [KeyProblem(key, _unknown(key, fields)) for key in credentials if key not in fields]
    for key, field in fields.items():
        shape = described.shapes.get(key, "as the channel gave it")
        if key not in credentials:
            if field.required:
                found.append(KeyProblem(key, f"missing; it is {shape}"))
            continue
        try:
            value = msgspec.convert(credentials[key], field.type)
        except msgspec.ValidationError:
            found.append(KeyProblem(key, f"not of its form; it is {shape}"))
            continue
        found += _unreadable(key, value, described.readers.get(key))
    if described.either and not any(credentials.get(key) for key in described.either):
        first, *others = described.either
        found.append(KeyProblem(first, f"missing; it is {described.shapes[first]}. Instead: {', '.join(others)}"))
    return found


def texts_of(value: object) -> Iterator[tuple[str, str]]:
    """Every text of a key, by its place in it: "" of the key itself, `[0]` in a list, `.k1` in a table."""
    match value:
        case str():
            yield "", value
        case list() | tuple():
            for at, item in enumerate(value):
                yield from ((f"[{at}]{place}", text) for place, text in texts_of(item))
        case dict():
            for name, item in value.items():
                yield from ((f".{name}{place}", text) for place, text in texts_of(item))


def expiries(channel: str, credentials: Mapping[str, Any]) -> list[tuple[str, datetime]]:
    """Until when each certificate that can be read is valid, by its key. Roots of a bundle are nobody's to renew."""
    described = DESCRIBED[channel]
    found = []
    for key, reader in described.readers.items():
        for place, text in texts_of(credentials.get(key)) if reader is load_certificate else ():
            try:
                found.append((f"{key}{place}", load_certificate(text, key).not_valid_after_utc))
            except ConfigurationError:
                continue  # said of the key already
    return found


def moved(channel: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys of `identity` that are others than before: then it is another account."""
    return [key for key in DESCRIBED[channel].identity if old.get(key) and old.get(key) != new.get(key)]


def not_kept(channel: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of `rolled` of which no old value is there any more: until the channel has changed too, nothing verifies."""
    gone = []
    for key in DESCRIBED[channel].rolled:
        before, after = ({text.strip() for _, text in texts_of(given.get(key))} for given in (old, new))
        if before and not before & after:
            gone.append(key)
    return gone


def secrets_of(channel: str, credentials: Mapping[str, Any]) -> list[str]:
    """Every text that must not be shown."""
    described = DESCRIBED[channel]
    shown = {*described.identity, *described.public}
    return [text for key, value in credentials.items() if key not in shown for _, text in texts_of(value)]


def _unknown(key: str, fields: Mapping[str, object]) -> str:
    close = get_close_matches(key, fields, n=1)
    return "no key of this channel" + (f"; did you mean {close[0]}?" if close else f": {', '.join(fields)}")


def _unreadable(key: str, value: object, reader: Reader | None) -> Iterator[KeyProblem]:
    if reader is None:
        return
    for place, text in texts_of(value):
        if not text:
            continue  # empty is not given; whether it may be, the adapter says
        try:
            reader(text, key)
        except ConfigurationError as error:
            yield KeyProblem(f"{key}{place}", error.detail.removeprefix(key).strip())
