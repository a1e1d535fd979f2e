"""The secrets that sign notifications: those of the receiving host if it has its own, else NOTIFY_SECRETS."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

import structlog
from msgspec.structs import replace
from standardwebhooks import Webhook

from core.errors import ConfigurationError, DatabaseUnavailable
from core.settings import Settings

RELOAD_S = 5.0
"""Secrets are read again before a delivery that begins later than this: a change is in force within ten seconds."""

READ_S = 2.0

KEY_BYTES_MIN = 23
"""https://github.com/standard-webhooks/standard-webhooks: 24 to 64 bytes, and a key of its test vectors has 23."""

ReadSecrets = Callable[[], Awaitable[Mapping[str, tuple[str, ...] | None]]]
"""Secrets by host; None where they cannot be opened."""

log = structlog.get_logger()


class Signers:
    """Signers by host. A host that has secrets of its own is never signed for with others."""

    def __init__(
        self,
        settings: Settings,
        read_secrets: ReadSecrets | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_secrets` None: no host has its own."""
        self._default = [signer_of(secret) for secret in settings.notify_keys()]
        self._read_secrets = read_secrets
        self._clock = clock
        self._own: dict[str, Sequence[Webhook] | None] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    @classmethod
    def of_alerts(cls, settings: Settings) -> Self:
        """Those of `ALERT_SECRET`, for `ALERT_URL` alone."""
        signers = cls(replace(settings, notify_secrets=""))
        signers._default = [signer_of(secret, name="ALERT_SECRET") for secret in settings.alert_keys()]
        return signers

    async def of(self, host: str) -> Sequence[Webhook]:
        """The signers for a delivery that begins now.

        Raises:
            ConfigurationError: the host's own secrets cannot be opened.
            DatabaseUnavailable: the secrets were never read, and cannot be read now.
        """
        await self._refresh()
        signers = self._own.get(host, self._default)
        if signers is None:
            raise ConfigurationError(f"NODROP_MASTER_KEYS lacks the key that sealed the secrets of {host}")
        return signers

    async def _refresh(self) -> None:
        if self._read_secrets is None or not self._is_due():
            return
        async with self._reading:
            if not self._is_due():
                return
            began = self._clock()
            try:
                async with asyncio.timeout(READ_S):
                    found = await self._read_secrets()
                self._own = {host: self._opened(host, secrets) for host, secrets in found.items()}
            except (DatabaseUnavailable, TimeoutError) as error:
                if self._read_at is None:
                    raise DatabaseUnavailable("the notification secrets could not be read") from error
                log.warning("notify_secrets_not_reloaded", reason=type(error).__name__)
            self._read_at = began

    def _is_due(self) -> bool:
        return self._read_at is None or self._clock() - self._read_at >= RELOAD_S

    def _opened(self, host: str, secrets: Sequence[str] | None) -> Sequence[Webhook] | None:
        """Those that were opened before stay, should a master key be missing from now on."""
        if secrets is None:
            log.error("notify_secrets_not_opened", host=host)
            return self._own.get(host)
        return [signer_of(secret) for secret in secrets]


def signer_of(secret: str, *, name: str = "NOTIFY_SECRETS") -> Webhook:
    """A signer. Padding may be missing; short keys and a missing prefix are typing errors, so they are refused.

    Raises:
        ConfigurationError: names what is wrong, not the secret.
    """
    text = secret.removeprefix("whsec_")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or len(key) < KEY_BYTES_MIN:
        raise ConfigurationError(
            f"{name}: each is whsec_ and base64; set it to the output of `python -m cli keys notify`"
        )
    return Webhook(b64encode(key).decode())
