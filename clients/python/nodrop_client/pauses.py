"""When a call is sent again, and when an order is read again. Nothing sleeps here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from nodrop_client import calls
from nodrop_client.calls import Answer, Call
from nodrop_client.errors import NodropError, NotDefinite, UnreadableAnswer
from nodrop_client.models import Order


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """Tries of a call. Pauses double from `first_pause_s` to `pause_max_s`: about 0.5, 1, 2, 4, 8, 8 … s, each
    shortened by chance to between a half and the whole of it, and never shorter than `Retry-After`.

    `total_s` ends them: no pause that reaches beyond it is begun. 0: a call is sent once.
    """

    total_s: float = 60.0
    first_pause_s: float = 0.5
    pause_max_s: float = 8.0

    def pause_s(self, attempt: int, retry_after_s: float | None, chance: float) -> float:
        """Seconds after the attempt (from 1) that failed. `chance` is from 0 to 1."""
        growing_s = min(self.pause_max_s, self.first_pause_s * 2.0 ** min(attempt - 1, 30))
        spread_s = growing_s * (0.5 + chance / 2)
        return spread_s if retry_after_s is None else max(spread_s, retry_after_s + self.first_pause_s * chance)


class Trial:
    """The attempts of one call."""

    def __init__(self, retries: Retries, began_at: float, random: Callable[[], float]) -> None:
        self._retries = retries
        self._ends_at = began_at + retries.total_s
        self._random = random
        self._attempt = 0

    def pause_s(self, error: NodropError, now: float) -> float:
        """Seconds until the next attempt.

        Raises:
            NodropError: this error, if another attempt is pointless or the time is used up.
        """
        self._attempt += 1
        pause_s = self._retries.pause_s(self._attempt, error.retry_after_s, self._random())
        if not error.is_transient or now + pause_s > self._ends_at:
            raise error
        return pause_s


class Watching:
    """Reads of one order until it is definite. While nothing changes, pauses grow from a second to `pause_max_s`."""

    def __init__(self, order_no: str, *, ends_at: float, pause_max_s: float, random: Callable[[], float]) -> None:
        self._order_no = order_no
        self._etag = ""
        self._ends_at = ends_at
        self._pauses = Retries(first_pause_s=1.0, pause_max_s=pause_max_s)
        self._random = random
        self._attempt = 0
        self._retry_after_s: float | None = None
        self._error: NodropError | None = None
        self.order: Order | None = None

    @property
    def call(self) -> Call[Order]:
        """The next read: unchanged is answered without a body."""
        return calls.get(self._order_no, self._etag)

    def take(self, answer: Answer) -> Order | None:
        """Return the order once it is definite.

        Raises:
            NodropError: the service said no.
        """
        self._error, self._retry_after_s = None, None
        if answer.status != HTTPStatus.NOT_MODIFIED or not self._etag:
            self._note(self.call.read(answer))
            self._etag = answer.headers.get("etag", "")
        return self.order if self.order is not None and self.order.is_definite else None

    def fail(self, error: NodropError) -> None:
        """Note a read that failed. Neither an outage nor a page of a router ends anything before the time is used up.

        Raises:
            NodropError: this error, if the service itself said it and another read is pointless.
        """
        if not error.is_transient and not isinstance(error, UnreadableAnswer):
            raise error
        self._error, self._retry_after_s = error, error.retry_after_s

    def pause_s(self, now: float) -> float:
        """Seconds until the next read; a last one is made at the end of the time.

        Raises:
            NotDefinite: the time is used up.
        """
        if now >= self._ends_at:
            raise NotDefinite(self.order) from self._error
        self._attempt += 1
        pause_s = self._pauses.pause_s(self._attempt, self._retry_after_s, self._random())
        return min(pause_s, self._ends_at - now)

    def _note(self, order: Order) -> None:
        """Keep what is news. Within a version, a case may be answered."""
        if self.order is not None and (order.version < self.order.version or order == self.order):
            return
        self._attempt, self.order = 0, order
