"""Time until a buyer reads *paid*, in Chromium, and what streams cost the web process that holds them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from bench.buyer import Buyer, Unexpected
from bench.peers.environment import PeerMissing
from bench.report import Figure, Result, figure, of_percentile
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes

if TYPE_CHECKING:
    from playwright.async_api import Page

HOW = (
    "orders one after another, each on its page in Chromium: from the request for the callback until the page, which "
    "was open, shows paid; and with the callback lost, from the buyer's return until it does. Then streams on one web "
    "process, on one order together and each on its own: from the callback until each has read it, and resident memory"
)
PAID = "#order[data-status=paid]"
LIMIT_S = 60.0
OPENED_TOGETHER = 50
PAID_OF_OWN = 100
SETTLE_S = 3.0
"""After the streams are closed, before memory is read again."""

_MIB = 1024 * 1024
_PAGE_BYTES = 4096


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure pages and streams. Raises PeerMissing where there is no Chromium or no playwright."""
    began = time.monotonic()
    async with open_rig(env={"TRUSTED_PROXY_HOPS": "1"}) as rig, Buyer(rig) as buyer:
        show_progress(f"{sizes.pages} orders in Chromium")
        open_s, back_s = await _pages(buyer, sizes.pages)
        figures = [of_percentile("open", open_s), of_percentile("back", back_s)]
        for kind in ("one", "own"):
            show_progress(f"{sizes.streams} streams, order of each: {kind}")
            figures += await _streams(rig, buyer, kind, sizes.streams)
        return Result(
            benchmark="pages",
            how=HOW,
            settings=rig.in_force(),
            seconds=round(time.monotonic() - began, 1),
            figures=tuple(figures),
        )


# -- pages -------------------------------------------------------------------------------------------------------------


async def _pages(buyer: Buyer, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each order with its page open, and of each whose buyer comes back."""
    program = shutil.which("chromium")
    try:
        from playwright.async_api import async_playwright  # noqa: PLC0415 - a dependency of development alone
    except ImportError:
        raise PeerMissing("there is no playwright") from None
    if program is None:
        raise PeerMissing("there is no Chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = await browser.new_page()
        open_s = [await _paid_while_open(buyer, page, number) for number in range(count)]
        back_s = [await _paid_when_back(buyer, page, number) for number in range(count)]
        await browser.close()
    return open_s, back_s


async def _paid_while_open(buyer: Buyer, page: Page, number: int) -> float:
    """Seconds from the request for the callback."""
    await page.set_extra_http_headers({"x-forwarded-for": _address(number)})
    order = await buyer.place(f"page-{uuid4().hex}")
    async with page.expect_response(lambda response: "/events" in response.url):
        await page.goto(order.order_page)
    out_trade_no = order.payments[0].out_trade_no
    await buyer.pay(out_trade_no)
    since = time.perf_counter()
    calling = asyncio.create_task(buyer.control(out_trade_no, "callback"))
    await page.locator(PAID).wait_for(timeout=LIMIT_S * 1000)
    seconds = time.perf_counter() - since
    await calling
    return seconds


async def _paid_when_back(buyer: Buyer, page: Page, number: int) -> float:
    """Seconds from the buyer's return; no callback comes."""
    await page.set_extra_http_headers({"x-forwarded-for": _address(number)})
    order = await buyer.place(f"back-{uuid4().hex}")
    await page.goto(order.order_page)
    await page.goto("about:blank")
    await buyer.pay(order.payments[0].out_trade_no)
    since = time.perf_counter()
    await page.goto(f"{order.order_page}/return")
    await page.locator(PAID).wait_for(timeout=LIMIT_S * 1000)
    return time.perf_counter() - since


# -- streams -----------------------------------------------------------------------------------------------------------


async def _streams(rig: Rig, buyer: Buyer, kind: str, count: int) -> list[Figure]:
    orders = [await buyer.place(f"stream-{uuid4().hex}") for _ in range(1 if kind == "one" else count)]
    pages = [orders[0 if kind == "one" else number].order_page for number in range(count)]
    pid = rig.stack.apis[0].pid
    before = _resident_bytes(pid)
    async with _open_all(pages) as readers:
        during = _resident_bytes(pid)
        late_s: list[float] = []
        for number, order in enumerate(orders[:PAID_OF_OWN]):
            await buyer.pay(order.payments[0].out_trade_no)
            since = time.perf_counter()
            calling = asyncio.create_task(buyer.control(order.payments[0].out_trade_no, "callback"))
            waiting = readers if kind == "one" else readers[number : number + 1]
            late_s += await asyncio.gather(*(_until_paid(reader, since) for reader in waiting))
            await calling
    await asyncio.sleep(SETTLE_S)
    after = _resident_bytes(pid)
    sizes = {"before": before, "during": during, "after": after}
    return [
        of_percentile(f"stream_{kind}", late_s),
        *(figure(f"memory_{kind}_{when}", size / _MIB, "MiB", count) for when, size in sizes.items()),
    ]


@asynccontextmanager
async def _open_all(pages: Sequence[str]) -> AsyncIterator[list[asyncio.StreamReader]]:
    """A stream for each page, each from an address of its own, after its first event."""
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for first in range(0, len(pages), OPENED_TOGETHER):
            numbers = range(first, min(first + OPENED_TOGETHER, len(pages)))
            opened += await asyncio.gather(*(_open(pages[number], number) for number in numbers))
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def _open(page: str, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(page)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"host: {parts.netloc}\r\nx-forwarded-for: {_address(number)}\r\n\r\n"
    writer.write(f"GET {parts.path}/events HTTP/1.1\r\n{head}".encode())
    async with asyncio.timeout(LIMIT_S):
        response = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in response.split(b"\r\n", 1)[0]:
            raise Unexpected(f"a stream was refused: {response[:80]!r}")
        await reader.readuntil(b'"status":')
    return reader, writer


async def _until_paid(reader: asyncio.StreamReader, since: float) -> float:
    async with asyncio.timeout(LIMIT_S):
        await reader.readuntil(b'"status":"paid"')
    return time.perf_counter() - since


def _address(number: int) -> str:
    """A buyer's own: the limits of one address are no part of what is measured."""
    return f"198.51.{number // 200}.{number % 200 + 1}"


def _resident_bytes(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
