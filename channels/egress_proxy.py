"""The proxy of `EGRESS_PROXY`, through which public hosts are reached."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import msgspec

from core.errors import ConfigurationError
from core.settings import Settings

_HOST = re.compile(r"[a-z0-9._:-]+", re.ASCII)


class EgressProxy(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP proxy that opens connections by CONNECT."""

    host: str
    port: int
    user: str
    password: str

    @property
    def address(self) -> str:
        """Host and port, without the password."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """Without the password."""
        return f"EgressProxy({self.address})"


def egress_proxy(settings: Settings) -> EgressProxy | None:
    """The proxy, or None if there is none.

    Raises:
        ConfigurationError: it is no address of a proxy.
    """
    if not settings.egress_proxy:
        return None
    with suppress(ValueError):
        parts = urlsplit(settings.egress_proxy)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http" and _HOST.fullmatch(host) and port and parts.path in ("", "/") and not parts.query:
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            return EgressProxy(host=host, port=port, user=user, password=password)
    raise ConfigurationError("EGRESS_PROXY: set it to http://user:password@host:3128")
