import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import uvloop

from core.errors import ConfigurationError, RedisUnavailable
from storage.redis.address import read_redis_address
from storage.redis.checks import check_redis
from storage.redis.client import open_job_redis, open_redis
from storage.tls import TlsMode, TlsName, explain_tls, is_loopback, tls_mode
from tests.connections import serving
from tests.storage.tls_server import PASSWORD, REDIS_SERVER, Certificate, self_signed, tls_redis

pytestmark = pytest.mark.servers

OTHER = "0" * 64


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed("localhost", addresses=("127.0.0.1",))


@pytest.fixture(scope="module")
def port(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if not REDIS_SERVER.exists():
        pytest.skip("no redis-server with TLS here; on Debian: apt-get install redis-server")
    with tls_redis(tmp_path_factory.mktemp("tls") / "server", certificate) as port:
        yield port


def mode(text: str, *, host: str = "db.example.com", default_plain: bool = False) -> TlsMode:
    return tls_mode(text, variable="DATABASE_TLS", host=host, default_plain=default_plain)


# -- reading the setting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "LOCALHOST"])
def test_what_stays_on_the_machine_needs_no_tls(host: str) -> None:
    assert is_loopback(host)
    assert mode("", host=host).context is None
    assert mode("", host=host, default_plain=True).name is TlsName.PRIVATE


@pytest.mark.parametrize("host", ["10.0.0.1", "db.example.com", "localhost.example.com", "127.0.0.1.example.com", ""])
def test_chain_and_name_of_another_host_are_checked_by_default(host: str) -> None:
    found = mode("", host=host)
    assert found.context is not None
    assert (found.name, found.context.verify_mode, found.context.check_hostname) == (
        TlsName.VERIFY_FULL,
        ssl.CERT_REQUIRED,
        True,
    )


def test_plaintext_to_another_host_needs_a_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_TLS: .*DATABASE_TLS=private"):
        mode("", default_plain=True)
    assert mode("private", default_plain=True).context is None


@pytest.mark.parametrize("text", ["none", "verify-full:x", "private:yes", "encrypt-only:no", "require", "pinned:x"])
def test_an_unknown_mode_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_TLS: set it to verify-full, ca:.* or private$"):
        mode(text)


@pytest.mark.parametrize("digits", ["", "abc", "g" * 64, f"{OTHER},", "０" * 64, f"{OTHER}0"])
def test_a_pin_is_64_hexadecimal_digits(digits: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_TLS: pin: wants"):
        mode(f"pin:{digits}")


def test_a_pin_is_read_as_openssl_prints_it_and_may_have_a_successor() -> None:
    printed = ":".join(["AB"] * 32)
    assert mode(f"pin:{printed}, {OTHER}").pin == {b"\xab" * 32, b"\0" * 32}


@pytest.mark.parametrize("text", ["ca:", "ca:/no/such/file", "ca:-----BEGIN CERTIFICATE-----\nnonsense"])
def test_an_authority_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_TLS: .*ca:"):
        mode(text)


def test_an_authority_comes_as_text_in_one_line_or_many_or_as_a_file(certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(certificate.pem)
    for text in (certificate.pem, certificate.pem.replace("\n", "\\n"), str(tmp_path / "ca.pem")):
        context = mode(f"ca:{text}").context
        assert context is not None
        assert len(context.get_ca_certs()) == 1  # and none of the system's
        assert context.check_hostname


def test_a_mode_is_safe_to_print(certificate: Certificate) -> None:
    assert repr(mode(f"ca:{certificate.pem}")) == "TlsMode(ca)"


# -- against a server --------------------------------------------------------------------------------------------------


def url(port: int, host: str = "localhost", scheme: str = "rediss") -> str:
    return f"{scheme}://:{quote(PASSWORD, safe='')}@{host}:{port}/0"


async def answers(port: int, tls: str, host: str = "localhost", scheme: str = "rediss") -> bool:
    redis = open_redis(read_redis_address(url(port, host, scheme), tls))
    try:
        await check_redis(redis)
        return True
    finally:
        await redis.aclose()


def good(certificate: Certificate) -> list[str]:
    return [
        f"ca:{certificate.pem}",
        f"pin:{certificate.sha256_hex}",
        f"pin:{OTHER},{certificate.sha256_hex}",
        "encrypt-only",
    ]


@pytest.mark.parametrize("choice", range(4))
async def test_every_mode_with_tls_reaches_a_self_signed_server(
    port: int, certificate: Certificate, choice: int
) -> None:
    assert await answers(port, good(certificate)[choice])
    assert await answers(port, good(certificate)[choice], scheme="redis")  # a mode with TLS means TLS


async def test_a_self_signed_certificate_is_not_trusted_by_default(port: int) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: .*not trusted.*set it to ca:.*pin:"):
        await answers(port, "")


async def test_another_certificate_than_the_pinned_one_is_refused(port: int, certificate: Certificate) -> None:
    """And the message tells which one there is, to be compared with what the server's owner says."""
    with pytest.raises(ConfigurationError, match=certificate.sha256_hex):
        await answers(port, f"pin:{OTHER}")


async def test_another_authority_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: .*not trusted"):
        await answers(port, f"ca:{self_signed('localhost').pem}")


@pytest.mark.servers
async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, port: int) -> None:
    stranger = self_signed("elsewhere.example.com")
    with tls_redis(tmp_path / "server", stranger) as strange_port:
        with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: .*not trusted.*localhost"):
            await answers(strange_port, f"ca:{stranger.pem}")
        assert await answers(strange_port, f"pin:{stranger.sha256_hex}")


async def test_plaintext_to_a_server_with_tls_is_refused_by_it(port: int) -> None:
    with pytest.raises(RedisUnavailable):
        await answers(port, "", "127.0.0.1", "redis")


async def test_tls_to_a_server_without_is_given_up(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis waits for the end of what it takes for a command, so this looks like a server that does not answer."""
    monkeypatch.setattr("storage.redis.connection.CONNECT_TIMEOUT_S", 0.1)
    redis = open_redis(read_redis_address(redis_url, "encrypt-only"))
    with pytest.raises(RedisUnavailable):
        await check_redis(redis)
    await redis.aclose()


async def test_arqs_own_pool_is_pinned_too(port: int) -> None:
    redis = open_job_redis(read_redis_address(url(port), f"pin:{OTHER}"))
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS"):
        await check_redis(redis)
    await redis.aclose()


async def test_no_byte_is_sent_to_a_server_with_another_certificate(certificate: Certificate, tmp_path: Path) -> None:
    """The password least of all: the pin is checked inside the handshake."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with_end = await asyncio.gather(reader.read(), return_exceptions=True)
        received.extend(part for part in with_end if isinstance(part, bytes))

    async with serving(serve, tls=_server_context(certificate, tmp_path)) as port:
        with pytest.raises(ConfigurationError):
            await answers(port, f"pin:{OTHER}")
    assert b"".join(received) == b""


def test_the_pin_holds_on_uvloop_and_on_blocking_sockets(port: int, certificate: Certificate) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(answers(port, f"pin:{certificate.sha256_hex}"))
        with pytest.raises(ConfigurationError, match="not trusted"):
            runner.run(answers(port, f"pin:{OTHER}"))
    right, wrong = mode(f"pin:{certificate.sha256_hex}"), mode(f"pin:{OTHER}")
    assert right.context is not None
    assert wrong.context is not None
    with socket.create_connection(("127.0.0.1", port)) as plain, right.context.wrap_socket(plain) as secured:
        assert secured.version() in ("TLSv1.2", "TLSv1.3")
    with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        wrong.context.wrap_socket(plain)


def test_an_error_from_elsewhere_is_not_explained_as_tls() -> None:
    assert explain_tls(ConnectionRefusedError(), variable="REDIS_TLS") is None


def _server_context(certificate: Certificate, directory: Path) -> ssl.SSLContext:
    chain = directory / "chain.pem"
    chain.write_text(certificate.key_pem + certificate.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context
