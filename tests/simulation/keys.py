"""RSA keys of a world: of primes in a file, the same in every run, because OpenSSL's own chance cannot be seeded.

They are keys of simulated accounts and protect nothing.
"""

from __future__ import annotations

from pathlib import Path

from tests import rsa_keys

PRIMES = Path(__file__).with_name("primes.txt")
"""Primes of 1024 bits in hexadecimal. Eight of them make 28 keys, more than the five channels need."""


def install() -> None:
    """Let all keys of this process be of these primes. Call it before an account is opened."""
    rsa_keys.install(known=[int(line, 16) for line in PRIMES.read_text().split()])
