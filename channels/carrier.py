"""The pyreqwest client of `channels.transport`: connections, the way out, and the authorities that it trusts."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError
from pyreqwest.proxy import ProxyBuilder

from channels.egress_proxy import EgressProxy
from core.errors import ConfigurationError

CONNECTIONS_MAX = 128
CONNECT_TIMEOUT_S = 5.0
THIS_MACHINE = "localhost,127.0.0.0/8,::1"
NO_AUTHORITIES = (
    "SSL_CERT_FILE: no certificate of an authority can be read there, so no server could be trusted; set it to a file "
    "with such certificates in PEM, or unset it and install the system's (ca-certificates)"
)


def open_client(proxy: EgressProxy | None, root_pem: bytes | None) -> Client:
    """The client of a process: `proxy` is the way to every host but this machine, `root_pem` one more authority.

    Raises:
        ConfigurationError: there are no authorities to trust.
    """
    _check_authorities()
    builder = (
        ClientBuilder()
        .max_connections(CONNECTIONS_MAX)
        .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
        .pool_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
        .follow_redirects(enable=False)
        .no_proxy()
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .http1_only()
    )
    if proxy is not None:
        way = ProxyBuilder.all(f"http://{proxy.address}").no_proxy(THIS_MACHINE)
        builder = builder.proxy(way.basic_auth(proxy.user, proxy.password) if proxy.user else way)
    if root_pem is not None:
        builder = builder.add_root_certificate_pem(root_pem)
    try:
        return builder.build()
    except BuilderError:
        raise ConfigurationError(NO_AUTHORITIES) from None


def _check_authorities() -> None:
    """Refuse a file of authorities that is set and holds none: other ones would be trusted, or nobody."""
    file = os.environ.get("SSL_CERT_FILE", "")
    if not file.strip():
        return
    try:
        is_one = b"-----BEGIN " in Path(file).read_bytes()
    except OSError:
        is_one = False
    if not is_one:
        raise ConfigurationError(NO_AUTHORITIES)
