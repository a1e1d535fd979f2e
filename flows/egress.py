"""Where a notification may be sent: addresses are judged after resolution, and the judged one is connected to.

A `notify_url` comes from outside, so it must not reach what only this machine can reach. The text of a host is never
judged: the resolver also takes 127.1, 2130706433 and 0x7f.1. Loopback and private networks are open only as far as
`NOTIFY_ALLOW_NETS` opens them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from core.errors import InvalidRequest

Net = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

RESOLVE_TIMEOUT_S = 3.0

# `is_global` of the standard library says True of these (CPython 3.11): multicast, 6to4 with its relays, NAT64 and the
# IPv4-compatible ones, which all lead to other addresses, and blocks that are not in public use.
_NOT_PUBLIC: tuple[Net, ...] = tuple(
    ip_network(text)
    for text in (
        "224.0.0.0/4",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "2002::/16",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "3fff::/20",
        "5f00::/16",
        "ff00::/8",
        "2001::/23",
        "fec0::/10",
        "::/96",
    )
)


def check_notify_url(url: str, *, allow_nets: Sequence[Net]) -> SplitResult:
    """The parts of an acceptable URL: https (http too when networks are allowed), a host, no userinfo, no trickery.

    Raises:
        InvalidRequest: says what is wrong with it.
    """
    if any(character <= " " or character == "\\" or ord(character) > 126 for character in url):  # noqa: PLR2004 - "~"
        raise InvalidRequest("notify_url: plain ASCII without spaces and backslashes; encode the rest")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest("notify_url: not a URL") from None
    if parts.scheme not in (("https", "http") if allow_nets else ("https",)):
        raise InvalidRequest("notify_url: https:// is needed")
    if not parts.hostname or "@" in parts.netloc:
        raise InvalidRequest("notify_url: a host is needed, and no user in front of it")
    if port is not None and port not in (443, 8443) and not allow_nets:
        raise InvalidRequest("notify_url: the port is 443 or 8443")
    return parts


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also when it is wrapped in an IPv6 one."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.scope_id is not None:
            return False
    return address.is_global and not any(address in net for net in _NOT_PUBLIC if net.version == address.version)


def is_allowed(address: Address, allow_nets: Sequence[Net]) -> bool:
    """Public, or in one of the networks that are opened on purpose."""
    return is_public(address) or any(address in net for net in allow_nets if net.version == address.version)


async def resolve(host: str, port: int, *, allow_nets: Sequence[Net]) -> str | None:
    """The address to connect to; None when the name has none, or has any that is not allowed."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_allowed(ip_address(text), allow_nets) for text in addresses):
        return None
    return addresses[0]
