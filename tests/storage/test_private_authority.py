"""An authority as people make it with `openssl`, without the extensions that Python 3.13 demands by default."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from channels.transport import Transport
from core.errors import ChannelUnavailable, ConfigurationError, DatabaseRefused
from flows.notify import Notifier
from storage.postgres.address import read_address
from storage.postgres.database import Database
from tests.flows.test_deliveries import ANY, serving_tls
from tests.flows.test_egress import stub_resolver
from tests.flows.test_notify import outgoing_notification
from tests.storage.postgres.test_database_tls import url as database_url_of
from tests.storage.postgres.tls_server import find_debian_postgres, tls_postgres
from tests.storage.test_tls import answers
from tests.storage.tls_server import REDIS_SERVER, Certificate, self_signed, tls_redis

pytestmark = pytest.mark.servers

DEFAULT = """[req]
distinguished_name = dn
x509_extensions = ca
[dn]
[ca]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
basicConstraints = critical, CA:true
"""
"""The parts of OpenSSL's own configuration that `openssl req -x509` uses."""

BARE = "[req]\ndistinguished_name = dn\n[dn]\n"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority(NamedTuple):
    """The text of its certificate, and a certificate for localhost that it has signed."""

    pem: str
    server: Certificate


@pytest.fixture(scope="module", params=[DEFAULT, BARE], ids=["default", "bare"])
def authority(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    (folder / "ca.cnf").write_text(request.param)
    (folder / "server.cnf").write_text("subjectAltName = DNS:localhost\nauthorityKeyIdentifier = none\n")
    run = partial(subprocess.run, cwd=folder, check=True, capture_output=True, timeout=300)
    new = ["openssl", "req", *KEY, "-config", "ca.cnf"]
    run([*new, "-x509", "-subj", "/CN=Ours", "-keyout", "ca.key", "-out", "ca.pem"])
    run([*new, "-subj", "/CN=db", "-keyout", "server.key", "-out", "server.csr"])
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "server.cnf"]
    run(["openssl", "x509", "-req", "-in", "server.csr", *sign, "-out", "server.pem"])
    server = Certificate((folder / "server.pem").read_text(), (folder / "server.key").read_text(), "")
    return Authority((folder / "ca.pem").read_text(), server)


@pytest.fixture(autouse=True)
def as_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of `create_default_context` since then."""
    make = ssl.create_default_context

    def strict(*arguments: Any, **named: Any) -> ssl.SSLContext:
        context = make(*arguments, **named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


async def test_pythons_own_context_refuses_it(authority: Authority, tmp_path: Path) -> None:
    """So the tests below show something."""
    async with serving_tls(authority.server, tmp_path) as port:
        context = ssl.create_default_context(cadata=authority.pem)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")


async def test_redis_is_trusted_by_it_and_by_no_other(authority: Authority, tmp_path: Path) -> None:
    if not REDIS_SERVER.exists():
        pytest.skip("no redis-server with TLS here; on Debian: apt-get install redis-server")
    with tls_redis(tmp_path / "server", authority.server) as port:
        assert await answers(port, f"ca:{authority.pem}")
        for tls, host in ((f"ca:{self_signed('localhost').pem}", "localhost"), (f"ca:{authority.pem}", "127.0.0.1")):
            with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: .*not trusted"):
                await answers(port, tls, host)


async def test_postgres_is_trusted_by_it_and_by_no_other(
    authority: Authority, servers_home: Path, tmp_path: Path
) -> None:
    binaries = find_debian_postgres()
    if binaries is None:
        pytest.skip("no Postgres with TLS here; on Debian: apt-get install postgresql")
    with tls_postgres(servers_home / f"private_{tmp_path.name}", binaries, authority.server) as port:
        async with open_database(port, f"ca:{authority.pem}") as database:
            assert await database.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        with pytest.raises(DatabaseRefused, match=r"^DATABASE_TLS: .*not trusted"):
            async with open_database(port, f"ca:{self_signed('localhost').pem}"):
                pass


@asynccontextmanager
async def open_database(port: int, tls: str) -> AsyncIterator[Database]:
    database = Database(read_address(database_url_of(port), tls))
    await database.open()
    try:
        await database.fetchval("SELECT 1")
        yield database
    finally:
        await database.close()


@pytest.fixture
def in_ssl_cert_file(authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


async def test_a_merchant_is_trusted_by_it_under_its_own_name(
    authority: Authority, in_ssl_cert_file: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serving_tls(authority.server, tmp_path) as port, Notifier(ANY) as notifier:
        stub_resolver(monkeypatch, ["127.0.0.1"], ["127.0.0.1"])
        for name, status in (("localhost", "200"), ("two.example", "ConnectError")):
            delivery = await notifier.deliver(outgoing_notification(f"https://{name}:{port}/"))
            assert delivery.status == status


async def test_a_channel_is_trusted_by_it_under_its_own_name(
    authority: Authority, in_ssl_cert_file: None, tmp_path: Path
) -> None:
    async with serving_tls(authority.server, tmp_path) as port, Transport(timeout_s=60.0) as transport:
        assert (await transport.call("GET", f"https://localhost:{port}/", headers={})).status == HTTPStatus.OK
        with pytest.raises(ChannelUnavailable):
            await transport.call("GET", f"https://127.0.0.1:{port}/", headers={})
