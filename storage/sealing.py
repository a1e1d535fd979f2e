"""Secrets at rest: AES-256-GCM under the keys of `NODROP_MASTER_KEYS`, the first of which seals and all of which open.

A sealed value is `key id, NUL, 12-byte nonce, ciphertext with its tag`. The name of its row is authenticated with it,
so a sealed value copied to another row does not open.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from secrets import token_bytes

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import ConfigurationError

KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_\-]{1,32}", re.ASCII)


class Sealer:
    """Seals with the first key, opens with the key that sealed: keys can be changed while processes run."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.first = next(iter(keys))
        """Id of the key that seals."""

    @classmethod
    def from_setting(cls, text: str) -> Sealer:
        """`NODROP_MASTER_KEYS`: `id:base64,older-id:base64`, each key 32 bytes.

        Raises:
            ConfigurationError: says what is wrong, never with the key in it.
        """
        keys: dict[str, bytes] = {}
        for number, item in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            key_id, colon, encoded = item.partition(":")
            if not colon or not _KEY_ID.fullmatch(key_id):
                raise ConfigurationError(f"NODROP_MASTER_KEYS: key {number} has no id; write id:base64")
            try:
                key = b64decode(encoded, validate=True)
            except ValueError:
                raise ConfigurationError(f"NODROP_MASTER_KEYS: key {key_id} is not base64") from None
            if key_id in keys:
                raise ConfigurationError(f"NODROP_MASTER_KEYS: two keys are called {key_id}")
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"NODROP_MASTER_KEYS: key {key_id} has {len(key)} bytes instead of 32")
            keys[key_id] = key
        if not keys:
            raise ConfigurationError("NODROP_MASTER_KEYS is empty: set it to the output of `python -m cli keys master`")
        return cls(keys)

    def seal(self, plain: bytes, *, belongs_to: str) -> bytes:
        """Bytes that only a holder of the key can open, and only for `belongs_to`."""
        nonce = token_bytes(_NONCE_BYTES)
        sealed = self._keys[self.first].encrypt(nonce, plain, belongs_to.encode())
        return self.first.encode() + b"\0" + nonce + sealed

    def open(self, sealed: bytes, *, belongs_to: str) -> bytes:
        """The inverse of `seal`.

        Raises:
            ConfigurationError: the key is not among `NODROP_MASTER_KEYS`, or the value was changed or moved.
        """
        key_id, _, rest = sealed.partition(b"\0")
        key = self._keys.get(key_id.decode("ascii", "replace"))
        if key is None:
            raise ConfigurationError(f"NODROP_MASTER_KEYS lacks the key that sealed {belongs_to}")
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], belongs_to.encode())
        except (InvalidTag, ValueError):
            raise ConfigurationError(f"what was sealed for {belongs_to} does not open: changed or moved") from None


def new_master_key(key_id: str) -> str:
    """One entry for `NODROP_MASTER_KEYS`."""
    return f"{key_id}:{b64encode(token_bytes(KEY_BYTES)).decode()}"
