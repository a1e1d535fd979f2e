"""Keys and signatures of both sides of WeChat Pay (API v3), and encryption with the APIv3 key.

Written from the channel's documentation only; it shares nothing with the adapter that it checks.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta
from hashlib import blake2b
from secrets import token_hex

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from simulator.kernel.base import Account
from simulator.kernel.dispatch import Call
from simulator.kernel.faults import draw
from simulator.kit.asgi import Request, Response
from simulator.kit.rsa_keys import new_key, private_pem, public_pem, read_private_key, read_public_key

TOLERANCE = timedelta(minutes=5)
SCHEME = "WECHATPAY2-SHA256-RSA2048"
SIGNED = (200, 204)
"""Statuses of signed responses."""

_AUTHORIZATION = re.compile(rf'{SCHEME} ((?:[a-z_]+="[^"]*",)*[a-z_]+="[^"]*")', re.ASCII)
_FIELD = re.compile(r'([a-z_]+)="([^"]*)"', re.ASCII)
_FIELDS = {"mchid", "nonce_str", "signature", "timestamp", "serial_no"}


# -- keys --------------------------------------------------------------------------------------------------------------


class PlatformKey(msgspec.Struct, frozen=True, kw_only=True):
    serial: str
    private_key: str
    certificate: str


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    private_key: str


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `Account.wire`. The first of each signs; `merchants` are the merchant's keys by certificate serial.

    `ordinary_bill`: bills of this merchant have the columns without 订单金额 and 申请退款金额.
    """

    appid: str
    apiv3_key: str
    merchants: dict[str, str]
    platform: list[PlatformKey]
    public_keys: list[PublicKey]
    ordinary_bill: bool = False


def keys_of(account: Account) -> Keys:
    return msgspec.convert(account.wire, Keys)


def public_of(pem: str) -> str:
    """Return the public key, in PEM, of a private key in PEM."""
    return public_pem(read_private_key(pem))


def new_platform_key(now: datetime) -> PlatformKey:
    key, name = new_key(), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Simulated platform")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=5 * 365))
        .sign(key, SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return PlatformKey(serial=f"{certificate.serial_number:040X}", private_key=private_pem(key), certificate=pem)


def new_public_key() -> PublicKey:
    return PublicKey(id=f"PUB_KEY_ID_01{token_hex(14).upper()}", private_key=private_pem(new_key()))


# -- signatures --------------------------------------------------------------------------------------------------------


def authorization(request: Request) -> dict[str, str]:
    """Return the five fields of the header; empty unless it has each of them once and no other."""
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    pairs = [] if match is None else _FIELD.findall(match[1])
    return dict(pairs) if len(pairs) == len(_FIELDS) and {name for name, _ in pairs} == _FIELDS else {}


def is_signed(request: Request, account: Account, now: datetime) -> bool:
    """Return whether the merchant signed this request in the last five minutes."""
    fields = authorization(request)
    pem = keys_of(account).merchants.get(fields.get("serial_no", "").upper())
    if pem is None or not fields["timestamp"].isdecimal() or not fields["timestamp"].isascii():
        return False
    if abs(now.timestamp() - int(fields["timestamp"][:12])) > TOLERANCE.total_seconds():
        return False
    lines = (request.method, request.target, fields["timestamp"], fields["nonce_str"])
    string = b"".join(line.encode("latin-1") + b"\n" for line in lines) + request.body + b"\n"
    try:
        read_public_key(pem).verify(base64.b64decode(fields["signature"]), string, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def signed(call: Call, response: Response) -> Response:
    """Sign the response with the public key that the request names, else with the platform certificate."""
    if response.status not in SIGNED:
        return response
    keys, named = keys_of(call.account), call.request.headers.get("wechatpay-serial", "")
    by_name = [(key.id, key.private_key) for key in keys.public_keys if key.id == named]
    by_certificate = [(key.serial, key.private_key) for key in keys.platform]
    serial, pem = [*by_name, *by_certificate][0]
    signature = signature_headers(serial, pem, response.body, call.now)
    return msgspec.structs.replace(response, headers=(*response.headers, *signature.items()))


def callback_headers(account: Account, callback_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the headers of a callback. An account with both kinds of keys gets both, each callback always one."""
    keys = keys_of(account)
    signers = [(key.id, key.private_key) for key in keys.public_keys[:1]]
    signers += [(key.serial, key.private_key) for key in keys.platform[:1]]
    serial, pem = signers[int(draw(0, "signed_by", callback_id) * len(signers))]
    return {
        "content-type": "application/json",
        **signature_headers(serial, pem, body, now),
    }


def signature_headers(serial: str, pem: str, body: bytes, now: datetime) -> dict[str, str]:
    timestamp, nonce = str(int(now.timestamp())), token_hex(16)
    string = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signature = read_private_key(pem).sign(string, padding.PKCS1v15(), SHA256())
    return {
        "wechatpay-timestamp": timestamp,
        "wechatpay-nonce": nonce,
        "wechatpay-signature-type": SCHEME,
        "wechatpay-serial": serial,
        "wechatpay-signature": base64.b64encode(signature).decode(),
    }


def sealed(apiv3_key: str, plain: bytes, associated_data: str, name: str) -> dict[str, str]:
    """Encrypt with AES-256-GCM. The nonce is made from name and content: a resend has the same bytes, and no nonce is
    used for two contents.
    """
    nonce = blake2b(name.encode() + b"\x1f" + plain, digest_size=6).hexdigest()
    ciphertext = AESGCM(apiv3_key.encode()).encrypt(nonce.encode(), plain, associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "nonce": nonce,
        "associated_data": associated_data,
    }
