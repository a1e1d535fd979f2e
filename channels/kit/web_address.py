"""Checks of addresses in a channel's responses, to which a buyer is sent or which we open ourselves."""

from __future__ import annotations

from urllib.parse import urlsplit

from core.errors import ChannelUnreadable

PLAIN_TOO = ("https", "http")
TLS_ONLY = ("https",)


def web_address(text: str, *, schemes: tuple[str, ...] = PLAIN_TOO) -> str:
    """Return the text if browsers read it as we do: no backslash, only ASCII, a host.

    Raises:
        ChannelUnreadable: another scheme such as `javascript:`, or no address.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ChannelUnreadable("address") from None
    if parts.scheme not in schemes or not parts.hostname or not text.isascii() or "\\" in text:
        raise ChannelUnreadable("address")
    return text
