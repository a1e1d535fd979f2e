"""Keys of one Alipay account: the private key that signs our requests, and the ring that verifies Alipay's messages.

In certificate mode a certificate is identified by its serial number (SN), an MD5 over issuer and serial.
"""

from __future__ import annotations

import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import Certificate, load_pem_x509_certificate

from channels.alipay.account import Credentials
from channels.kit import rsa
from channels.kit.signed_message import record_check
from core.errors import ConfigurationError

KEYS_MAX = 8
"""Limit of Alipay's keys that are valid together. A rotation needs two; each costs a callback two verifications."""

RSA_SIGNATURES = "1.2.840.113549.1.1."
"""OID prefix of RSA signature algorithms. Only such certificates of the published root file are named."""

_PEM_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


class KeyRing:
    """The keys of one account. Certificate mode adds `request_parameters` to every request."""

    def __init__(self, credentials: Credentials) -> None:
        self._private_key = rsa.load_private_key(credentials.private_key, "private_key")
        self._names_certificates = credentials.in_certificate_mode
        self.request_parameters: dict[str, str] = {}
        self._alipay_keys: dict[str, RSAPublicKey] = {}
        if self._names_certificates:
            self._load_certificates(credentials)
        else:
            self._load_public_keys(credentials.alipay_public_keys)
        if not 1 <= len(self._alipay_keys) <= KEYS_MAX:
            raise ConfigurationError(f"alipay_public_keys, or alipay_certificates, are 1 to {KEYS_MAX}")

    def sign(self, string: bytes) -> str:
        return rsa.sign(self._private_key, string)

    def verifies(self, message: str, signature: str, string: bytes, cert_sn: str) -> bool:
        """Whether one of Alipay's keys signed the string. In certificate mode the message may name the certificate."""
        candidates = self._alipay_keys
        if self._names_certificates and cert_sn:
            candidates = {cert_sn: candidates[cert_sn]} if cert_sn in candidates else {}
            if not candidates:
                record_check(message, algorithm="SHA256withRSA", key=cert_sn[:64], string=string, is_good=False)
        for name, key in candidates.items():
            is_good = rsa.is_signed(key, signature, string)
            record_check(message, algorithm="SHA256withRSA", key=name, string=string, is_good=is_good)
            if is_good:
                return True
        return False

    def _load_public_keys(self, texts: dict[str, str] | list[str]) -> None:
        named = texts if isinstance(texts, dict) else {str(at): text for at, text in enumerate(texts, 1)}
        for name, text in named.items():
            key = rsa.load_public_key(text, f"alipay_public_keys {name}")
            if key.public_numbers() == self._private_key.public_key().public_numbers():
                # The console shows both side by side, and with the wrong one no response ever verifies.
                raise ConfigurationError(f"alipay_public_keys {name} is the application's own key, not Alipay's")
            self._alipay_keys[name] = key

    def _load_certificates(self, credentials: Credentials) -> None:
        if credentials.alipay_public_keys:
            raise ConfigurationError("either alipay_public_keys or certificates, not both")
        app_certificate = rsa.load_certificate(credentials.app_certificate, "app_certificate")
        if _public_key(app_certificate).public_numbers() != self._private_key.public_key().public_numbers():
            raise ConfigurationError("app_certificate is not of private_key")
        for at, text in enumerate(credentials.alipay_certificates, 1):
            certificate = rsa.load_certificate(text, f"alipay_certificates {at}")
            self._alipay_keys[certificate_sn(certificate)] = _public_key(certificate)
        root_sn = root_certificate_sn(credentials.alipay_root_certificate)
        if not root_sn:
            raise ConfigurationError("alipay_root_certificate holds no RSA certificate in PEM")
        self.request_parameters = {"app_cert_sn": certificate_sn(app_certificate), "alipay_root_cert_sn": root_sn}


def certificate_sn(certificate: Certificate) -> str:
    """MD5 of the issuer, most specific part first (`CN=…,OU=…,O=…,C=…`), and the serial number in decimal."""
    named = f"{certificate.issuer.rfc4514_string()}{certificate.serial_number}"
    return hashlib.md5(named.encode(), usedforsecurity=False).hexdigest()


def root_certificate_sn(bundle: str) -> str:
    """The SNs of the root file's certificates that are signed with RSA, joined by `_`.

    The file also has certificates that are signed with SM2 or that the library cannot parse. So each is parsed by
    itself, and those are skipped.
    """
    return "_".join(sn for block in _PEM_BLOCK.findall(bundle) if (sn := _rsa_sn(block)) is not None)


def _rsa_sn(block: str) -> str | None:
    try:
        certificate = load_pem_x509_certificate(block.encode())
        is_rsa = certificate.signature_algorithm_oid.dotted_string.startswith(RSA_SIGNATURES)
        return certificate_sn(certificate) if is_rsa else None
    except (ValueError, UnsupportedAlgorithm):
        return None


def _public_key(certificate: Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey), "only such certificates are loaded"
    return key
