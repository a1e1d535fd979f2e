"""RSA keys for tests without their cost: to find two primes takes 45 ms of CPU, and to check a key that is read 30 ms.

Every key is another one. It is the product of two primes found in this process, of which a few give many pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import count

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EXPONENT, BITS = 65537, 2048

_generate, _load = rsa.generate_private_key, serialization.load_pem_private_key


class QuickKeys:
    """Keys of the primes that were found so far: the n-th prime is paired with all before it."""

    def __init__(self, primes: Iterable[int] = ()) -> None:
        self._primes = list(primes)
        self._pairs = ((first, second) for first in count(1) for second in range(first))

    def generate(self, public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        """As `rsa.generate_private_key`."""
        if (public_exponent, key_size) != (EXPONENT, BITS):
            return _generate(public_exponent, key_size)
        first, second = next(self._pairs)
        self.find_primes(first + 1)
        return _key_of(self._primes[first], self._primes[second])

    def load(self, data: bytes, password: bytes | None, *, unsafe_skip_rsa_key_validation: bool = False) -> object:
        """As `serialization.load_pem_private_key`. A key of these primes needs no check."""
        key = _load(data, password, unsafe_skip_rsa_key_validation=True)
        is_ours = isinstance(key, rsa.RSAPrivateKey) and key.private_numbers().p in self._primes
        return key if is_ours or unsafe_skip_rsa_key_validation else _load(data, password)

    def find_primes(self, wanted: int) -> None:
        """Have at least so many."""
        while len(self._primes) < wanted:
            numbers = _generate(EXPONENT, BITS).private_numbers()
            self._primes += (numbers.p, numbers.q)


def install(primes: int = 0, *, known: Iterable[int] = ()) -> None:
    """Let everything in this process make and read its keys so, and its forks with `primes` that all of them have.

    With `known` primes the keys are the same ones in every process, in the same order.
    """
    keys = QuickKeys(known)
    keys.find_primes(primes)
    rsa.generate_private_key = keys.generate  # type: ignore[assignment]
    serialization.load_pem_private_key = lru_cache(maxsize=64)(keys.load)  # type: ignore[assignment]


def _key_of(first: int, second: int) -> rsa.RSAPrivateKey:
    p, q = max(first, second), min(first, second)
    d = pow(EXPONENT, -1, (p - 1) * (q - 1))
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(EXPONENT, p * q),
    ).private_key(unsafe_skip_rsa_key_validation=True)
