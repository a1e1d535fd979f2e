"""The faults of a world: whether each happens depends on the seed and its own name alone.

A name says where a fault is, in words that stay the same when other faults are left out: a run can be repeated with
some of its faults, which is how the few that break something are found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import NamedTuple

NUMBER = re.compile(r"01[0-9a-f]{26}|cb_[0-9a-f]{24}")
"""The form of numbers that nodrop gives its payments and refunds, and of the simulated channels' ids of callbacks."""

_HASH = blake2b(digest_size=6)


class Happened(NamedTuple):
    """A fault that happened, `at_s` seconds after the world began."""

    name: str
    at_s: float


class Names:
    """Names of numbers that do not change with the run: the product's own numbers have a time and chance in them."""

    def __init__(self) -> None:
        self._by_number: dict[str, str] = {}
        self._by_order: defaultdict[str, list[str]] = defaultdict(list)
        self._counts: Counter[str] = Counter()

    def learn(self, order_no: str, number: str, *aliases: str) -> None:
        """Call this payment's number `ORDER/1`, `ORDER/2` …, by when its channel first heard of it."""
        if number not in self._by_number:
            self._counts[order_no] += 1
            self._by_order[order_no] += (number, *aliases)
            for text in (number, *aliases):
                self._by_number[text] = f"{order_no}/{self._counts[order_no]}"

    def numbers(self, order_no: str) -> list[str]:
        """Return the numbers of an order's payments, and of their callbacks."""
        return self._by_order[order_no]

    def of(self, number: str) -> str:
        return self._by_number.get(number, number)

    def within(self, text: str) -> str:
        """Return the text with each number in it by its name."""
        return NUMBER.sub(lambda match: self.of(match[0]), text)

    def first_in(self, text: str) -> str:
        """Return the name of the first number in the text that has one, or an empty string."""
        for match in NUMBER.finditer(text):
            name = self._by_number.get(match[0])
            if name is not None:
                return name
        return ""


class FaultBook:
    """Draws the faults of a world and records those that happened. `only`: all others are left out.

    `elapsed` returns the seconds since the world began.
    """

    def __init__(
        self, seed: int, only: Collection[str] | None = None, *, elapsed: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.seed = seed
        self.names = Names()
        self.happened: dict[str, float] = {}
        self._only = None if only is None else frozenset(only)
        self._prefix = f"{seed}\x1f".encode()
        self.elapsed = elapsed

    def draw(self, name: str) -> float:
        """Return a number in [0, 1) that depends on seed and name only."""
        digest = _HASH.copy()
        digest.update(self._prefix + name.encode())
        return int.from_bytes(digest.digest()) / 2**48

    def between(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * self.draw(name)

    def applies(self, name: str, share: float) -> bool:
        """Return whether this fault happens, and record it if so."""
        return share > 0 and self.draw(name) < share and self.stands(name)

    def stands(self, name: str) -> bool:
        """Return whether a fault that the seed wants is not left out, and record it if so."""
        if self._only is not None and name not in self._only:
            return False
        self.happened.setdefault(name, self.elapsed())
        return True

    def list(self) -> list[Happened]:
        """Return the faults that happened, oldest first."""
        return [Happened(name, at_s) for name, at_s in self.happened.items()]
