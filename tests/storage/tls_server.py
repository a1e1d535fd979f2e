"""Debian's redis-server with TLS: the server in the wheel has none."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from signal import SIGKILL
from typing import NamedTuple

import redis
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from demo.embedded import Child, free_port

REDIS_SERVER = Path("/usr/bin/redis-server")
PASSWORD = "p@ss/word#1"


class Certificate(NamedTuple):
    """A self-signed certificate and its key."""

    pem: str
    key_pem: str
    sha256_hex: str


def self_signed(*names: str, addresses: tuple[str, ...] = ()) -> Certificate:
    """A certificate of a year for these host names and addresses, its own authority."""
    key: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nodrop tests")])
    alternatives = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(text)) for text in addresses)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, SHA256())
    )
    return Certificate(
        pem=certificate.public_bytes(Encoding.PEM).decode(),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        sha256_hex=sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    )


def server_context(certificate: Certificate, directory: Path) -> ssl.SSLContext:
    """TLS of a server of asyncio with this certificate; its files are written to `directory`."""
    files = (directory / "server.crt", directory / "server.key")
    for file, text in zip(files, (certificate.pem, certificate.key_pem), strict=True):
        file.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


@contextmanager
def tls_redis(directory: Path, certificate: Certificate) -> Iterator[int]:
    """The port of 127.0.0.1 on which redis-server speaks TLS, and nothing but TLS."""
    directory.mkdir(mode=0o700)
    (directory / "server.crt").write_text(certificate.pem)
    (directory / "server.key").write_text(certificate.key_pem)
    port = free_port()
    options = {
        "bind": "127.0.0.1",
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": "server.crt",
        "tls-key-file": "server.key",
        "tls-ca-cert-file": "server.crt",
        "tls-auth-clients": "no",
        "requirepass": PASSWORD,
        "save": "",
    }
    argv = [str(REDIS_SERVER), *(text for name, value in options.items() for text in (f"--{name}", value))]
    child = Child(argv, log=directory / "redis.log", cwd=directory)
    try:
        child.await_ready(lambda: _answers(port), "redis-server with TLS")
        yield port
    finally:
        child.end(SIGKILL)


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, password=PASSWORD, ssl=True, ssl_cert_reqs="none", socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
