"""Cost of a query and of a verified callback for each channel: sign, HTTP with TLS, verify, read.

Only the adapter runs in this process; the channel is another process. CPU is that of this process, with the threads of
the HTTP library. Plain HTTP is measured beside TLS, so that the cost of TLS shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec.structs import replace

from bench.buyer import Unexpected
from bench.certificates import Certificates, make_certificates
from bench.report import MS, Figure, Result, figure
from bench.sizes import ShowProgress, Sizes
from channels.adapters import ADAPTERS, open_channel
from channels.base import Channel, Create
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import CallbackForged
from core.evidence import Unclear
from core.order import Payment, PaymentStatus
from demo.embedded import free_port, temporary_directory
from demo.service import NoCookies, Service
from simulator.kit.asgi import App, Reply, Request, Response, Route
from simulator.kit.serve import serving

HOW = (
    "one adapter, one process, 16 queries at a time about one unpaid payment, connections kept open; then one captured "
    "callback verified again and again; CPU of this process alone, the channel is another one"
)
AT_ONCE = 16
WARM_UP = 32
READY_S = 20.0
CURRENCIES = {"paypal": "USD", "stripe": "USD"}
METHODS = {"stripe": "payment_intent"}
"""Methods with the most to verify; a channel that is not named uses its first method."""


class Captured(msgspec.Struct, frozen=True):
    """A received callback and its time."""

    headers: dict[str, str]
    body: bytes
    at: datetime


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure the CPU of a query over TLS and over plain HTTP, and of a verified callback, for every channel."""
    began = time.monotonic()
    figures: list[Figure] = []
    with temporary_directory() as directory:
        certificates = make_certificates(directory)
        for scheme in ("https", "http"):
            tls = certificates if scheme == "https" else None
            async with _channel_process(directory, tls) as channel_process:
                for name in ADAPTERS:
                    show_progress(f"{name} over {scheme}")
                    figures += await _measure(channel_process, name, sizes, tls)
    return Result(
        benchmark="channels",
        how=HOW,
        settings={"queries_at_once": AT_ONCE},
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(sorted(figures, key=lambda each: each.name)),
    )


class _ChannelProcess:
    """Client of the control API of the channels' process."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def control(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        response = await self._http.post(f"{self._url}{path}", json=body)
        response.raise_for_status()
        document: dict[str, Any] = response.json()
        return document


@asynccontextmanager
async def _channel_process(directory: Path, tls: Certificates | None) -> AsyncIterator[_ChannelProcess]:
    port = free_port()
    url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    options = () if tls is None else ("--tls", str(tls.certificate), str(tls.key))
    service = Service("channel", "simulator", "channel", "--port", str(port), *options, env={}, log=directory / "log")
    await service.start()
    try:
        async with httpx.AsyncClient(
            verify=True if tls is None else tls.context, trust_env=False, cookies=NoCookies()
        ) as http:
            await _until_ready(http, url)
            yield _ChannelProcess(url, http)
    finally:
        await service.stop()


async def _until_ready(http: httpx.AsyncClient, url: str) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            (await http.get(f"{url}/healthz")).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise Unexpected("the simulated channel did not start") from None
            await asyncio.sleep(0.05)
        else:
            return


async def _measure(channel_process: _ChannelProcess, name: str, sizes: Sizes, tls: Certificates | None) -> list[Figure]:
    captured: list[Captured] = []

    async def receive(request: Request) -> Reply:
        """Keep and acknowledge a genuine callback; refuse any other, as WeChat Pay's signature tests require."""
        callback = Captured(dict(request.headers), request.body, datetime.now(UTC))
        try:
            await channel.verify_callback(callback.headers, callback.body, received_at=callback.at)
        except CallbackForged:
            return Response(status=HTTPStatus.UNAUTHORIZED)
        captured.append(callback)
        ack = channel.acknowledge()
        return Response(status=ack.status, body=ack.body, content_type=ack.content_type)

    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(serving(App([Route("POST", "/callbacks/bench", receive)])))
        root = None if tls is None else tls.root_pem
        transport = await stack.enter_async_context(Transport(timeout_s=10.0, root_pem=root))
        channel = open_channel(await _account(channel_process, name, receiver), transport)
        await channel.keep_current()
        payment = await _created(channel, name, receiver)
        query = await _query_cost(channel, payment, sizes)
        if tls is None:
            return [figure(f"{name}_query_http", query * MS, "CPU ms/query", sizes.channel_queries)]
        await channel_process.control(f"/control/payments/{payment.out_trade_no}/pay", {})
        callback = await _callback_cost(channel, captured, sizes)
        return [
            figure(f"{name}_query_tls", query * MS, "CPU ms/query", sizes.channel_queries),
            figure(f"{name}_callback", callback * MS, "CPU ms/callback", sizes.channel_callbacks),
        ]


async def _account(channel_process: _ChannelProcess, name: str, receiver: str) -> AccountConfig:
    wanted = {"name": "bench", "channel": name, "callback_url": f"{receiver}/callbacks/bench"}
    opened = await channel_process.control("/control/accounts", wanted)
    return AccountConfig(name="bench", channel=name, base_url=opened["base_url"], credentials=opened["credentials"])


async def _created(channel: Channel, name: str, receiver: str) -> Payment:
    now = datetime.now(UTC)
    payment = Payment(
        channel_account="bench",
        out_trade_no=f"{int(time.time() * 1000):012x}{'0' * 16}",
        order_no="bench-1",
        attempt_no=1,
        amount=8888,
        currency=CURRENCIES.get(name, "CNY"),
        status=PaymentStatus.OPEN,
        payable_until=now + timedelta(hours=2),
        created_at=now,
        method=METHODS.get(name, ""),
    )
    created = await channel.create_payment(
        Create(
            payment=payment,
            subject="Tea, 250 g",
            callback_url=f"{receiver}/callbacks/bench",
            return_url="https://shop.example/back",
        )
    )
    return replace(payment, channel_reference=created.channel_reference)


async def _query_cost(channel: Channel, payment: Payment, sizes: Sizes) -> float:
    """Return the CPU seconds of a query."""

    async def query() -> None:
        if isinstance(await channel.query_payment(payment), Unclear):
            raise Unexpected("a query was unclear")

    await _repeat(query, WARM_UP)
    began = time.process_time()
    await _repeat(query, sizes.channel_queries)
    return (time.process_time() - began) / sizes.channel_queries


async def _callback_cost(channel: Channel, captured: list[Captured], sizes: Sizes) -> float:
    """Return the CPU seconds of a verified callback."""
    deadline = time.monotonic() + READY_S
    while not captured:
        if time.monotonic() > deadline:
            raise Unexpected("the channel did not call back")
        await asyncio.sleep(0.02)
    callback = captured[0]

    async def verify() -> None:
        await channel.verify_callback(callback.headers, callback.body, received_at=callback.at)

    await verify()
    began = time.process_time()
    for _ in range(sizes.channel_callbacks):
        await verify()
    return (time.process_time() - began) / sizes.channel_callbacks


async def _repeat(act: Callable[[], Awaitable[None]], times: int) -> None:
    """Run `act` a number of times, `AT_ONCE` at a time."""
    left = iter(range(times))

    async def client() -> None:
        for _ in left:
            await act()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client())
