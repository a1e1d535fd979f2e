"""PayPal's keys: access tokens, signing certificates with an authority above them, and the signature of a callback.

Written from the protocol only; it shares nothing with the adapter that it checks.
"""

from __future__ import annotations

import base64
import hmac
import zlib
from datetime import datetime, timedelta
from functools import cache
from secrets import token_hex
from typing import Any
from uuid import uuid4

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from simulator.kernel.base import Account
from simulator.kernel.clock import utc_now
from simulator.kit.rsa_keys import new_key, read_private_key
from simulator.paypal.wire import VerifyBody, instant

CERTIFICATES = "/v1/notifications/certs/"
CERTIFICATE_NAME = "messageverificationcerts.sandbox.paypal.com"
TOKEN_LIFE = timedelta(hours=9)


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A signing certificate and its private key, both in PEM."""

    id: str
    pem: str
    key: str


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `Account.wire`. The first certificate signs; all of them are served.

    `origin` is the URL by which the merchant reached the channel in its last call, `events` are those of the webhook.
    """

    client_id: str
    client_secret: str
    webhook_id: str
    token_key: str
    ca: Certificate
    certificates: tuple[Certificate, ...]
    origin: str = ""
    events: tuple[str, ...] = ("*",)


def wire_of(account: Account) -> Wire:
    return msgspec.convert(account.wire, Wire)


def with_wire(account: Account, wire: Wire) -> Account:
    return msgspec.structs.replace(account, wire=msgspec.to_builtins(wire))


# -- access tokens -----------------------------------------------------------------------------------------------------


def new_token(account: Account, now: datetime) -> dict[str, Any]:
    """Return a token that contains its merchant and its end, with a seal: it is stored nowhere."""
    until = int((now + TOKEN_LIFE).timestamp())
    text = f"{account.merchant_id}.{until}"
    return {
        "access_token": f"A21AA.{text}.{_seal(wire_of(account), text)}",
        "token_type": "Bearer",
        "expires_in": int(TOKEN_LIFE.total_seconds()),
    }


def merchant_in(token: str) -> str:
    """Return the merchant in the token, not verified."""
    parts = token.split(".")
    return parts[1] if len(parts) == 4 else ""  # noqa: PLR2004 - its parts


def is_token(token: str, account: Account, now: datetime) -> bool:
    head, _, seal = token.rpartition(".")
    text = head.removeprefix("A21AA.")
    until = text.rpartition(".")[2]
    sealed = hmac.compare_digest(seal.encode(), _seal(wire_of(account), text).encode())
    return sealed and until.isdigit() and now.timestamp() < int(until)


def _seal(wire: Wire, text: str) -> str:
    return hmac.digest(wire.token_key.encode(), text.encode("utf-8", "replace"), "sha256").hex()


# -- certificates and signatures ---------------------------------------------------------------------------------------


def new_ca() -> Certificate:
    """Return a new authority for an account."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority for tests")])
    made = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Certificate(id="CA", pem=_pem(made), key=_key_pem(key))


def new_certificate(ca: Certificate, name: str = CERTIFICATE_NAME) -> Certificate:
    """Return a new signing certificate for a server with this name, as PayPal's are."""
    key = new_key()
    issuer = x509.load_pem_x509_certificate(ca.pem.encode())
    ca_key = serialization.load_pem_private_key(ca.key.encode(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey), "as new_ca makes it"
    ca_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        _builder(subject, issuer.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(ca_identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return Certificate(id=f"CERT-{token_hex(4)}-{token_hex(4)}", pem=_pem(made), key=_key_pem(key))


def signed_headers(wire: Wire, body: bytes, now: datetime) -> dict[str, str]:
    """Return the headers of a delivery, which has an id and a time of its own."""
    signing = wire.certificates[0]
    id_, at = str(uuid4()), instant(now)
    string = f"{id_}|{at}|{wire.webhook_id}|{zlib.crc32(body) & 0xFFFFFFFF}".encode()
    signature = read_private_key(signing.key).sign(string, padding.PKCS1v15(), hashes.SHA256())
    return {
        "content-type": "application/json",
        "paypal-auth-algo": "SHA256withRSA",
        "paypal-cert-url": f"{wire.origin}{CERTIFICATES}{signing.id}",
        "paypal-transmission-id": id_,
        "paypal-transmission-sig": base64.b64encode(signature).decode(),
        "paypal-transmission-time": str(at),
    }


def is_genuine(wire: Wire, check: VerifyBody) -> bool:
    """Return PayPal's result of a verification; the checksum is over the bytes of the submitted event."""
    id_ = check.cert_url.rpartition("/")[2]
    signing = next((one for one in wire.certificates if one.id == id_), None)
    if signing is None or check.webhook_id != wire.webhook_id or check.auth_algo != "SHA256withRSA":
        return False
    crc32 = zlib.crc32(bytes(check.webhook_event)) & 0xFFFFFFFF
    string = f"{check.transmission_id}|{check.transmission_time}|{check.webhook_id}|{crc32}".encode()
    # PKCS#1 v1.5 is deterministic: equal signatures verify.
    wanted = base64.b64encode(read_private_key(signing.key).sign(string, padding.PKCS1v15(), hashes.SHA256())).decode()
    return hmac.compare_digest(wanted.encode(), check.transmission_sig.encode())


@cache
def other_key() -> str:
    """Return a private key without a certificate."""
    return _key_pem(new_key())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = utc_now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=300))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
