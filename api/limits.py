"""Limits on buyers, in bounded memory: refreshes per order and per address, and guesses of page tokens per address.

Each process counts for itself. What all processes together may ask of a channel is the account's rate, kept elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import msgspec

from core.errors import NotFound, TooManyRequests

KEYS_MAX = 20_000
"""Orders and addresses remembered, each with some instants: a few megabytes. The longest idle is forgotten first."""


class Rule(msgspec.Struct, frozen=True):
    """At most `count` within any `seconds`."""

    count: int
    seconds: float


PER_ORDER = (Rule(1, 3.0), Rule(10, 60.0))
PER_ADDRESS = (Rule(60, 60.0),)
STARTS_PER_ORDER = (Rule(5, 10.0), Rule(20, 600.0))
STARTS_PER_ADDRESS = (Rule(120, 60.0),)
"""Payments that buyers start on pages: a second click is no mistake, a hundredth is no buyer's. Thousands of phones may
have one address at their carrier; what they cost at a channel is limited by the account's rate as well.
"""


class Window:
    """The recent instants of every key, under one set of rules."""

    def __init__(self, rules: tuple[Rule, ...], *, keys_max: int = KEYS_MAX) -> None:
        self._rules = rules
        self._keys_max = keys_max
        self._count_max = max(rule.count for rule in rules)
        self._taken: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._taken)

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until the next one is allowed; 0 means now."""
        taken = self._taken.get(key)
        if not taken:
            return 0.0
        waits = (taken[-rule.count] + rule.seconds - now for rule in self._rules if len(taken) >= rule.count)
        return max(0.0, *waits, 0.0)

    def take(self, key: str, now: float) -> None:
        """Count one; the caller has checked `wait_s` before."""
        taken = self._taken.setdefault(key, deque(maxlen=self._count_max))
        taken.append(now)
        self._taken.move_to_end(key)
        if len(self._taken) > self._keys_max:
            self._taken.popitem(last=False)


class StartLimits:
    """The limits of payments that buyers start: each costs calls of a channel."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._orders = Window(STARTS_PER_ORDER)
        self._addresses = Window(STARTS_PER_ADDRESS)

    def take(self, order_no: str, address: str) -> bool:
        """Count one; False, and nothing is counted, when it is too many for the order or the address."""
        now = self._clock()
        if self._orders.wait_s(order_no, now) > 0 or self._addresses.wait_s(address, now) > 0:
            return False
        self._orders.take(order_no, now)
        self._addresses.take(address, now)
        return True


class RefreshLimits:
    """The limits of refreshes, and the seconds for which a page's button stays off."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._orders = Window(PER_ORDER)
        self._returns = Window(PER_ORDER)
        self._addresses = Window(PER_ADDRESS)

    def take(self, order_no: str, address: str) -> None:
        """Count a refresh by the page's button.

        Raises:
            TooManyRequests: with the seconds until the next is allowed; nothing is counted.
        """
        now = self._clock()
        wait_s = max(self._orders.wait_s(order_no, now), self._addresses.wait_s(address, now))
        if wait_s > 0:
            raise TooManyRequests("this order was refreshed just now", retry_after_s=wait_s)
        self._orders.take(order_no, now)
        self._addresses.take(address, now)

    def take_return(self, order_no: str, address: str) -> bool:
        """Count a return from the channel, apart from the button; False when it is too many to ask the channel for."""
        now = self._clock()
        if self._returns.wait_s(order_no, now) > 0 or self._addresses.wait_s(address, now) > 0:
            return False
        self._returns.take(order_no, now)
        self._addresses.take(address, now)
        return True

    def wait_s(self, order_no: str) -> float:
        """Seconds until this order may be refreshed again."""
        return self._orders.wait_s(order_no, self._clock())


GUESSES_PER_MINUTE = 300
"""Look-ups under way count too, until they find something: a whole office may open pages at once."""

_GUESS_S = 60.0 / GUESSES_PER_MINUTE


class Guesses:
    """Look-ups of page tokens that found nothing, by address: 300 at once, then five a second."""

    def __init__(self, clock: Callable[[], float] = monotonic, *, keys_max: int = KEYS_MAX) -> None:
        self._clock = clock
        self._keys_max = keys_max
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paid_until)

    @contextmanager
    def look_up(self, address: str) -> Iterator[None]:
        """Count a look-up, and take it back unless it ends with `NotFound`.

        Raises:
            TooManyRequests: with the seconds until the next is allowed.
        """
        self._take(address)
        try:
            yield
        except NotFound:
            raise
        except BaseException:
            self._take_back(address)
            raise
        self._take_back(address)

    def _take(self, address: str) -> None:
        now = self._clock()
        until = max(now, self._paid_until.get(address, 0.0)) + _GUESS_S
        if until > now + 60.0 + _GUESS_S / 2:
            raise TooManyRequests("too many addresses of pages that do not exist", retry_after_s=until - now - 60.0)
        self._paid_until[address] = until
        self._paid_until.move_to_end(address)
        if len(self._paid_until) > self._keys_max:
            self._paid_until.popitem(last=False)

    def _take_back(self, address: str) -> None:
        until = self._paid_until.get(address, 0.0) - _GUESS_S
        if until > self._clock():
            self._paid_until[address] = until
        else:
            self._paid_until.pop(address, None)
