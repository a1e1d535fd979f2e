"""WeChat Pay's keys by serial, its signatures, and content sealed with the APIv3 key.

While a merchant changes from platform certificates to the public key, both sign side by side for up to a week, so a key
is found only by the serial in the message.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import Certificate

from channels.kit.rsa import is_signed
from channels.kit.signed_message import record_check
from core.errors import ChannelUnreadable, ConfigurationError

SIGNATURE_TYPE = "WECHATPAY2-SHA256-RSA2048"
SIGNATURE_HEADERS = (
    "wechatpay-nonce",
    "wechatpay-serial",
    "wechatpay-signature",
    "wechatpay-signature-type",
    "wechatpay-timestamp",
)
SEAL = "AEAD_AES_256_GCM"
SEAL_KEY_BYTES = 32
_SEAL_NONCE_BYTES = 12

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]{1,64}", re.ASCII)
# No line feed: it would move the border between nonce and body in the signed string.
_NONCE = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_SERIAL = re.compile(r"[0-9A-Za-z_]{1,128}", re.ASCII)


class KeyRing:
    """The keys that verify: public keys by id, and platform certificates by serial, each until it expires.

    `has_unknown_serial`: a message named an unknown certificate; the renewal resets it.
    """

    def __init__(self, public_keys: Mapping[str, RSAPublicKey], certificates: Iterable[Certificate] = ()) -> None:
        self._keys: dict[str, tuple[RSAPublicKey, datetime | None]] = {
            _normal(key_id): (key, None) for key_id, key in public_keys.items()
        }
        self.has_unknown_serial = False
        self.add(certificates)

    @property
    def is_empty(self) -> bool:
        return not self._keys

    def add(self, certificates: Iterable[Certificate]) -> None:
        """Add certificates to the existing ones: during a rotation the old and the new one sign."""
        for certificate in certificates:
            key = certificate.public_key()
            assert isinstance(key, RSAPublicKey), "channels.kit.rsa loads no other certificate"
            self._keys[_normal(serial_of(certificate))] = (key, certificate.not_valid_after_utc)

    def drop_expired(self, now: datetime) -> None:
        self._keys = {serial: (key, until) for serial, (key, until) in self._keys.items() if not until or now <= until}

    def joined(self, certificates: Iterable[Certificate]) -> KeyRing:
        """A new ring with these certificates added; this one does not change."""
        other = KeyRing({}, certificates)
        other._keys = {**other._keys, **self._keys}
        return other

    def signed_at(self, message: str, headers: Mapping[str, str], body: bytes, at: datetime) -> int | None:
        """Unix time of the signature if one of the keys made it, else None.

        https://pay.weixin.qq.com/doc/v3/merchant/4013053420. Probes, whose signatures begin with `WECHATPAY/SIGNTEST/`,
        fail as any other wrong signature does. The caller checks freshness.
        """
        timestamp, nonce = headers.get("wechatpay-timestamp", ""), headers.get("wechatpay-nonce", "")
        signature, serial = headers.get("wechatpay-signature", ""), headers.get("wechatpay-serial", "")
        is_ours = headers.get("wechatpay-signature-type", SIGNATURE_TYPE) == SIGNATURE_TYPE
        if not (is_ours and _TIMESTAMP.fullmatch(timestamp) and _NONCE.fullmatch(nonce) and _SERIAL.fullmatch(serial)):
            return None
        string = b"\n".join((timestamp.encode(), nonce.encode(), body, b""))
        key = self._find(serial, at)
        is_good = key is not None and is_signed(key, signature, string)
        record_check(message, algorithm=SIGNATURE_TYPE, key=serial, string=string, is_good=is_good)
        return int(timestamp) if is_good else None

    def _find(self, serial: str, at: datetime) -> RSAPublicKey | None:
        entry = self._keys.get(_normal(serial))
        if entry is None:
            self.has_unknown_serial = self.has_unknown_serial or _HEX.fullmatch(serial) is not None
            return None
        key, until = entry
        return key if until is None or at <= until else None


def serial_of(certificate: Certificate) -> str:
    """Serial number in WeChat Pay's form: hexadecimal, upper case."""
    return f"{certificate.serial_number:040X}"


def _normal(serial: str) -> str:
    """Normalise a serial number: leading zeros and case mean nothing. Key ids do not change."""
    return serial.upper().lstrip("0") if _HEX.fullmatch(serial) else serial


# -- sealed content ----------------------------------------------------------------------------------------------------


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A ciphertext in a callback or in the list of certificates."""

    algorithm: str
    ciphertext: str
    nonce: str
    associated_data: str | None = None


def seal_key(apiv3_key: str, name: str) -> AESGCM:
    """The APIv3 key, ready to unseal. 16 or 24 bytes would make a working AES key too, and a weaker one.

    Raises:
        ConfigurationError: it has not exactly 32 bytes.
    """
    if len(apiv3_key.encode()) != SEAL_KEY_BYTES:
        raise ConfigurationError(f"{name} has not exactly {SEAL_KEY_BYTES} bytes, as the console requires")
    return AESGCM(apiv3_key.encode())


def unseal(key: AESGCM, sealed: Sealed) -> bytes:
    """Decrypt the content.

    Raises:
        ChannelUnreadable: another algorithm, malformed, or sealed with another key.
    """
    if sealed.algorithm != SEAL:
        raise ChannelUnreadable("seal_algorithm")
    nonce, associated = sealed.nonce.encode(), (sealed.associated_data or "").encode()
    try:
        plain = _open(key, nonce, base64.b64decode(sealed.ciphertext, validate=True), associated)
    except (InvalidTag, ValueError):
        plain = None
    record_check(
        "sealed", algorithm=SEAL, key="apiv3_key", string=nonce + b"\n" + associated, is_good=plain is not None
    )
    if plain is None:
        raise ChannelUnreadable("seal")
    return plain


def _open(key: AESGCM, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    if len(nonce) != _SEAL_NONCE_BYTES:
        raise ValueError("a nonce has 12 bytes")
    return key.decrypt(nonce, ciphertext, associated)
