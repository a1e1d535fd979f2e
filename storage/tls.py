"""The modes of `DATABASE_TLS` and `REDIS_TLS`: which certificate a server must show before it is sent a password.

    verify-full     chain to a public authority, and the certificate names the host; the default outside loopback
    ca:PEM          the same against an authority of one's own; the PEM text, or the path of a file that holds it
    pin:SHA256      exactly this certificate (its DER's hash, as `openssl x509 -fingerprint -sha256` prints it), signed
                    by any authority; several, separated by commas, while it is being changed
    encrypt-only    any certificate: safe from listeners, not from a man in the middle
    private         plaintext, because the network is private

A pin is checked inside the handshake, before the client sends its first byte, so no caller can forget it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import msgspec

from core.errors import ConfigurationError

_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CAUSES_MAX = 10

_Context = TypeVar("_Context", bound=ssl.SSLContext)


class TlsName(StrEnum):
    """The modes, by the word a setting begins with."""

    VERIFY_FULL = "verify-full"
    CA = "ca"
    PIN = "pin"
    ENCRYPT_ONLY = "encrypt-only"
    PRIVATE = "private"


class TlsMode(msgspec.Struct, frozen=True, kw_only=True):
    """A mode, ready to use. `context` None: plaintext. `ca_pem` and `pin` are what came after the colon."""

    name: TlsName
    context: ssl.SSLContext | None
    ca_pem: str = ""
    pin: frozenset[bytes] = frozenset()

    def __repr__(self) -> str:
        return f"TlsMode({self.name})"


def tls_mode(text: str, *, variable: str, host: str, default_plain: bool) -> TlsMode:
    """Read the setting `variable`. Empty: plaintext on loopback, `verify-full` elsewhere.

    `default_plain` says that the server's address asks for plaintext itself (redis://): then an empty setting is
    refused outside loopback.

    Raises:
        ConfigurationError: names `variable` and what to set.
    """
    word, _, rest = text.strip().partition(":")
    if not word:
        return _default(variable, host, default_plain=default_plain)
    match word.lower():
        case TlsName.VERIFY_FULL if not rest:
            return TlsMode(name=TlsName.VERIFY_FULL, context=_verifying(None, variable))
        case TlsName.CA:
            pem = _read_pem(rest, variable)
            return TlsMode(name=TlsName.CA, context=_verifying(pem, variable), ca_pem=pem)
        case TlsName.PIN:
            pins = _read_pins(rest, variable)
            return TlsMode(name=TlsName.PIN, context=_PinnedContext.of(pins, variable), pin=pins)
        case TlsName.ENCRYPT_ONLY if not rest:
            return TlsMode(name=TlsName.ENCRYPT_ONLY, context=_unverified(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))
        case TlsName.PRIVATE if not rest:
            return TlsMode(name=TlsName.PRIVATE, context=None)
    modes = "verify-full, ca:<PEM text or path>, pin:<SHA-256 of the certificate>, encrypt-only or private"
    raise ConfigurationError(f"{variable}: set it to {modes}")


def is_loopback(host: str) -> bool:
    """Whether data sent to this host stay on the machine. Judged by the text: localhost is the only name that is."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def explain_tls(error: BaseException, *, variable: str) -> str | None:
    """The setting to change, if `error` comes from a failed handshake; None if it does not."""
    found = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
    if found is None:
        return None
    if not isinstance(found, ssl.SSLCertVerificationError):
        return f"{variable}: the server offers no TLS that we speak; set it to private if that network is private"
    choices = "ca:<PEM text or path>, pin:<SHA-256 of the certificate>, encrypt-only or private"
    why = getattr(found, "verify_message", found)  # only what OpenSSL itself raises surely has one
    return f"{variable}: the server's certificate is not trusted ({why}); set it to {choices}"


# -- making the modes --------------------------------------------------------------------------------------------------


def _default(variable: str, host: str, *, default_plain: bool) -> TlsMode:
    if is_loopback(host):
        return TlsMode(name=TlsName.PRIVATE, context=None)
    if default_plain:
        raise ConfigurationError(
            f"{variable}: {host} is not on this machine and its address asks for plaintext; "
            f"use an address with TLS, or set {variable}=private if that network is private"
        )
    return TlsMode(name=TlsName.VERIFY_FULL, context=_verifying(None, variable))


def _verifying(pem: str | None, variable: str) -> ssl.SSLContext:
    """Checks chain and host name. With `pem` only what it holds is trusted, none of the system's authorities.

    Python 3.13 would also demand the extensions of public authorities, which those of platforms and of `openssl req`
    often lack. Whoever names an authority trusts it as it is.
    """
    try:
        context = ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"{variable}: what follows ca: holds no certificate in PEM") from None
    if pem is not None:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _unverified(context: _Context) -> _Context:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_pem(text: str, variable: str) -> str:
    r"""PEM itself (platforms often keep a variable on one line, with \n for the ends of its lines), or a file's."""
    if "-----BEGIN" in text:
        return text.replace("\\n", "\n")
    try:
        return Path(text).read_text(encoding="ascii")
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{variable}: ca: wants the PEM text of an authority, or the path of a file that can be read"
        ) from None


def _read_pins(text: str, variable: str) -> frozenset[bytes]:
    pins = [pin.replace(":", "").strip().lower() for pin in text.split(",")]
    if not all(_SHA256_HEX.fullmatch(pin) for pin in pins):
        raise ConfigurationError(f"{variable}: pin: wants the SHA-256 of the certificate in hexadecimal, 64 digits")
    return frozenset(bytes.fromhex(pin) for pin in pins)


# -- the pin -----------------------------------------------------------------------------------------------------------


class _PinnedObject(ssl.SSLObject):
    """TLS of asyncio and uvloop."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _check_pin(self)


class _PinnedSocket(ssl.SSLSocket):
    """TLS of blocking code."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 -- the signature of ssl.SSLSocket
        super().do_handshake(block)
        _check_pin(self)


class _PinnedContext(ssl.SSLContext):
    """Trusts exactly the pinned certificates."""

    sslobject_class = _PinnedObject
    sslsocket_class = _PinnedSocket
    pins: frozenset[bytes]
    variable: str

    @classmethod
    def of(cls, pins: frozenset[bytes], variable: str) -> _PinnedContext:
        context = _unverified(cls(ssl.PROTOCOL_TLS_CLIENT))
        context.pins, context.variable = pins, variable
        return context


def _check_pin(connection: ssl.SSLObject | ssl.SSLSocket) -> None:
    context = connection.context
    assert isinstance(context, _PinnedContext)
    certificate = connection.getpeercert(binary_form=True)
    digest = sha256(certificate or b"").digest()
    if certificate and digest in context.pins:
        return
    error = ssl.SSLCertVerificationError(1, f"CERTIFICATE_VERIFY_FAILED: {context.variable} pins another certificate")
    error.verify_message = f"its SHA-256 is {digest.hex()}"
    raise error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_CAUSES_MAX):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
