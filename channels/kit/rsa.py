"""RSA of the channels: SHA256withRSA over PKCS#1 v1.5, signatures in base64, keys in PEM or as bare base64.

The algorithm is fixed here and never taken from the message: a signature made with SHA-1 does not verify.
"""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate, load_pem_x509_certificate

from core.errors import ConfigurationError

KEY_BITS_MIN = 2048
SIGNATURE_CHARACTERS_MAX = 1400
"""Length in base64 for a key of 8192 bits, far larger than any in use."""

_Key = TypeVar("_Key", rsa.RSAPrivateKey, rsa.RSAPublicKey)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)


def load_private_key(text: str, name: str) -> rsa.RSAPrivateKey:
    """A private key in PEM (PKCS#1 or PKCS#8) or as the bare base64 that consoles show; `name` names it in errors.

    Raises:
        ConfigurationError: it is no RSA key of at least 2048 bits. The message holds nothing of the key.
    """
    for kind in ("PRIVATE KEY", "RSA PRIVATE KEY"):
        try:
            key = serialization.load_pem_private_key(_pem(text, kind), None)
        except _UNREADABLE:
            continue
        if isinstance(key, rsa.RSAPrivateKey):
            return _long_enough(key, name)
    raise ConfigurationError(f"{name} is not an RSA private key in PEM: it begins with -----BEGIN PRIVATE KEY-----")


def load_public_key(text: str, name: str) -> rsa.RSAPublicKey:
    """A public key in PEM or as bare base64. Raises as `load_private_key`."""
    try:
        key = serialization.load_pem_public_key(_pem(text, "PUBLIC KEY"))
    except _UNREADABLE:
        key = None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ConfigurationError(f"{name} is not an RSA public key in PEM: it begins with -----BEGIN PUBLIC KEY-----")
    return _long_enough(key, name)


def load_certificate(text: str, name: str) -> Certificate:
    """A certificate in PEM with an RSA key. Raises as `load_private_key`."""
    try:
        certificate = load_pem_x509_certificate(text.encode())
        key = certificate.public_key()
    except _UNREADABLE:
        certificate, key = None, None
    if certificate is None or not isinstance(key, rsa.RSAPublicKey):
        raise ConfigurationError(f"{name} is no RSA certificate in PEM: it begins with -----BEGIN CERTIFICATE-----")
    _long_enough(key, name)
    return certificate


def sign(key: rsa.RSAPrivateKey, message: bytes) -> str:
    """SHA256withRSA in base64."""
    return base64.b64encode(key.sign(message, padding.PKCS1v15(), SHA256())).decode()


def is_signed(key: rsa.RSAPublicKey, signature: str, message: bytes) -> bool:
    """Whether this base64 text is the key's signature of these bytes. Invalid base64 returns False."""
    if not signature.isascii() or len(signature) > SIGNATURE_CHARACTERS_MAX:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), message, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _pem(text: str, kind: str) -> bytes:
    """PEM unchanged, or bare base64 wrapped as PEM."""
    if text.lstrip().startswith("-----BEGIN"):
        return text.strip().encode()
    bare = "".join(text.split())
    lines = [bare[at : at + 64] for at in range(0, len(bare), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""]).encode()


def _long_enough(key: _Key, name: str) -> _Key:
    if key.key_size < KEY_BITS_MIN:
        raise ConfigurationError(f"{name} has {key.key_size} bits; at least {KEY_BITS_MIN} are needed")
    return key
