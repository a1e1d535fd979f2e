"""Bounds of an order's parts: a request that is stored, a call to a channel, the door's statements, at their least."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import uvloop

from bench.cpu import cpu_seconds
from bench.limit_door import record_script, run_pgbench
from bench.loops import closed_loop
from bench.raw_http import call_all
from bench.report import Figure, Result, of_repeats
from bench.sizes import ShowProgress, Sizes
from channels.transport import Transport
from demo.embedded import EmbeddedPostgres, free_port, temporary_directory
from demo.embedded.child import children_of
from demo.service import Service
from storage.postgres.migrate import migrate

HOW = (
    "a bare ASGI handler on uvicorn that inserts one row, called by raw sockets; the same handler without the row, "
    "called by raw sockets and by the transport of the channels, without TLS; pgbench with the door's statements that "
    "place an order and make it paid; CPU of each process"
)
CLIENTS = 64
US = 1e6
BODY = b'{"order_no": "2026-1123-0001", "amount": 8888, "currency": "CNY", "subject": "A cup of tea"}'
TIMEOUT_S = 15.0

Values = dict[tuple[str, str], float]
"""By name and unit."""


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure each bound in turns."""
    began = time.monotonic()
    repeats: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as server:
        server.create_database("limit")
        await migrate(server.url("limit"))
        service, port = _bare(server, directory)
        script = await record_script(server.url("limit"))
        await service.start()
        try:
            for turn in range(sizes.repeats):
                show_progress(f"round {turn + 1} of {sizes.repeats}: {sizes.requests} requests, then pgbench")
                values = await _inserts(server, service, port, sizes)
                values |= await asyncio.to_thread(_raw_calls, port, sizes.requests)
                values |= await asyncio.to_thread(_transport_calls, port, sizes.requests)
                values |= await run_pgbench(server, script, sizes.orders, turn)
                for name, value in values.items():
                    repeats[name].append(value)
        finally:
            await service.stop()
    figures = tuple(_figure(*key, values, sizes) for key, values in repeats.items())
    settings: dict[str, str | int | float] = {"clients": CLIENTS, "rounds": sizes.repeats}
    seconds = round(time.monotonic() - began, 1)
    return Result(benchmark="limit", how=HOW, settings=settings, seconds=seconds, figures=figures)


def _figure(name: str, unit: str, values: list[float], sizes: Sizes) -> Figure:
    return of_repeats(name, values, unit, sizes.orders if name.startswith("door") else sizes.requests)


def _bare(server: EmbeddedPostgres, directory: Path) -> tuple[Service, int]:
    port = free_port()
    env = {"DATABASE_URL": server.url("limit")}
    health = f"http://127.0.0.1:{port}/"
    return Service("bare", "bench.bare", str(port), env=env, log=directory / "bare.log", health_url=health), port


async def _inserts(server: EmbeddedPostgres, service: Service, port: int, sizes: Sizes) -> Values:
    """Stored requests a second, and CPU of the web process and of Postgres for each."""

    def used() -> tuple[float, float]:
        assert service.pid is not None
        return cpu_seconds(service.pid), sum(map(cpu_seconds, (server.pid, *children_of(server.pid))))

    before, began, n = used(), time.monotonic(), sizes.requests
    await call_all(port, "POST", BODY, n, CLIENTS)
    seconds, after = time.monotonic() - began, used()
    return {
        ("stored_per_s", "requests/s"): n / seconds,
        ("stored_cpu_web", "CPU us/request"): (after[0] - before[0]) / n * US,
        ("stored_cpu_postgres", "CPU us/request"): (after[1] - before[1]) / n * US,
    }


def _raw_calls(port: int, n: int) -> Values:
    before = time.process_time()
    uvloop.run(call_all(port, "GET", b"", n, CLIENTS))
    return {("call_raw", "CPU us/call"): (time.process_time() - before) / n * US}


def _transport_calls(port: int, n: int) -> Values:
    """The same calls as adapters make them. All threads of this process count: the library has its own."""

    async def run() -> float:
        async with Transport(timeout_s=TIMEOUT_S) as transport:

            async def call(_: int) -> None:
                await transport.call("GET", f"http://127.0.0.1:{port}/", headers={})

            await closed_loop(call, CLIENTS, CLIENTS, TIMEOUT_S)
            before = time.process_time()
            done = await closed_loop(call, n, CLIENTS, TIMEOUT_S)
            return (time.process_time() - before) / len(done)

    return {("call_transport", "CPU us/call"): uvloop.run(run()) * US}
