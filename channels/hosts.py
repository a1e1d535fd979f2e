"""Checks of an account's world: test money must not look like real money, nor another host like the channel."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from channels.adapters import ADAPTERS
from core.account import AccountConfig
from core.sentences import Items, Sentence

WITHOUT_HOST = ("sandbox",)
"""Channels that have no host of their own: the address is wherever one runs, and no real money is moved there."""


class HostProblem(NamedTuple):
    """A fault in one key of an account; `says` follows the name of the key."""

    key: str
    says: str


def host_problem(account: AccountConfig) -> HostProblem | None:
    """The reason why such an account is not added or changed, or None. One that is stored goes on, with a warning."""
    if account.channel not in ADAPTERS:
        return None
    if account.channel in WITHOUT_HOST:
        says = Sentence("is true, and {channel} moves no real money", channel=account.channel)
        return HostProblem("live", says) if account.live else None
    hosts = _hosts(account.channel)
    if not account.base_url or account.custom_host or is_loopback(account.base_url) or _host(account.base_url) in hosts:
        return None
    what = "is at none of {channel}'s own hosts ({hosts}): set custom_host = true if that is meant"
    return HostProblem("base_url", Sentence(what, channel=account.channel, hosts=Items(hosts)))


def is_own_host(account: AccountConfig) -> bool:
    """Whether the account is at one of its channel's own hosts."""
    hosts = _hosts(account.channel)
    return account.channel not in WITHOUT_HOST and (not account.base_url or _host(account.base_url) in hosts)


def _hosts(channel: str) -> tuple[str, ...]:
    """The channel's own hosts; none of a channel that does not exist, which opening the account says."""
    return ADAPTERS[channel].description.hosts if channel in ADAPTERS else ()


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    host = _host(url)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    """The host, in lower case; empty if two readers of the address could see different ones."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""
    return "" if "@" in parts.netloc or "\\" in url else host.rstrip(".")
