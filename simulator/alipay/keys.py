"""Keys of both sides for Alipay, made at run time, and their certificates.

An account's `wire` holds the merchant's public keys and Alipay's private ones, the newest first; all verify, the first
one signs. With `certificates` in it the account is in certificate mode.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import timedelta
from functools import cache
from secrets import randbelow
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec.structs import replace

from simulator.kernel.base import Account, Opened
from simulator.kernel.clock import utc_now
from simulator.kit.rsa_keys import new_key, private_pem, public_pem, read_private_key, read_public_key

_ISSUER = {
    x509.NameOID.COUNTRY_NAME: "CN",
    x509.NameOID.ORGANIZATION_NAME: "Simulated Financial",
    x509.NameOID.ORGANIZATIONAL_UNIT_NAME: "Certification Authority",
    x509.NameOID.COMMON_NAME: "Simulated Class 2 R1",
}
_YEARS = timedelta(days=5 * 365)


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates in PEM. `roots` is the whole root file; `root` is the valid one in it."""

    roots: str
    root: str
    root_key: str
    app: list[str]
    alipay: list[str]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `Account.wire`, keys in PEM. `charset` is that of the account's callbacks."""

    seller_id: str
    merchant_public_keys: list[str]
    alipay_private_keys: list[str]
    certificates: Certificates | None = None
    charset: Literal["utf-8", "gbk"] = "utf-8"


def wire_of(account: Account) -> Wire:
    return msgspec.convert(account.wire, Wire)


def opened_account(name: str, callback_url: str) -> Opened:
    """Return an account in public-key mode, with new keys for both sides."""
    ours, theirs = new_key(), new_key()
    wire = Wire(
        seller_id=f"2088{randbelow(10**12):012d}",
        merchant_public_keys=[public_pem(theirs)],
        alipay_private_keys=[private_pem(ours)],
    )
    account = Account(
        name=name,
        merchant_id=f"9021{randbelow(10**12):012d}",
        channel="alipay",
        callback_url=callback_url,
        wire=msgspec.to_builtins(wire),
    )
    return _opened(account, wire, private_pem(theirs))


def rotated_account(account: Account) -> Opened:
    """Return the account with new keys of both sides before the old ones."""
    ours, theirs, wire = new_key(), new_key(), wire_of(account)
    certificates = wire.certificates
    if certificates is not None:
        root_key = read_private_key(certificates.root_key)
        certificates = replace(
            certificates,
            app=[_certificate(root_key, theirs.public_key(), account.merchant_id), *certificates.app],
            alipay=[_certificate(root_key, ours.public_key(), "Simulated Alipay"), *certificates.alipay],
        )
    wire = replace(
        wire,
        merchant_public_keys=[public_pem(theirs), *wire.merchant_public_keys],
        alipay_private_keys=[private_pem(ours), *wire.alipay_private_keys],
        certificates=certificates,
    )
    return _opened(replace(account, wire=msgspec.to_builtins(wire)), wire, private_pem(theirs))


def in_certificate_mode(opened: Opened) -> Opened:
    """Return the account with certificates for its keys, and the new credentials."""
    wire, account = wire_of(opened.account), opened.account
    root_key, stray_key = new_key(), ec.generate_private_key(ec.SECP256R1())
    root = _certificate(root_key, root_key.public_key(), "Simulated Class 2 R1")
    stray = _certificate(stray_key, stray_key.public_key(), "Not with RSA")
    certificates = Certificates(
        # As in the published file: one that is not signed with RSA stands before it, and an empty line between.
        roots=f"{stray}\n{root}",
        root=root,
        root_key=private_pem(root_key),
        app=[_certificate(root_key, read_public_key(pem), account.merchant_id) for pem in wire.merchant_public_keys],
        alipay=[
            _certificate(root_key, read_private_key(pem).public_key(), "Simulated Alipay")
            for pem in wire.alipay_private_keys
        ],
    )
    wire = replace(wire, certificates=certificates)
    private_key: str = opened.credentials["private_key"]
    return _opened(replace(account, wire=msgspec.to_builtins(wire)), wire, private_key)


def strangers(account: Account) -> Account:
    """Return the account with another key of Alipay's."""
    wire = replace(wire_of(account), alipay_private_keys=[_other_key()])
    return replace(account, wire=msgspec.to_builtins(wire))


def serial_of(certificate: str) -> str:
    """Return Alipay's serial of a certificate: MD5 of the issuer, from CN to C, and the serial number."""
    read = x509.load_pem_x509_certificate(certificate.encode())
    names = {attribute.oid: attribute.value for attribute in read.issuer}
    kept = ",".join(f"{short}={names[oid]!s}" for short, oid in _SHORT.items() if oid in names)
    return hashlib.md5(f"{kept}{read.serial_number}".encode(), usedforsecurity=False).hexdigest()


def sign(pem: str, message: bytes) -> str:
    """Sign with SHA256withRSA; return base64."""
    return base64.b64encode(read_private_key(pem).sign(message, padding.PKCS1v15(), SHA256())).decode()


def is_signed(pem: str, signature: str, message: bytes) -> bool:
    try:
        read_public_key(pem).verify(base64.b64decode(signature, validate=True), message, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


_SHORT = {
    "CN": x509.NameOID.COMMON_NAME,
    "OU": x509.NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": x509.NameOID.ORGANIZATION_NAME,
    "C": x509.NameOID.COUNTRY_NAME,
}


def _opened(account: Account, wire: Wire, merchant_private_key: str) -> Opened:
    common = {"app_id": account.merchant_id, "seller_id": wire.seller_id, "private_key": merchant_private_key}
    if wire.certificates is not None:
        theirs: dict[str, object] = {
            "app_certificate": wire.certificates.app[0],
            "alipay_certificates": wire.certificates.alipay,
            "alipay_root_certificate": wire.certificates.roots,
        }
    else:
        count = len(wire.alipay_private_keys)
        publics = (public_pem(read_private_key(pem)) for pem in wire.alipay_private_keys)
        theirs = {"alipay_public_keys": {f"k{count - at}": pem for at, pem in enumerate(publics)}}
    return Opened(account=account, credentials=common | theirs)


def _certificate(
    issuer_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    name: str,
) -> str:
    now = utc_now()
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(oid, value) for oid, value in _ISSUER.items()]),
        subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        public_key=public_key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + _YEARS,
    )
    return builder.sign(issuer_key, SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@cache
def _other_key() -> str:
    return private_pem(new_key())
