"""The metrics of a worker, scraped from its own port."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from core.errors import DatabaseUnavailable
from core.jobs import Lane, query_payment
from core.lifecycle import OrderTerms
from core.settings import Settings
from demo.embedded import free_port
from flows.place import PaymentRequest, place_order
from runtime.resources import Resources
from storage.postgres.api_keys import Scope, create_api_key, revoke_api_key
from tests.api.conftest import Channel
from tests.connections import stop_listening
from tests.servers import eventually
from worker import metrics
from worker.jobs import FUNCTIONS
from worker.lane import LaneWorker
from worker.metrics import serve_metrics


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, metrics_port=free_port())


@asynccontextmanager
async def served(resources: Resources) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(serve_metrics(resources, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def ask(settings: Settings, request: bytes) -> tuple[int, str]:
    """The status and the body of the response; 0: the connection was closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.metrics_port)
    writer.write(request)
    try:
        answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, body.decode()


async def scrape(settings: Settings, key: str) -> tuple[int, str]:
    head = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nAccept: */*\r\n\r\n"
    return await ask(settings, head.encode())


async def listening(settings: Settings) -> None:
    async def is_there() -> bool:
        try:
            await ask(settings, b"GET / HTTP/1.1\r\n\r\n")
        except OSError:
            return False
        return True

    await eventually(is_there)


async def test_a_worker_shows_what_it_has_counted(
    settings: Settings, resources: Resources, channel: Channel, account: str
) -> None:
    _, key = await create_api_key(resources.db, "prometheus", scopes=[Scope.METRICS])
    terms = OrderTerms(order_no="M-1", amount=8888, currency="CNY", subject="Tea")
    placed = await place_order(resources, terms, PaymentRequest(account=account), expires_in_s=None)
    payment = placed.state.payments[0]
    await channel.pay(payment.out_trade_no)
    await resources.db.execute("UPDATE pending SET due_at = now(), arm_no = 2 WHERE kind = 'query'")
    async with served(resources):
        await listening(settings)
        _, before = await scrape(settings, key)
        lane = LaneWorker(
            resources.redis, Lane.QUERIES, FUNCTIONS[Lane.QUERIES], process="here", ctx={"resources": resources}
        )
        await resources.queue.arm([query_payment(payment.key, 2)])
        await eventually(lane.run_once)
        await eventually(lambda: not lane.running)
        await lane.drain(5.0)
        status, after = await scrape(settings, key)
    assert status == 200
    for line in (
        'nodrop_channel_calls_total{account="main",kind="create",result="ok"}',
        'nodrop_channel_calls_total{account="main",kind="query",result="ok"}',
        'nodrop_channel_call_seconds_count{account="main",kind="query"}',
        'nodrop_jobs_total{lane="queries",result="complete"}',
        'nodrop_orders_paid_total{by="query"}',
    ):
        assert value(after, line) >= 1, line
    assert (
        value(after, 'nodrop_orders_paid_total{by="query"}')
        == value(before, 'nodrop_orders_paid_total{by="query"}') + 1
    )
    assert value(after, 'nodrop_breaker_open{account="main",kind="query"}') == 0
    assert value(after, 'nodrop_channel_rate{account="main"}') > 0
    assert value(after, 'nodrop_channel_rate_used{account="main"}') >= 1, "calls of this second"
    assert "nodrop_clock_skew_seconds " in after


def value(text: str, sample: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{sample} "))


async def test_only_a_key_of_the_scope_opens_it_also_while_postgres_is_down(
    settings: Settings, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, key = await create_api_key(resources.db, "prometheus", scopes=[Scope.METRICS])
    _, other = await create_api_key(resources.db, "shop", scopes=[Scope.READ])
    async with served(resources):
        await listening(settings)
        assert [(await scrape(settings, text))[0] for text in (key, other, "ndk_x", "")] == [200, 401, 401, 401]

        async def is_down(_db: object, _digest: bytes) -> None:
            raise DatabaseUnavailable

        with monkeypatch.context() as patch:
            patch.setattr("worker.metrics.find_api_key", is_down)
            assert [(await scrape(settings, text))[0] for text in (key, other)] == [200, 401]
        await revoke_api_key(resources.db, right.id)
        assert (await scrape(settings, key))[0] == 401


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 401),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"\x00\xff\r\n\r\n", 404),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 0),
    ],
)
async def test_other_requests_get_nothing(
    settings: Settings, resources: Resources, request_: bytes, status: int
) -> None:
    async with served(resources):
        await listening(settings)
        assert (await ask(settings, request_))[0] == status


async def test_a_head_that_does_not_end_is_not_waited_for(
    settings: Settings, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "HEAD_S", 0.05)
    async with served(resources):
        await listening(settings)
        assert (await ask(settings, b"GET /metrics HTTP/1.1\r\n"))[0] == 0


async def test_a_port_in_use_is_taken_as_soon_as_it_is_free(
    settings: Settings, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a deploy on one machine, where the old worker still listens."""
    monkeypatch.setattr(metrics, "RETRY_S", 0.05)

    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    other = await asyncio.start_server(close, "127.0.0.1", settings.metrics_port)
    with capture_logs() as lines:
        async with served(resources):
            await eventually(lambda: bool(lines))
            await stop_listening(other)
            await eventually(lambda: len(lines) == 2)
            assert (await ask(settings, b"GET / HTTP/1.1\r\n\r\n"))[0] == 404
    assert [line["event"] for line in lines] == ["metrics_port_taken", "metrics_served"]


async def test_without_a_port_nothing_is_served(settings: Settings, resources: Resources) -> None:
    off = dataclasses.replace(resources, settings=replace(settings, metrics_port=0))
    async with asyncio.timeout(60):
        await serve_metrics(off, asyncio.Event())
