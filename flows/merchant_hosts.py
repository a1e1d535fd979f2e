"""Hosts of the merchant that may be sent a notification now: a limit of deliveries at a time, and a breaker by host.

A host that hangs would hold a slot of the lane for a whole time-out with each of its notifications. After a few that
hung it is parked as a whole: its notifications wait, without using an attempt, and one at a time probes whether the
host answers again. Each process learns this by itself; nothing in here is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.merchant_http import CONNECTIONS_MAX

PER_HOST_MAX = CONNECTIONS_MAX
"""Deliveries to one host at a time: an endpoint that hangs takes no more of the lane than this."""

BUSY_WAIT_S = 0.5
"""Pause of a notification whose host has no place for it; before that it waits as long for one that is given up."""

WAITING_MAX = 64
"""Notifications of all hosts together that wait so, each in a slot of the lane."""

SLOW_S = 2.0
"""While the oldest delivery under way has waited so long, its host gets no other: a hundred hosts that begin to hang
must not fill the lane before their first time-outs."""

SUSPECTS_MAX = 32
"""Deliveries at a time to all hosts together whose last one hung."""

HUNG_MAX = 3
"""So many deliveries in a row that hung park the host."""

OPEN_S = 10.0
OPEN_S_MAX = 60.0
URLS_MAX = 100
HOSTS_MAX = 10_000


class MerchantHosts:
    """The hosts with deliveries under way, with hung deliveries or with parked notifications."""

    def __init__(self, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._waiting = 0

    async def wait_for_place(self, host: str) -> float:
        """`wait_s`, after a wait for a place if the host answers and has none: a burst is not worth putting off."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + BUSY_WAIT_S
        while self.is_full(host) and self._waiting < WAITING_MAX and (left_s := ends_at - loop.time()) > 0:
            self._waiting += 1
            end = self._hosts[host].next_end()
            try:
                await asyncio.wait([end], timeout=left_s)
            finally:
                end.cancel()
                self._waiting -= 1
        return self.wait_s(host)

    def is_full(self, host: str) -> bool:
        """Whether it has as many deliveries under way as it may have, and answers them."""
        state = self._hosts.get(host)
        return state is not None and len(state.under_way) >= PER_HOST_MAX and not self.is_hanging(host)

    def wait_s(self, host: str) -> float:
        """0 if a delivery to this host may begin now, else the seconds after which to try again."""
        state = self._hosts.get(host)
        if state is None:
            return 0.0
        if self.is_hanging(host):
            return max(self._timeout_s if state.under_way else 0.0, state.open_until - self._clock())
        if state.hung and self._suspected() >= SUSPECTS_MAX:
            return self._timeout_s
        return BUSY_WAIT_S if len(state.under_way) >= PER_HOST_MAX else 0.0

    def is_hanging(self, host: str) -> bool:
        """Whether the host is parked, a delivery to it has waited for long, or one is under way after one that hung."""
        state = self._hosts.get(host)
        if state is None:
            return False
        now = self._clock()
        is_slow = any(now - delivery.began_at > SLOW_S for delivery in state.under_way)
        return is_slow or now < state.open_until or bool(state.hung and state.under_way)

    def is_under_way(self, host: str) -> bool:
        """Whether a delivery to this host is under way."""
        state = self._hosts.get(host)
        return state is not None and bool(state.under_way)

    @contextmanager
    def delivery(self, host: str) -> Iterator[UnderWay]:
        """A delivery to this host, while it lasts."""
        state = self._hosts.setdefault(host, _Host())
        delivery = UnderWay(self._clock())
        state.under_way.append(delivery)
        try:
            yield delivery
        finally:
            state.under_way.remove(delivery)
            self._judge(state, delivery)
            state.wake(PER_HOST_MAX - len(state.under_way))
            if state.is_idle:
                self._hosts.pop(host, None)

    def parked(self, host: str, url: str) -> None:
        """Remember that notifications for this URL wait for the host."""
        if len(self._hosts) < HOSTS_MAX or host in self._hosts:
            urls = self._hosts.setdefault(host, _Host()).urls
            if len(urls) < URLS_MAX:
                urls.add(url)

    def resumable(self, host: str) -> tuple[list[str], int]:
        """The URLs whose notifications wait for this host, and how many of them the end of a delivery makes due.

        Two of them fill its places within some rounds; more would find them taken, and be put off again.
        """
        state = self._hosts.get(host)
        if state is None or not state.urls or self.wait_s(host):
            return [], 0
        is_full_soon = state.hung or len(state.under_way) >= PER_HOST_MAX // 2
        return sorted(state.urls), 1 if is_full_soon else 2

    def is_back(self, host: str) -> bool:
        """Whether this host answers again after it was parked; true once."""
        state = self._hosts.get(host)
        if state is None or not state.is_back:
            return False
        state.is_back = False
        return True

    def resumed(self, host: str) -> None:
        """No notification waits for this host any more."""
        state = self._hosts.get(host)
        if state is not None:
            state.urls.clear()
            if state.is_idle:
                del self._hosts[host]

    def _suspected(self) -> int:
        return sum(len(state.under_way) for state in self._hosts.values() if state.hung)

    def _judge(self, state: _Host, ended: UnderWay) -> None:
        """Open the breaker after deliveries that hung, close it after any other."""
        now = self._clock()
        if ended.is_answered or now - ended.began_at < min(SLOW_S, self._timeout_s / 2):
            state.is_back = state.is_back or state.hung >= HUNG_MAX
            state.hung, state.open_s, state.open_until = 0, OPEN_S, 0.0
        elif now >= state.open_until:  # deliveries that began before it was parked do not count again
            state.hung += 1
            if state.hung >= HUNG_MAX:
                state.open_until, state.open_s = now + state.open_s, min(2 * state.open_s, OPEN_S_MAX)


class UnderWay:
    """A delivery. `is_answered`: the host has answered, whatever it said."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.is_answered = False


class _Host:
    """Deliveries under way, the number that hung in a row, and the URLs of parked notifications."""

    def __init__(self) -> None:
        self.under_way: list[UnderWay] = []
        self.hung = 0
        self.open_s = OPEN_S
        self.open_until = 0.0
        self.is_back = False
        self.urls: set[str] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def next_end(self) -> asyncio.Future[None]:
        """Done when there is a place, oldest first."""
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(end)
        return end

    def wake(self, places: int) -> None:
        """Wake a caller for each free place: one that was woken before may take none, or not yet."""
        while self._waiting and places:
            end = self._waiting.popleft()
            if not end.done():  # its caller waits still
                end.set_result(None)
                places -= 1

    @property
    def is_idle(self) -> bool:
        return not (self.under_way or self.hung or self.urls)
