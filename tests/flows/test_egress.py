"""Addresses to which notifications may be sent. The local resolver resolves names; nothing leaves the machine."""

import asyncio
import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from core.errors import InvalidRequest
from flows.egress import check_notify_url, is_allowed, is_public, resolve
from tests.channels.published import published

PRIVATE = {
    "loopback": "127.0.0.1",
    "another loopback address": "127.254.254.254",
    "this host": "0.0.0.0",  # noqa: S104 - an address to be refused
    "private 10/8": "10.254.0.0",
    "private 172.16/12": "172.31.255.255",
    "private 192.168/16": "192.168.10.65",
    "link-local: the metadata of a cloud": "169.254.169.254",
    "carrier-grade NAT": "100.64.0.1",
    "metadata of another cloud": "100.100.100.200",
    "multicast": "224.0.0.1",
    "more multicast": "239.255.255.250",
    "broadcast": "255.255.255.255",
    "reserved": "240.0.0.1",
    "benchmarks": "198.18.0.1",
    "documentation": "203.0.113.6",
    "protocol assignments": "192.0.0.170",
    "a 6to4 relay": "192.88.99.1",
    "IPv6 loopback": "::1",
    "IPv6 unspecified": "::",
    "IPv6 link-local": "fe80::1",
    "IPv6 link-local with its interface": "fe80::1%lo",
    "IPv6 private": "fd00::1",
    "IPv6 metadata of a cloud": "fd00:ec2::254",
    "IPv6 site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "IPv6 documentation": "2001:db8::1",
    "6to4 of 192.168.0.1": "2002:c0a8:1::1",
    "6to4 of a public address": "2002:808:808::1",
    "NAT64 of 169.254.169.254": "64:ff9b::a9fe:a9fe",
    "NAT64 of a public address": "64:ff9b::808:808",
    "local NAT64": "64:ff9b:1::1",
    "Teredo": "2001:0:1::1",
    "mapped 127.0.0.1": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:169.254.169.254",
    "compatible 127.0.0.1": "::127.0.0.1",
    "discard": "100::1",
    "mapped metadata of another cloud": "::ffff:100.100.100.200",
    "mapped multicast": "::ffff:224.0.0.1",
    "mapped 6to4 relay": "::ffff:192.88.99.1",
    "translated 127.0.0.1": "::ffff:0:127.0.0.1",
    "translated metadata": "::ffff:0:169.254.169.254",
    "translated public address": "::ffff:0:8.8.8.8",
    "metadata at a public address": "168.63.129.16",
    "the same, mapped": "::ffff:168.63.129.16",
    "metadata within protocol assignments": "192.0.0.192",
    "metadata of containers": "169.254.170.2",
    "IPv6 metadata of another cloud": "fd20:ce::254",
    "unallocated, reserved by the IETF": "4000::1",
    "unallocated, below all": "1::1",
    "unallocated, of no registry": "2d00::1",
    "unallocated, between registries": "2001:7000::1",
    "the former 6bone": "3ffe::1",
    "segment routing": "5f00::1",
    "IPv6 documentation, the new block": "3fff::1",
    "public with an interface": "2606:4700::1111%lo",
}


@pytest.mark.parametrize("name", PRIVATE)
def test_an_address_outside_the_public_internet_is_refused(name: str) -> None:
    assert is_public(ip_address(PRIVATE[name])) is False
    assert is_allowed(ip_address(PRIVATE[name]), ()) is False


@pytest.mark.parametrize(
    "text",
    [
        *("1.1.1.1", "8.8.8.8", "168.63.129.15", "::ffff:8.8.8.8"),
        # one of each registry
        *("2001:4860:4860::8888", "2606:4700::1111", "2620:fe::fe", "2a00:1450::1", "2a10::1", "2003::1"),
        *("2400:3200::1", "2800:3f0::1", "2c0f:fb50::1"),
    ],
)
def test_public_addresses_are_allowed(text: str) -> None:
    assert is_public(ip_address(text))


def test_every_address_of_the_published_table_has_the_expected_result() -> None:
    rows = published("ssrf_ip_table")["ip_rows"]
    wrong = [row["ip"] for row in rows if is_public(ip_address(row["ip"])) is not row["allowed"]]
    assert (len(rows) > 40, wrong) == (True, [])


async def test_every_url_of_the_published_table_is_refused() -> None:
    rows = published("ssrf_ip_table")["url_rows"]
    accepted = [
        row["url"] for row in rows if "connects only to" not in row["expect"] and await _is_accepted(row["url"])
    ]
    assert (len(rows) > 20, accepted) == (True, [])


async def _is_accepted(url: str) -> bool:
    try:
        parts = check_notify_url(url, allow_nets=())
    except InvalidRequest:
        return False
    if (parts.hostname or "").endswith((".example", ".nip.io", ".internal")):
        return False  # names of the table that this machine need not be able to look up
    return await resolve(parts.hostname or "", 443, allow_nets=()) != []


