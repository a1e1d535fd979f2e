"""Merchant hosts that hang: how much later the others are notified, with Redis and without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import quantiles

from bench.buyer import Unexpected
from bench.clones import FIRST, place_first
from bench.loops import wait_until
from bench.report import Figure, Result, figure
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from core import jobs

HOW = (
    "notifications at a steady rate, half for one host that answers and half for others: first these answer too, then "
    "one of them hangs, then a hundred; the same without Redis; times from the row to its delivery"
)
RATE_PER_S = 20
TICK_S = 0.1
HUNDRED = 100
SOON = {"SWEEP_INTERVAL_S": "1", "SWEEP_GRACE_S": "2", "BACKOFF_UNIT_S": "2"}
"""Without Redis the sweep brings everything: its usual 15 s would hide how much later others hear. The gaps are short:
the run ends soon."""

TIMEOUT_S = 10.0
RATIO_MAX = 1.2
NOISE_S = 0.1
"""The 95th percentile with hanging hosts is at most 1.2 times the usual one; below a tenth of a second it is noise."""

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

_INSERT = """
INSERT INTO notifications (id, order_no, version, type, url, body)
SELECT 'bench-' || (1000 + $2::bigint + n), $1, 1000 + $2::bigint + n, 'order.paid', url, '{}'
  FROM unnest($3::text[]) WITH ORDINALITY AS u (url, n)
RETURNING id"""
_SECONDS = """
SELECT extract(epoch FROM delivered_at - created_at)::float8 FROM notifications
 WHERE url = $1 AND version > $2 AND delivered_at IS NOT NULL"""
_LEFT = "SELECT count(*) FROM notifications WHERE delivered_at IS NULL AND url = ANY($1)"


class Merchants:
    """One host that answers and many that hang when they are told to."""

    def __init__(self) -> None:
        self.answering = ""
        self.others: list[str] = []
        self.may_answer = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_other = writer.get_extra_info("sockname")[0] != "127.0.0.1"
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                if is_other:
                    await self.may_answer.wait()
                writer.write(RESPONSE)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure the 95th percentile of the host that answers, and the time until the others have heard too.

    Raises:
        Unexpected: hanging hosts delay the one that answers by more than a fifth, or a notification is lost.
    """
    began = time.monotonic()
    figures: list[Figure] = []
    late: list[str] = []
    async with open_rig(env=SOON | {"NOTIFY_TIMEOUT_S": str(TIMEOUT_S)}) as rig, _serving() as merchants:
        await place_first(rig)
        for prefix in ("", "without_redis_"):
            if prefix:
                await asyncio.to_thread(rig.stack.redis.stop)
            usual = 0.0
            for name, hanging in (("usual", 0), ("one_hangs", 1), ("hundred_hang", HUNDRED)):
                show_progress(f"{prefix}{name}: {sizes.deliveries} notifications for each side")
                p95, back = await _phase(rig, merchants, sizes, hanging=hanging, with_redis=not prefix)
                show_progress(
                    f"{prefix}{name}: 95th percentile {p95:.2f} s; the others {back:.1f} s after they answer again"
                )
                figures.append(figure(f"{prefix}{name}_p95", p95, "s", sizes.deliveries))
                if hanging:
                    figures.append(figure(f"{prefix}{name}_back", back, "s", sizes.deliveries))
                usual = usual or p95
                if p95 > max(RATIO_MAX * usual, usual + NOISE_S):
                    late.append(f"{prefix}{name}: {p95:.2f} s instead of {usual:.2f} s")
        await asyncio.to_thread(rig.stack.redis.start)
        settings = rig.in_force() | {"rate_per_s": 2 * RATE_PER_S, "notify_timeout_s": TIMEOUT_S}
    if late:
        raise Unexpected(f"the host that answers was notified late: {', '.join(late)}")
    seconds = round(time.monotonic() - began, 1)
    return Result(benchmark="merchants", how=HOW, settings=settings, seconds=seconds, figures=tuple(figures))


@asynccontextmanager
async def _serving() -> AsyncIterator[Merchants]:
    merchants = Merchants()
    async with AsyncExitStack() as stack:
        for number in range(1, HUNDRED + 2):
            server = await asyncio.start_server(merchants.serve, f"127.0.0.{number}", 0)
            stack.callback(server.close)
            address, port = server.sockets[0].getsockname()
            merchants.others.append(f"http://{address}:{port}/")
        merchants.answering = merchants.others.pop(0)
        yield merchants


async def _phase(
    rig: Rig, merchants: Merchants, sizes: Sizes, *, hanging: int, with_redis: bool
) -> tuple[float, float]:
    """The 95th percentile of the host that answers, and how long the others take when they answer again."""
    merchants.may_answer.clear() if hanging else merchants.may_answer.set()
    others = merchants.others[: hanging or 1]
    first = int(await rig.db.fetchval("SELECT max(version) FROM notifications") or 1000)
    await _send(rig, merchants.answering, others, sizes.deliveries, first, with_redis=with_redis)

    async def is_heard(*urls: str) -> bool:
        return bool(await rig.db.fetchval(_LEFT, list(urls)) == 0)

    limit_s = 10 * sizes.limit_s
    if not await wait_until(lambda: is_heard(merchants.answering), limit_s, TICK_S):
        raise Unexpected("the host that answers was not notified")
    seconds = [row[0] for row in await rig.db.fetch(_SECONDS, merchants.answering, first)]
    merchants.may_answer.set()
    back = time.monotonic()
    if not await wait_until(lambda: is_heard(*others), limit_s, TICK_S):
        raise Unexpected("hosts that hung were not notified when they answered again")
    return quantiles(seconds, n=20, method="inclusive")[-1], time.monotonic() - back


async def _send(rig: Rig, answering: str, others: Sequence[str], count: int, first: int, *, with_redis: bool) -> None:
    """`count` notifications for each side, some in every tick, whatever becomes of those before."""
    in_tick = max(1, round(RATE_PER_S * TICK_S))
    began = time.monotonic()
    for start in range(0, count, in_tick):
        urls = [answering] * in_tick + [others[n % len(others)] for n in range(start, start + in_tick)]
        rows = await rig.db.fetch(_INSERT, FIRST, first - 1000 + 2 * start, urls)
        if with_redis:
            await rig.queue.arm([jobs.push_notification(row["id"], 1) for row in rows])
        await asyncio.sleep(max(0.0, began + start / RATE_PER_S - time.monotonic()))
