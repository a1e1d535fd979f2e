"""Platform certificates (平台证书): when the list is fetched, and how it is read.

A new one is in the list 24 hours before it signs, and the channel recommends a fetch at least every 12 hours
(https://pay.weixin.qq.com/doc/v3/merchant/4012068814). A callback never causes a fetch at once: otherwise invented
serials would decide how often we call the channel.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import Certificate

from channels.kit.rsa import load_certificate
from channels.kit.signed_message import read_json
from channels.wechatpay.bodies import CertificateList
from channels.wechatpay.keys import KeyRing, serial_of, unseal
from core.errors import ChannelUnreadable, ConfigurationError

RENEW = timedelta(hours=11)
RETRY = timedelta(minutes=10)
"""Shortest interval after a failure, or for an unknown serial."""


class Renewal:
    """Schedule of the fetches."""

    def __init__(self) -> None:
        self._attempted_at: datetime | None = None
        self._renewed_at: datetime | None = None

    def is_due(self, now: datetime, ring: KeyRing) -> bool:
        """Whether a fetch is due: at the start, every eleven hours, and after a message with an unknown serial.

        An account without any key cannot verify anything, so it does not wait after a failure.
        """
        if self._attempted_at is None or ring.is_empty:
            return True
        is_old = self._renewed_at is None or now - self._renewed_at >= RENEW
        return (is_old or ring.has_unknown_serial) and now - self._attempted_at >= RETRY

    def begin(self, now: datetime, ring: KeyRing) -> None:
        self._attempted_at = now
        ring.has_unknown_serial = False

    def succeeded(self, now: datetime) -> None:
        self._renewed_at = now


def read_certificates(body: bytes, key: AESGCM, at: datetime) -> list[Certificate]:
    """Certificates of a response that are valid at `at`. The caller verifies its signature.

    Raises:
        ChannelUnreadable: it is no list of certificates sealed for this account.
    """
    certificates = []
    for sealed in read_json(body, CertificateList).data:
        try:
            certificate = load_certificate(unseal(key, sealed.encrypt_certificate).decode("ascii"), "certificate")
        except (ConfigurationError, UnicodeDecodeError):
            raise ChannelUnreadable("certificate") from None
        if serial_of(certificate).lstrip("0") != sealed.serial_no.upper().lstrip("0"):
            raise ChannelUnreadable("certificate_serial")
        if at <= certificate.not_valid_after_utc:
            certificates.append(certificate)
    return certificates
