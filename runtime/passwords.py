"""Hashes of operators' passwords: argon2id, in threads, a bounded number at once.

A hash takes 64 MiB and a tenth of a second of a core on purpose, so nobody may start many of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_urlsafe
from typing import TypeVar, TypeVarTuple

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from core.errors import TooManyRequests

MEMORY_KIB = 65_536
PASSES = 3
LANES = 1
"""RFC 9106's second recommendation is 64 MiB, 3 passes and 4 lanes. A web process of 512 MB has about one core, so it
has one lane and computes one hash at a time."""

AT_ONCE = 1
WAITING_MAX = 16
HASH_S = 0.2

ONE_TIME_BYTES = 15
"""Of a password that is printed: 120 bits, 20 characters."""

T = TypeVar("T")
Args = TypeVarTuple("Args")

_hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID)


def hash_password(password: str) -> str:
    """The hash, in PHC form. It blocks."""
    return _hasher.hash(password)


def one_time_password() -> str:
    """A password for a person to change at once."""
    return token_urlsafe(ONE_TIME_BYTES)


class Passwords:
    """Hashes and verifies for one process. Its thread is started when it is needed."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="passwords")
        self._waiting = 0
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """The hash, in PHC form. Raises TooManyRequests while too many are waited for."""
        return await self._run(hash_password, password)

    async def verify(self, password: str, hashed: str | None) -> str | None:
        """The hash to keep if the password is right: this one, or a new one where its parameters have changed. None: it
        is wrong.

        `hashed` None: nobody has this name, which takes as long to find out.

        Raises:
            TooManyRequests: too many are waited for.
        """
        return await self._run(self._verify, password, hashed)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, hashed: str | None) -> str | None:
        if self._nobodys is None:
            self._nobodys = hash_password(token_urlsafe(ONE_TIME_BYTES))
        try:
            _hasher.verify(hashed or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return None
        if hashed is None:
            return None
        return hash_password(password) if _hasher.check_needs_rehash(hashed) else hashed

    async def _run(self, work: Callable[[*Args], T], *args: *Args) -> T:
        if self._waiting >= WAITING_MAX:
            raise TooManyRequests("too many people are signing in", retry_after_s=WAITING_MAX * HASH_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        finally:
            self._waiting -= 1
