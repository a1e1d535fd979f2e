"""Where a notification may go. Names are resolved by the machine's own resolver; nothing leaves the machine."""

import asyncio
import json
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidRequest
from flows.egress import check_notify_url, is_allowed, is_public, resolve

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors" / "ssrf_ip_table.json"
NO_VECTORS = "the published table of addresses is not beside this checkout"

PRIVATE = {
    "loopback": "127.0.0.1",
    "loopback elsewhere in 127/8": "127.254.254.254",
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
    "IPv6 nobody": "::",
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
}


@pytest.mark.parametrize("name", PRIVATE)
def test_what_is_not_on_the_public_internet_is_refused(name: str) -> None:
    assert is_public(ip_address(PRIVATE[name])) is False
    assert is_allowed(ip_address(PRIVATE[name]), ()) is False


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_allowed(text: str) -> None:
    assert is_public(ip_address(text))


def test_every_row_of_the_published_table_is_judged_as_it_says() -> None:
    if not VECTORS.exists():
        pytest.skip(NO_VECTORS)
    rows = json.loads(VECTORS.read_text())["ip_rows"]
    wrong = [row["ip"] for row in rows if is_public(ip_address(row["ip"])) is not row["allowed"]]
    assert (len(rows) > 40, wrong) == (True, [])


async def test_every_url_of_the_published_table_is_refused_before_or_after_its_resolution() -> None:
    if not VECTORS.exists():
        pytest.skip(NO_VECTORS)
    rows = json.loads(VECTORS.read_text())["url_rows"]
    reached = [row["url"] for row in rows if "connects only to" not in row["expect"] and await _reaches(row["url"])]
    assert (len(rows) > 20, reached) == (True, [])


async def _reaches(url: str) -> bool:
    try:
        parts = check_notify_url(url, allow_nets=())
    except InvalidRequest:
        return False
    if (parts.hostname or "").endswith((".example", ".nip.io", ".internal")):
        return False  # names of the table that this machine need not be able to look up
    return await resolve(parts.hostname or "", 443, allow_nets=()) is not None


LOOPBACK_IN_DISGUISE = ["127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "localhost"]


@pytest.mark.parametrize("host", LOOPBACK_IN_DISGUISE)
async def test_a_host_is_judged_by_what_it_resolves_to_and_not_by_its_text(host: str) -> None:
    """The resolver takes these for 127.0.0.1, and `ipaddress` takes none of them for an address."""
    assert await resolve(host, 443, allow_nets=()) is None
    assert await resolve(host, 443, allow_nets=(ip_network("127.0.0.0/8"), ip_network("::1/128"))) in (
        "127.0.0.1",
        "::1",
    )


async def test_a_name_that_has_no_address_is_nowhere() -> None:
    assert await resolve("no-such-host.invalid", 443, allow_nets=()) is None
    assert await resolve("a" * 64 + ".example", 443, allow_nets=()) is None
    assert await resolve("a..b", 443, allow_nets=()) is None


def test_allowed_networks_open_exactly_what_they_say() -> None:
    nets = (ip_network("127.0.0.1/32"), ip_network("10.1.0.0/16"), ip_network("fd00::/64"))
    opened = ["127.0.0.1", "10.1.0.0", "10.1.255.255", "fd00::1"]
    shut = ["127.0.0.2", "10.0.255.255", "10.2.0.0", "::ffff:127.0.0.1", "::1", "fd00:0:0:1::1", "169.254.169.254"]
    assert [text for text in opened if not is_allowed(ip_address(text), nets)] == []
    assert [text for text in shut if is_allowed(ip_address(text), nets)] == []


def stub_resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names get these answers, one after the other; returns what was asked for. Addresses are resolved as ever."""
    asked: list[str] = []
    left = list(answers)

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in left.pop(0)
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever chooses among several addresses must not be the one who asks for the connection."""
    stub_resolver(monkeypatch, ["93.184.215.14", "10.0.0.5"], ["10.0.0.5", "93.184.215.14"], ["93.184.215.14"], [])
    assert await resolve("merchant.example", 443, allow_nets=()) is None
    assert await resolve("merchant.example", 443, allow_nets=()) is None
    assert await resolve("merchant.example", 443, allow_nets=()) == "93.184.215.14"
    assert await resolve("merchant.example", 443, allow_nets=()) is None


async def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
    monkeypatch.setattr("flows.egress.RESOLVE_TIMEOUT_S", 0.05)
    assert await resolve("merchant.example", 443, allow_nets=()) is None


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
def test_a_url_that_is_not_plainly_a_public_https_address_is_refused_when_it_is_given(url: str) -> None:
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
def test_plain_https_addresses_are_taken(url: str) -> None:
    assert (check_notify_url(url, allow_nets=()).hostname or "").endswith(".example")


def test_plain_http_and_any_port_need_networks_that_were_opened() -> None:
    nets = (ip_network("127.0.0.0/8"),)
    assert check_notify_url("http://127.0.0.1:8081/hook", allow_nets=nets).port == 8081
    with pytest.raises(InvalidRequest):
        check_notify_url("http://user@127.0.0.1:8081/hook", allow_nets=nets)