LOOPBACK_IN_DISGUISE = ["127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "localhost"]


@pytest.mark.parametrize("host", LOOPBACK_IN_DISGUISE)
async def test_a_host_is_checked_by_its_resolved_address(host: str) -> None:
    """The resolver reads these texts as 127.0.0.1; `ipaddress` rejects all of them."""
    assert await resolve(host, 443, allow_nets=()) == []
    addresses = await resolve(host, 443, allow_nets=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1"}


async def test_a_name_without_an_address_does_not_resolve() -> None:
    assert await resolve("no-such-host.invalid", 443, allow_nets=()) == []
    assert await resolve("a" * 64 + ".example", 443, allow_nets=()) == []
    assert await resolve("a..b", 443, allow_nets=()) == []


def test_allowed_networks_allow_only_their_own_addresses() -> None:
    nets = (ip_network("127.0.0.1/32"), ip_network("10.1.0.0/16"), ip_network("fd00::/64"))
    allowed = ["127.0.0.1", "10.1.0.0", "10.1.255.255", "fd00::1"]
    refused = ["127.0.0.2", "10.0.255.255", "10.2.0.0", "::ffff:127.0.0.1", "::1", "fd00:0:0:1::1", "169.254.169.254"]
    assert [text for text in allowed if not is_allowed(ip_address(text), nets)] == []
    assert [text for text in refused if is_allowed(ip_address(text), nets)] == []


def test_metadata_of_a_cloud_is_refused_in_an_allowed_network_too() -> None:
    nets = tuple(map(ip_network, ("100.64.0.0/10", "169.254.0.0/16", "168.63.129.16/32", "fd00::/8")))
    metadata = ["100.100.100.200", "169.254.169.254", "169.254.170.2", "168.63.129.16", "fd00:ec2::254"]
    assert [text for text in metadata if is_allowed(ip_address(text), nets)] == []
    assert is_allowed(ip_address("100.100.100.199"), nets)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("http", 443), ("https", 25), ("https", 6379)])
async def test_an_allowed_network_opens_http_and_other_ports_for_itself_alone(
    monkeypatch: pytest.MonkeyPatch, scheme: str, port: int
) -> None:
    nets = (ip_network("10.1.0.0/16"),)
    stub_resolver(monkeypatch, ["93.184.215.14"], ["10.1.0.5", "93.184.215.14"], ["10.1.0.5"], ["93.184.215.14"])
    assert await resolve("merchant.example", port, allow_nets=nets, scheme=scheme) == []
    assert await resolve("merchant.example", port, allow_nets=nets, scheme=scheme) == []
    assert await resolve("inside.example", port, allow_nets=nets, scheme=scheme) == ["10.1.0.5"]
    assert await resolve("merchant.example", 8443, allow_nets=nets) == ["93.184.215.14"]


def stub_resolver(monkeypatch: pytest.MonkeyPatch, *results: list[str]) -> list[str]:
    """Replace the resolver by these results, in order, and return the list of the resolved names."""
    resolved_names: list[str] = []
    remaining_results = list(results)

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        resolved_names.append(host)
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in remaining_results.pop(0)
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return resolved_names


async def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client could choose any of the addresses, so one private address is enough to refuse the name."""
    stub_resolver(monkeypatch, ["93.184.215.14", "10.0.0.5"], ["10.0.0.5", "93.184.215.14"], ["93.184.215.14"], [])
    assert await resolve("merchant.example", 443, allow_nets=()) == []
    assert await resolve("merchant.example", 443, allow_nets=()) == []
    assert await resolve("merchant.example", 443, allow_nets=()) == ["93.184.215.14"]
    assert await resolve("merchant.example", 443, allow_nets=()) == []


async def test_a_resolver_without_a_response_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_respond(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never_respond)
    monkeypatch.setattr("flows.egress.RESOLVE_TIMEOUT_S", 0.05)
    assert await resolve("merchant.example", 443, allow_nets=()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://merchant.example/hook",
        "ftp://merchant.example/",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//merchant.example/",
        "merchant.example/hook",
        "https://",
        "https:///hook",
        "https://user:pass@merchant.example/",
        "https://user@merchant.example/",
        "https://@merchant.example/",
        "https://merchant.example\\@127.0.0.1/",
        "https:\\\\merchant.example/",
        "https://merchant.example:22/",
        "https://merchant.example:6379/",
        "https://merchant.example:0/",
        "https://merchant.example:99999/",
        "https://merchant.example:x/",
        "https://mer\r\nchant.example/",
        "https://merchant.example/ hook",
        "https://merchant.example/\thook",
        "https://⑯⑨。254。169。254/",
        "https://merchant.example/é",
        "https://[::1",
        "",
    ],
)
def test_a_url_that_is_not_a_plain_https_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="notify_url"):
        check_notify_url(url, allow_nets=())


@pytest.mark.parametrize(
    "url",
    [
        "https://merchant.example/hook?a=b&c=%20",
        "https://merchant.example:443/",
        "https://merchant.example:8443/",
        "HTTPS://MERCHANT.EXAMPLE/",
        "https://xn--fsqu00a.example/",
    ],
)
def test_plain_https_addresses_are_accepted(url: str) -> None:
    assert (check_notify_url(url, allow_nets=()).hostname or "").endswith(".example")


def test_plain_http_and_other_ports_need_an_allowed_network() -> None:
    nets = (ip_network("127.0.0.0/8"),)
    assert check_notify_url("http://127.0.0.1:8081/hook", allow_nets=nets).port == 8081
    with pytest.raises(InvalidRequest):
        check_notify_url("http://user@127.0.0.1:8081/hook", allow_nets=nets)
