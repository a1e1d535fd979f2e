"""Authorities whose certificates of channels are trusted."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from core.errors import ConfigurationError

NO_AUTHORITIES = (
    "SSL_CERT_FILE: no certificate of an authority can be read there, so no server could be trusted; set it to a file "
    "with such certificates in PEM, or unset it and install the system's (ca-certificates)"
)


def trusting(root_pem: bytes | None) -> ssl.SSLContext:
    """Trust the authorities of SSL_CERT_FILE and SSL_CERT_DIR, if one is set, and no others then; else the system's.
    `root_pem` is one more.

    Raises:
        ConfigurationError: there are none.
    """
    file, directories = os.environ.get("SSL_CERT_FILE", "").strip(), os.environ.get("SSL_CERT_DIR", "").strip()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.set_alpn_protocols(["http/1.1"])
    try:
        if file or directories:
            tls.load_verify_locations(file or None, directories or None)
        else:
            tls.load_default_certs()
            directories = ssl.get_default_verify_paths().capath or ""
    except OSError:
        raise ConfigurationError(NO_AUTHORITIES) from None
    is_any = tls.cert_store_stats()["x509"] or any(
        any(Path(directory).glob("*.[0-9]")) for directory in directories.split(os.pathsep) if directory
    )
    if not is_any:
        raise ConfigurationError(NO_AUTHORITIES)
    if root_pem is not None:
        tls.load_verify_locations(cadata=root_pem.decode())
    return tls
