"""Addresses in a channel's answers to which a buyer is sent, or to which we go ourselves."""

from __future__ import annotations

from urllib.parse import urlsplit

from core.errors import ChannelUnreadable

PLAIN_TOO = ("https", "http")
TLS_ONLY = ("https",)


def web_address(text: str, *, schemes: tuple[str, ...] = PLAIN_TOO) -> str:
    """The text, if a browser reads it as we do: no backslash, nothing but ASCII, a host.

    Raises:
        ChannelUnreadable: `javascript:` and its like, or no address at all.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ChannelUnreadable("address") from None
    if parts.scheme not in schemes or not parts.hostname or not text.isascii() or "\\" in text:
        raise ChannelUnreadable("address")
    return text
