"""PayPal's signing certificates: allowed addresses, and the checks that make a certificate trusted.

The address comes with the unverified callback, so it is checked before anything is sent to it: it must match, letter
for letter, an address at which PayPal serves certificates. No URL is parsed for that.
"""

from __future__ import annotations

import re
import ssl
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import Certificate, DNSName, load_pem_x509_certificate, load_pem_x509_certificates
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from channels.kit.single_flight import SingleFlight
from channels.transport import Transport, with_urgency
from core.admission import Urgency
from core.errors import CallbackForged, ChannelUnavailable, ChannelUnreadable, ConfigurationError

KEPT_MAX = 8
"""PayPal signs with one certificate at a time, and with two around a change."""

KNOWN_MAX = 32
"""Addresses that had a trusted certificate, or that PayPal's endpoint has confirmed: these are asked about first."""

MISSING_MAX = 256
MISSING_S = 60.0
"""A certificate that is not there is not asked for again so soon: anybody can name one."""

CERTIFICATE_BYTES_MAX = 64 * 1024
CHAIN_MAX = 8

_PATH = "/v1/notifications/certs/"
_ID = r"[0-9A-Za-z_\-]{1,128}"
_NOT_FOUND = 404
_V = TypeVar("_V")
_OK = 200


class Certificates:
    """The certificates of one account's callbacks.

    `origins` are the allowed scheme and host (`https://api.paypal.com`), `name` is the required subject, `roots` are
    the authorities or certificates that it must chain to. Without roots, addresses are checked and no certificate is
    trusted.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        origins: Iterable[str],
        name: str,
        roots: Sequence[Certificate],
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        either = "|".join(re.escape(origin) for origin in origins)
        self._address = re.compile(rf"(?:{either}){_PATH}({_ID})", re.ASCII)
        self._name = name
        self._store = Store(list(roots)) if roots else None
        self._clock = clock
        self._kept: OrderedDict[str, list[Certificate]] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._missing: OrderedDict[str, float] = OrderedDict()
        self._fetches: SingleFlight[str, list[Certificate]] = SingleFlight()

    def id_in(self, url: str) -> str:
        """The certificate's id, if the address is one of PayPal's.

        Raises:
            CallbackForged: it is not, and nothing is sent there.
        """
        match = self._address.fullmatch(url)
        if match is None:
            raise CallbackForged("certificate_url")
        return match[1]

    def is_known(self, url: str) -> bool:
        """Whether a genuine callback named this address before."""
        return url in self._known

    def learn(self, url: str) -> None:
        """Remember the address of a genuine callback."""
        _put(self._known, url, None, KNOWN_MAX)

    async def key(self, url: str, at: datetime) -> rsa.RSAPublicKey:
        """The public key of the certificate at this address, trusted at that time.

        Raises:
            CallbackForged: there is none, or it is not PayPal's, or not valid at that time.
            ChannelUnavailable: it cannot be fetched now.
        """
        self.id_in(url)
        chain = self._kept.get(url)
        if chain is None:
            chain = await self._fetches.run(url, lambda: self._fetch(url))
        try:
            key = self._trusted_key(chain, at)
        except CallbackForged:
            self._kept.pop(url, None)
            raise
        _put(self._kept, url, chain, KEPT_MAX)
        self.learn(url)
        return key

    async def _fetch(self, url: str) -> list[Certificate]:
        """Fetch it, once for all who wait. Only a known address uses more than the share of strangers."""
        if abs(self._clock() - self._missing.get(url, -MISSING_S)) < MISSING_S:
            raise CallbackForged("certificate_unknown")
        try:
            with with_urgency(Urgency.FRESH) if self.is_known(url) else nullcontext():
                response = await self._transport.call("GET", url, headers={}, response_bytes_max=CERTIFICATE_BYTES_MAX)
        except ChannelUnreadable as error:
            raise ChannelUnavailable(f"certificate_{error.detail}") from None
        if response.status == _NOT_FOUND:
            _put(self._missing, url, self._clock(), MISSING_MAX)
            raise CallbackForged("certificate_unknown")
        if response.status != _OK:
            raise ChannelUnavailable(f"certificate_status_{response.status}")
        try:
            return load_pem_x509_certificates(response.body)[:CHAIN_MAX]
        except ValueError:
            raise ChannelUnavailable("certificate_not_pem") from None

    def _trusted_key(self, chain: list[Certificate], at: datetime) -> rsa.RSAPublicKey:
        """Validity, chain and the alternative name are the library's check; the common name is PayPal's own rule."""
        leaf, *between = chain
        if self._store is None:
            raise CallbackForged("certificate_not_trusted")
        verifier = PolicyBuilder().store(self._store).time(at).build_server_verifier(DNSName(self._name))
        try:
            verifier.verify(leaf, between)
        except VerificationError:
            raise CallbackForged("certificate_not_trusted") from None
        names = [attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = leaf.public_key()
        if names != [self._name] or not isinstance(key, rsa.RSAPublicKey):
            raise CallbackForged("certificate_not_paypals")
        return key


def _put(table: OrderedDict[str, _V], key: str, value: _V, size_max: int) -> None:
    """Put the newest entry last, and drop the oldest."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > size_max:
        table.popitem(last=False)


def load_roots(texts: Sequence[str], account: str) -> tuple[Certificate, ...]:
    """The certificates of the account's `ca_certificates`; without any, the authorities that this system trusts.

    Raises:
        ConfigurationError: one is no certificate, or the system has no roots.
    """
    try:
        configured = tuple(certificate for text in texts for certificate in load_pem_x509_certificates(text.encode()))
    except ValueError:
        raise ConfigurationError(
            f"account {account}: credentials: ca_certificates holds what is no certificate in PEM"
        ) from None
    roots = configured or _system_roots()
    if not roots:
        raise ConfigurationError(
            f"account {account}: credentials: this system trusts no authority; put those that PayPal's signing "
            "certificate chains to in ca_certificates, or set verify_webhooks = 'endpoint'"
        )
    return roots


@cache
def _system_roots() -> tuple[Certificate, ...]:
    """Roots that Python's TLS trusts on this system. Unreadable ones are left out."""
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if not files and paths.capath:
        files = sorted(Path(paths.capath).glob("*.0"))
    return tuple(certificate for file in files for certificate in _certificates_in(file))


def _certificates_in(file: Path) -> list[Certificate]:
    begin = b"-----BEGIN CERTIFICATE-----"
    certificates = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", CryptographyDeprecationWarning)  # of those that a later version will not read
        for text in file.read_bytes().split(begin)[1:]:
            try:
                certificates.append(load_pem_x509_certificate(begin + text))
            except (ValueError, CryptographyDeprecationWarning):
                continue
    return certificates
