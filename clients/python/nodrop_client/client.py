"""The client for programs without an event loop. `async_client.py` has the same methods."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Self, TypeVar

import httpx

from nodrop_client import calls
from nodrop_client.calls import Answer, Call
from nodrop_client.connection import ANSWER_BYTES_MAX, TIMEOUT_S, Reading, Service, mapped_errors
from nodrop_client.errors import NodropError
from nodrop_client.models import (
    Case,
    CasePage,
    CasesQuery,
    NewOrder,
    NewPayment,
    Order,
    OrderPage,
    OrdersQuery,
    TimelineEntry,
)
from nodrop_client.pauses import Retries, Trial, Watching

T = TypeVar("T")

ALL_ORDERS = OrdersQuery()
OPEN_CASES = CasesQuery()


class Client:
    """The merchant's side of the API. Safe to share between threads; `close` it, or use it with `with`.

    Each call is tried again as `retries` say: when no answer came, on 429, 502, 503 and 504, and on a 500 of the
    service itself. Nothing happens twice, for `order_no` is the idempotency key. `http` is a client of yours, with your
    proxies and authorities; it is not closed here.

    An answer has at most `answer_bytes_max` bytes, and comes within `timeout_s`. The time is looked at whenever a part
    of the answer comes, so a server that falls silent in the middle is given up after twice as long at most.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = TIMEOUT_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        retries: Retries | None = None,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._service = Service(url, api_key, timeout_s, answer_bytes_max)
        self._retries = retries or Retries()
        self._http, self._owns_http = http or httpx.Client(), http is None
        self._sleep, self._clock, self._chance = sleep, clock, chance

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    # -- orders --------------------------------------------------------------------------------------------------------

    def place(self, order: NewOrder) -> Order:
        """Place the order, and start to pay it. The same order again returns it, with a checkout that works.

        Raises:
            OrderConflict: the number is another order's.
            NoAnswer, Unavailable: it may have been placed; place it again with the same number.
        """
        return self._send(calls.place(order))

    def get(self, order_no: str) -> Order:
        return self._send(calls.get(order_no))

    def orders(self, query: OrdersQuery = ALL_ORDERS) -> Iterator[Order]:
        """Orders of all pages, newest first."""
        while True:
            page = self.order_page(query)
            yield from page.orders
            if page.next_cursor is None:
                return
            query = replace(query, cursor=page.next_cursor)

    def order_page(self, query: OrdersQuery = ALL_ORDERS) -> OrderPage:
        return self._send(calls.list_orders(query))

    def start_payment(self, order_no: str, payment: NewPayment) -> Order:
        """Start another payment of the order."""
        return self._send(calls.start_payment(order_no, payment))

    def refresh(self, order_no: str) -> Order:
        """Query the channels about the order now."""
        return self._send(calls.refresh(order_no))

    def close_order(self, order_no: str) -> Order:
        """End the order. It is closed once its channels say that it is unpaid, perhaps after this answer."""
        return self._send(calls.close(order_no))

    def timeline(self, order_no: str) -> tuple[TimelineEntry, ...]:
        return self._send(calls.timeline(order_no)).entries

    def watch(self, order_no: str, *, timeout_s: float, pause_max_s: float = 15.0) -> Order:
        """Read the order until it is definite, also through outages.

        Raises:
            NotDefinite: the time is used up.
        """
        ends_at = self._clock() + timeout_s
        watching = Watching(order_no, ends_at=ends_at, pause_max_s=pause_max_s, random=self._chance)
        while True:
            try:
                if (order := watching.take(self._exchange(watching.call))) is not None:
                    return order
            except NodropError as error:
                watching.fail(error)
            self._sleep(watching.pause_s(self._clock()))

    # -- cases ---------------------------------------------------------------------------------------------------------

    def cases(self, query: CasesQuery = OPEN_CASES) -> Iterator[Case]:
        """Questions for a person, of all pages, newest first."""
        while True:
            page = self.case_page(query)
            yield from page.cases
            if page.next_cursor is None:
                return
            query = replace(query, cursor=page.next_cursor)

    def case_page(self, query: CasesQuery = OPEN_CASES) -> CasePage:
        return self._send(calls.list_cases(query))

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, call: Call[T]) -> T:
        trial = Trial(self._retries, self._clock(), self._chance)
        while True:
            try:
                return call.read(self._exchange(call))
            except NodropError as error:
                pause_s = trial.pause_s(error, self._clock())
            self._sleep(pause_s)

    def _exchange(self, call: Call[T]) -> Answer:
        ends_at = self._clock() + self._service.timeout_s
        with mapped_errors(), self._http.stream(**self._service.request(call)) as response:
            reading = Reading(response, self._service, ends_at)
            for chunk in response.iter_bytes():
                reading.take(chunk, self._clock())
            return reading.answer()
