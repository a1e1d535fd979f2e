"""The client for programs with an event loop. `client.py` has the same methods."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Self, TypeVar

import httpx

from nodrop_client import calls
from nodrop_client.calls import Answer, Call
from nodrop_client.client import ALL_ORDERS, OPEN_CASES
from nodrop_client.connection import ANSWER_BYTES_MAX, TIMEOUT_S, Reading, Service, mapped_errors, too_slow
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


class AsyncClient:
    """`Client` with `await`; `aclose` it, or use it with `async with`. For one event loop of asyncio.

    `timeout_s` ends a request exactly, whatever of it is late.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = TIMEOUT_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._service = Service(url, api_key, timeout_s, answer_bytes_max)
        self._retries = retries or Retries()
        self._http, self._owns_http = http or httpx.AsyncClient(), http is None
        self._sleep, self._clock, self._chance = sleep, clock, chance

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._owns_http:
            await self._http.aclose()

    # -- orders --------------------------------------------------------------------------------------------------------

    async def place(self, order: NewOrder) -> Order:
        """Place the order, and start to pay it. The same order again returns it, with a checkout that works.

        Raises:
            OrderConflict: the number is another order's.
            NoAnswer, Unavailable: it may have been placed; place it again with the same number.
        """
        return await self._send(calls.place(order))

    async def get(self, order_no: str) -> Order:
        return await self._send(calls.get(order_no))

    async def orders(self, query: OrdersQuery = ALL_ORDERS) -> AsyncIterator[Order]:
        """Orders of all pages, newest first."""
        while True:
            page = await self.order_page(query)
            for order in page.orders:
                yield order
            if page.next_cursor is None:
                return
            query = replace(query, cursor=page.next_cursor)

    async def order_page(self, query: OrdersQuery = ALL_ORDERS) -> OrderPage:
        return await self._send(calls.list_orders(query))

    async def start_payment(self, order_no: str, payment: NewPayment) -> Order:
        """Start another payment of the order."""
        return await self._send(calls.start_payment(order_no, payment))

    async def refresh(self, order_no: str) -> Order:
        """Query the channels about the order now."""
        return await self._send(calls.refresh(order_no))

    async def close_order(self, order_no: str) -> Order:
        """End the order. It is closed once its channels say that it is unpaid, perhaps after this answer."""
        return await self._send(calls.close(order_no))

    async def timeline(self, order_no: str) -> tuple[TimelineEntry, ...]:
        return (await self._send(calls.timeline(order_no))).entries

    async def watch(self, order_no: str, *, timeout_s: float, pause_max_s: float = 15.0) -> Order:
        """Read the order until it is definite, also through outages.

        Raises:
            NotDefinite: the time is used up.
        """
        ends_at = self._clock() + timeout_s
        watching = Watching(order_no, ends_at=ends_at, pause_max_s=pause_max_s, random=self._chance)
        while True:
            try:
                if (order := watching.take(await self._exchange(watching.call))) is not None:
                    return order
            except NodropError as error:
                watching.fail(error)
            await self._sleep(watching.pause_s(self._clock()))

    # -- cases ---------------------------------------------------------------------------------------------------------

    async def cases(self, query: CasesQuery = OPEN_CASES) -> AsyncIterator[Case]:
        """Questions for a person, of all pages, newest first."""
        while True:
            page = await self.case_page(query)
            for case in page.cases:
                yield case
            if page.next_cursor is None:
                return
            query = replace(query, cursor=page.next_cursor)

    async def case_page(self, query: CasesQuery = OPEN_CASES) -> CasePage:
        return await self._send(calls.list_cases(query))

    # -- sending -------------------------------------------------------------------------------------------------------

    async def _send(self, call: Call[T]) -> T:
        trial = Trial(self._retries, self._clock(), self._chance)
        while True:
            try:
                return call.read(await self._exchange(call))
            except NodropError as error:
                pause_s = trial.pause_s(error, self._clock())
            await self._sleep(pause_s)

    async def _exchange(self, call: Call[T]) -> Answer:
        ends_at = self._clock() + self._service.timeout_s
        try:
            async with asyncio.timeout(self._service.timeout_s):
                with mapped_errors():
                    return await self._read(call, ends_at)
        except TimeoutError as error:
            raise too_slow(self._service) from error

    async def _read(self, call: Call[T], ends_at: float) -> Answer:
        async with self._http.stream(**self._service.request(call)) as response:
            reading = Reading(response, self._service, ends_at)
            async for chunk in response.aiter_bytes():
                reading.take(chunk, self._clock())
            return reading.answer()
