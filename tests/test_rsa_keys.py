"""Quick keys are keys: all different, valid, and no others pass unchecked."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.rsa_keys import BITS, EXPONENT, QuickKeys, _load

COUNT = 12
FORM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def test_each_key_is_another_one_signs_and_passes_the_library_s_own_check() -> None:
    quick = QuickKeys()
    keys = [quick.generate(EXPONENT, BITS) for _ in range(COUNT)]
    assert len({key.public_key().public_numbers().n for key in keys}) == COUNT
    assert {key.key_size for key in keys} == {BITS}
    signature = keys[0].sign(b"text", padding.PKCS1v15(), SHA256())
    keys[0].public_key().verify(signature, b"text", padding.PKCS1v15(), SHA256())
    for key in keys:
        read = _load(key.private_bytes(*FORM), None)
        assert isinstance(read, rsa.RSAPrivateKey)
        assert read.private_numbers() == key.private_numbers()
        assert quick.load(key.private_bytes(*FORM), None).private_numbers() == key.private_numbers()  # type: ignore[attr-defined]


def test_a_key_of_others_is_checked_when_it_is_read() -> None:
    quick = QuickKeys()
    numbers = quick.generate(EXPONENT, BITS).private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        p=numbers.p, q=numbers.q, d=numbers.d + 2, dmp1=numbers.dmp1, dmq1=numbers.dmq1, iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)  # fmt: skip
    with pytest.raises(ValueError):  # noqa: PT011 -- the library says no more
        QuickKeys().load(wrong.private_bytes(*FORM), None)


def test_other_sizes_are_the_library_s() -> None:
    assert QuickKeys().generate(EXPONENT, 1024).key_size == 1024
