"""Addresses to which notifications may be sent: they are judged after resolution, and the judged one is connected to.

A `notify_url` comes from outside, so it must not reach what only this machine can reach. The text of a host is never
judged: the resolver also takes 127.1, 2130706433 and 0x7f.1. Loopback and private networks are open only as far as
`NOTIFY_ALLOW_NETS` opens them, and only there plain http and other ports are.
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
PORTS = (443, 8443)
"""Ports of public hosts, with https alone."""

# `is_global` of the standard library says True of these (CPython 3.11): multicast, addresses of protocols, and relays.
_NOT_PUBLIC_IPV4: tuple[Net, ...] = tuple(map(ip_network, "224.0.0.0/4 192.0.0.0/24 192.88.99.0/24".split()))

# Blocks that registries give to networks. All else is special, leads to other addresses (NAT64, 6to4, IPv4-translated)
# or belongs to nobody, so somebody nearby may route it.
# https://www.iana.org/assignments/ipv6-unicast-address-assignments
_ALLOCATED_IPV6: tuple[Net, ...] = tuple(
    map(
        ip_network,
        """2001:200::/23 2001:400::/23 2001:600::/23 2001:800::/22 2001:c00::/23 2001:e00::/23 2001:1200::/23
        2001:1400::/22 2001:1800::/23 2001:1a00::/23 2001:1c00::/22 2001:2000::/19 2001:4000::/23 2001:4200::/23
        2001:4400::/23 2001:4600::/23 2001:4800::/23 2001:4a00::/23 2001:4c00::/23 2001:5000::/20 2001:8000::/19
        2001:a000::/20 2001:b000::/20 2003::/18 2400::/12 2410::/12 2600::/12 2610::/23 2620::/23 2630::/12 2800::/12
        2a00::/12 2a10::/12 2c00::/12""".split(),
    )
)

# Where clouds serve the credentials of a machine. One is a public address (Azure), and others are in networks that one
# may want to open (Alibaba Cloud: 100.64.0.0/10).
_METADATA: frozenset[Address] = frozenset(
    map(
        ip_address,
        """169.254.169.254 169.254.170.2 169.254.0.23 100.100.100.200 168.63.129.16 192.0.0.192
        fd00:ec2::254 fd20:ce::254""".split(),
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
    if port is not None and port not in PORTS and not allow_nets:
        raise InvalidRequest("notify_url: the port is 443 or 8443")
    return parts


def check_new_notify_url(url: str, *, allow_nets: Sequence[Net]) -> None:
    """`check_notify_url` for an order that is placed, and the address if the URL names one: it will be no other later.

    Raises:
        InvalidRequest: says what is wrong with it.
    """
    parts = check_notify_url(url, allow_nets=allow_nets)
    address = _literal(parts.hostname or "")
    opened_only = parts.scheme != "https" or parts.port not in (None, *PORTS)
    if address is not None and not is_allowed(address, allow_nets, opened_only=opened_only):
        raise InvalidRequest("notify_url: notifications are not sent to this address")


def _literal(host: str) -> Address | None:
    """The address that a host is in itself, in any form that resolvers take: ::1, 127.1, 0x7f.1, localhost. None: it is
    a name.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also when it is wrapped in an IPv6 one."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        is_allocated = any(address in net for net in _ALLOCATED_IPV6)
        return is_allocated and address.is_global and address.scope_id is None
    is_special = any(address in net for net in _NOT_PUBLIC_IPV4)
    return address.is_global and not is_special and address not in _METADATA


def is_allowed(address: Address, allow_nets: Sequence[Net], *, opened_only: bool = False) -> bool:
    """Public, unless `opened_only`, or in a network that is opened on purpose; never a cloud's metadata."""
    if address in _METADATA:
        return False
    is_opened = any(address in net for net in allow_nets if net.version == address.version)
    return is_opened or (not opened_only and is_public(address))


async def resolve(host: str, port: int, *, allow_nets: Sequence[Net], scheme: str = "https") -> list[str]:
    """The addresses to connect to, best first; none when the name has none, or has any that is not allowed.

    Plain http and ports other than `PORTS` are for opened networks alone.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    opened_only = scheme != "https" or port not in PORTS
    if not all(is_allowed(ip_address(text), allow_nets, opened_only=opened_only) for text in addresses):
        return []
    return addresses
