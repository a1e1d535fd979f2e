"""`DATABASE_TLS` against a Postgres with a certificate that it signed itself, and against one without TLS."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from core.errors import DatabaseRefused, DatabaseUnavailable
from demo.embedded import EmbeddedPostgres
from storage.postgres.address import read_address
from storage.postgres.database import Database, connect
from storage.postgres.migrate import migrate
from storage.tls import is_loopback
from tests.storage.postgres.tls_server import find_debian_postgres, tls_postgres
from tests.storage.tls_server import PASSWORD, Certificate, self_signed

OTHER_PIN = "0" * 64
ELSEWHERE = "127.1"
"""The same machine, under a name of which nobody would say so: what holds outside loopback holds for it."""


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed("localhost", addresses=("127.0.0.1",))


@pytest.fixture(scope="module")
def port(certificate: Certificate, servers_home: Path) -> Iterator[int]:
    binaries = find_debian_postgres()
    if binaries is None:
        pytest.skip("no Postgres with TLS here; on Debian: apt-get install postgresql")
    with tls_postgres(servers_home / "tls_postgres", binaries, certificate) as port:
        yield port


def url(port: int, host: str = "localhost") -> str:
    return f"postgres://nodrop:{quote(PASSWORD, safe='')}@{host}:{port}/postgres"


async def is_encrypted(url: str, tls: str) -> bool:
    """Whether a pool that is opened with this setting speaks TLS."""
    database = Database(read_address(url, tls))
    await database.open()
    try:
        return bool(await database.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await database.close()


def test_the_other_name_of_this_machine_counts_as_another() -> None:
    assert not is_loopback(ELSEWHERE)


@pytest.mark.parametrize(("host", "tls"), [(ELSEWHERE, ""), (ELSEWHERE, "verify-full"), ("localhost", "verify-full")])
async def test_a_self_signed_certificate_is_refused_and_the_error_names_the_setting(
    port: int, host: str, tls: str
) -> None:
    """By default already; before the password is sent."""
    with pytest.raises(DatabaseRefused) as refused:
        await is_encrypted(url(port, host), tls)
    message = refused.value.detail
    assert message.startswith("DATABASE_TLS: the server's certificate is not trusted (self")
    assert message.endswith(
        "set it to ca:<PEM text or path>, pin:<SHA-256 of the certificate>, encrypt-only or private"
    )
    assert PASSWORD not in message


async def test_a_pinned_certificate_is_accepted_from_any_issuer(port: int, certificate: Certificate) -> None:
    """Also beside the pin of its successor, and whatever the host is called."""
    for host, tls in [
        ("localhost", f"pin:{certificate.sha256_hex}"),
        (ELSEWHERE, f"pin:{certificate.sha256_hex}"),
        (ELSEWHERE, f"pin:{OTHER_PIN},{certificate.sha256_hex}"),
    ]:
        assert await is_encrypted(url(port, host), tls)


async def test_another_certificate_than_the_pinned_one_is_refused(port: int, certificate: Certificate) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"DATABASE_TLS: the server's certificate is not trusted") as refused:
        await is_encrypted(url(port), f"pin:{OTHER_PIN}")
    assert certificate.sha256_hex in refused.value.detail  # what to look at, and to set if it is right


async def test_an_authority_of_ones_own_vouches_for_the_names_in_its_certificates(
    port: int, certificate: Certificate
) -> None:
    assert await is_encrypted(url(port), f"ca:{certificate.pem}")
    assert await is_encrypted(url(port, "127.0.0.1"), f"ca:{certificate.pem}")
    with pytest.raises(DatabaseUnavailable, match=r"DATABASE_TLS: .*not trusted"):
        await is_encrypted(url(port, ELSEWHERE), f"ca:{certificate.pem}")
    with pytest.raises(DatabaseUnavailable, match=r"DATABASE_TLS: .*not trusted"):
        await is_encrypted(url(port), f"ca:{self_signed('localhost').pem}")


async def test_encryption_alone_takes_any_certificate(port: int) -> None:
    assert await is_encrypted(url(port, ELSEWHERE), "encrypt-only")


async def test_a_server_that_wants_tls_refuses_plaintext(port: int) -> None:
    for host, tls in [("localhost", ""), (ELSEWHERE, "private")]:
        with pytest.raises(DatabaseUnavailable):
            await is_encrypted(url(port, host), tls)


async def test_migrations_hold_to_the_same_setting(port: int, certificate: Certificate) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"DATABASE_TLS"):
        await migrate(url(port, ELSEWHERE))
    connection = await connect(read_address(url(port, ELSEWHERE), f"pin:{certificate.sha256_hex}"))
    await connection.close()


# -- a server without TLS ----------------------------------------------------------------------------------------------


async def test_plaintext_on_this_machine_needs_no_setting(postgres: EmbeddedPostgres) -> None:
    assert not await is_encrypted(postgres.url("postgres"), "")
    assert not await is_encrypted(postgres.url("postgres"), "private")


@pytest.mark.parametrize("tls", ["", "verify-full", "encrypt-only", f"pin:{OTHER_PIN}"])
async def test_plaintext_to_another_host_is_used_only_by_setting(postgres: EmbeddedPostgres, tls: str) -> None:
    elsewhere = postgres.url("postgres").replace("127.0.0.1", ELSEWHERE)
    with pytest.raises(
        DatabaseRefused,
        match=r"^DATABASE_TLS: Postgres at .* offers no TLS; set it to private if that network is private$",
    ):
        await is_encrypted(elsewhere, tls)
    assert not await is_encrypted(elsewhere, "private")
