"""A thousand open streams of order pages: slow readers, a proxy that cuts them all every half minute, and their orders
become paid.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

from demo.embedded.child import is_alive
from simulator.shoppers.shop import ShopOrder
from tests.chaos.ground import Disturbance, Ground, anonymous_bytes, open_files, open_stack
from tests.scenarios.router import Router
from tests.scenarios.scenario import port_of
from tests.servers import eventually

STREAMS = 1000
CUT_S = 30.0
SLOW = 10
"""One of so many readers takes nothing for a while, with a small buffer."""

SLOW_BUFFER_BYTES = 2048
OPENED_TOGETHER = 50
CHANGE_S = 60.0

_STATUS = re.compile(rb'^data: (\{.*"status".*\})$', re.MULTILINE)
_ID = re.compile(rb"^id: ([0-9]+)$", re.MULTILINE)


class Page:
    """A page's stream. It comes back after an end, one to three seconds later, with the last event that it has."""

    def __init__(self, order: ShopOrder, port: int, number: int, *, is_slow: bool) -> None:
        self.order = order
        self.paid_at: float | None = None
        self.opened = 0
        self.refused = 0
        self.is_slow = is_slow
        self.may_read = asyncio.Event()
        self.has_begun = asyncio.Event()
        self._port = port
        self._number = number
        self._last_id = b""

    async def run(self) -> None:
        """Read until the order is paid."""
        while self.paid_at is None:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._read_one()
            if self.paid_at is None:  # it comes back as a browser does, and not all of them at once
                await asyncio.sleep(1.0 + (self._number % 20) / 10)

    async def _read_one(self) -> None:
        reader, writer = await self._connect()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                self.refused += 1
                return
            self.opened += 1
            while chunk := await reader.readuntil(b"\n\n"):
                self.has_begun.set()
                if match := _ID.search(chunk):
                    self._last_id = match[1]
                if (match := _STATUS.search(chunk)) and json.loads(match[1])["status"] == "paid":
                    self.paid_at = time.time()
                    return
                if self.is_slow:
                    await self.may_read.wait()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        if self.is_slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=sock)
        last = f"last-event-id: {self._last_id.decode()}\r\n" if self._last_id else ""
        path = urlsplit(self.order.order_page).path
        # The buyer's own address: the limit of one address is no part of this.
        address = f"198.51.{self._number // 200}.{self._number % 200 + 1}"
        head = f"host: 127.0.0.1\r\nx-forwarded-for: {address}\r\n{last}\r\n"
        writer.write(f"GET {path}/events HTTP/1.1\r\n{head}".encode())
        return reader, writer


@asynccontextmanager
async def opened(pages: list[Page]) -> AsyncIterator[None]:
    """Keep the streams of these pages open in the block; wait for each one's first event."""
    tasks: list[asyncio.Task[None]] = []
    try:
        for first in range(0, len(pages), OPENED_TOGETHER):
            some = pages[first : first + OPENED_TOGETHER]
            tasks += [asyncio.create_task(page.run()) for page in some]
            await asyncio.gather(*(page.has_begun.wait() for page in some))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def disturb(ground: Ground) -> None:
    """Open all streams, let orders become paid one after another, and cut all connections every half minute."""
    scenario = ground.scenario
    api = ground.api_pid
    count = min(STREAMS, int(20 * ground.seconds))
    ground.note(f"{count} streams, one of {SLOW} slow")
    orders: list[ShopOrder] = []
    while len(orders) < count:
        orders += await scenario.place_many(min(OPENED_TOGETHER, count - len(orders)))
        await scenario.put_off(*orders[-OPENED_TOGETHER:])
    before, files = anonymous_bytes(api), open_files(api)
    async with AsyncExitStack() as stack:
        router = await stack.enter_async_context(Router())
        await router.lead_to(port_of(ground.stack.api_url))
        pages = [Page(order, router.port, n, is_slow=n % SLOW == 0) for n, order in enumerate(orders)]
        await stack.enter_async_context(opened(pages))
        during = anonymous_bytes(api)
        cutting = asyncio.create_task(_cut(ground, router))
        stack.callback(cutting.cancel)
        read_at = await _pay_all(ground, pages)
    assert is_alive(api), "the web process has ended"
    await _judge(ground, pages, read_at)
    await eventually(lambda: open_files(api) <= files + 50)
    for name, size in (("before", before), ("with all streams", during), ("after them", anonymous_bytes(api))):
        ground.measure(f"memory of the web process {name}", size / 2**20, "MiB")
    ground.measure("open files before", files, "files")
    ground.measure("open files after", open_files(api), "files")


async def _cut(ground: Ground, router: Router) -> None:
    gap_s = min(CUT_S, ground.seconds / 3)
    while True:
        await asyncio.sleep(gap_s)
        ground.note("The proxy cuts all streams")
        await router.lead_to(port_of(ground.stack.api_url))


async def _pay_all(ground: Ground, pages: list[Page]) -> float:
    """Pay the orders evenly over the run, with a callback for each, while slow readers take nothing. Return the time at
    which they read again.
    """
    slow, quick = ([page for page in pages if page.is_slow is kind] for kind in (True, False))
    began = time.monotonic()
    for number, page in enumerate((*slow, *quick)):
        await ground.scenario.pay(page.order, "none")
        ahead_s = ground.seconds * number / len(pages) - (time.monotonic() - began)
        await asyncio.sleep(max(0.0, ahead_s))
    read_at = time.time()
    for page in slow:
        page.may_read.set()
    with suppress(AssertionError):
        await eventually(lambda: all(page.paid_at for page in pages), CHANGE_S)
    return read_at


async def _judge(ground: Ground, pages: list[Page], read_at: float) -> None:
    """Record how long after its commit each change was on the page. A stream that was cut comes back after 1 to 3 s."""
    unpaid = [page for page in pages if page.paid_at is None]
    if unpaid:
        ground.report_broken(f"{len(unpaid)} pages do not show paid after {CHANGE_S:.0f} s")
    committed = await ground.paid_at(*(page.order for page in pages))
    quick = [page for page in pages if not page.is_slow]
    late = [max(0.0, page.paid_at - committed[page.order.order_no]) for page in quick if page.paid_at is not None]
    ground.measure_times("commit to page", late)
    behind = [max(0.0, page.paid_at - read_at) for page in pages if page.is_slow and page.paid_at is not None]
    ground.measure_times("slow readers: from reading again to page", behind)
    ground.measure("streams opened again", sum(max(0, page.opened - 1) for page in pages), "times", len(pages))
    ground.measure("streams refused", sum(page.refused for page in pages), "times", len(pages))


DISTURBANCE = Disturbance(
    "streams",
    "a thousand streams of order pages, slow readers, and a proxy that cuts all of them every half minute",
    75.0,
    disturb,
    lambda directory, seed: open_stack(directory, seed, workers=1, env={"TRUSTED_PROXY_HOPS": "1"}),
    rate_per_s=2.0,
)
