import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Self, cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from structlog.testing import capture_logs

from core.errors import RedisUnavailable, TooManyRequests
from demo.embedded import EmbeddedRedis
from storage.redis.changes import CHANNEL, PAIRS_MAX, Changes
from tests.connections import serving
from tests.servers import eventually
from tests.storage.redis.tools import Connect, calls_of, client_of, follow_ups_of, job_client_of

LONG_S = 10.0


@asynccontextmanager
async def listening(connect: Connect) -> AsyncIterator[Changes]:
    """Another process's `Changes`, over a client of its own."""
    async with connect() as client:
        changes = Changes(client)
        task = asyncio.create_task(changes.listen())
        await eventually(lambda: has_listeners(client))
        try:
            yield changes
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def has_listeners(client: Redis) -> bool:
    ((_, count),) = await client.pubsub_numsub(CHANNEL)
    return bool(count)


async def test_a_change_reaches_every_process_and_only_listeners_of_that_order(redis: Redis, connect: Connect) -> None:
    async with listening(connect) as here, listening(connect) as there:
        with here.subscribe("A-1") as one, there.subscribe("A-1") as two, there.subscribe("A-2") as other:
            await other.wait(0.01)  # the subscription itself may wake it
            await follow_ups_of(redis).add(changes=[("A-1", 2)])
            assert await one.wait(LONG_S)
            assert await two.wait(LONG_S)
            assert not await other.wait(0.05)
            assert not await one.wait(0.01)  # woken once


async def test_a_listener_whose_start_meets_a_lost_connection_begins_again() -> None:
    """Uvloop's error for that has no cause that says so; it is no bug of ours, whose trace would be logged."""
    begun: list[str] = []

    class Lost:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def subscribe(self, channel: str) -> None:
            begun.append(channel)
            if len(begun) > 1:
                raise asyncio.CancelledError
            raise RuntimeError(f"unable to perform operation on {object()!r}; the handler is closed")

    client = cast("Redis", SimpleNamespace(pubsub=Lost))
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await Changes(client).listen()
    assert [(line["event"], line["error"]) for line in lines] == [("redis_link_lost", "RuntimeError")]
    assert begun == [CHANNEL] * 2


async def test_what_came_before_the_wait_is_not_lost(redis: Redis, connect: Connect) -> None:
    async with listening(connect) as changes:
        with changes.subscribe("A-1") as one, changes.subscribe("A-2") as two:
            await follow_ups_of(redis).add(changes=[("A-1", 2), ("A-2", 1)])
            assert await two.wait(LONG_S)
            assert await one.wait(0.01)


async def test_many_changes_are_published_in_one_round_trip(real_redis: Redis, redis_url: str) -> None:
    async with listening(partial(job_client_of, redis_url)) as changes:
        with changes.subscribe(f"A-{PAIRS_MAX}") as last:
            reads = int((await real_redis.info("stats"))["total_reads_processed"])
            published = await calls_of(real_redis, "publish")
            await follow_ups_of(real_redis).add(changes=[(f"A-{number}", 1) for number in range(PAIRS_MAX + 1)])
            assert await last.wait(LONG_S)
            assert await calls_of(real_redis, "publish") - published == 2
            assert int((await real_redis.info("stats"))["total_reads_processed"]) - reads <= 5


@pytest.mark.parametrize(
    "forged", [b"junk", b"\xff", b"[" * 100_000, b'[["A-1"]]', b'{"A-1":1}', b'[["' + b"x" * 65 + b'",1]]']
)
async def test_a_forged_message_that_cannot_be_read_changes_nothing(
    redis: Redis, connect: Connect, forged: bytes
) -> None:
    async with listening(connect) as changes:
        with changes.subscribe("A-1") as one:
            await redis.publish(CHANNEL, forged)
            await follow_ups_of(redis).add(changes=[("A-1", 1)])
            assert await one.wait(LONG_S)


async def test_all_listeners_look_again_after_a_lost_connection(server_directory: Path) -> None:
    """Messages may have been lost meanwhile."""
    with EmbeddedRedis(server_directory) as server, capture_logs() as lines:
        async with listening(partial(job_client_of, server.url)) as changes, client_of(server.url) as client:
            with changes.subscribe("A-1") as one, changes.subscribe("A-2") as two:
                await one.wait(0.01)
                await two.wait(0.01)
                server.kill()
                await eventually(lambda: [line for line in lines if line["event"] == "redis_link_lost"])
                server.start()
                assert await one.wait(LONG_S)
                assert await two.wait(LONG_S)
                await follow_ups_of(client).add(changes=[("A-1", 2)])
                assert await one.wait(LONG_S)
    assert [line["event"] for line in lines] == ["redis_link_lost", "redis_link_restored"]


async def test_all_listeners_look_again_when_the_client_reconnected(real_redis: Redis, redis_url: str) -> None:
    async with listening(partial(job_client_of, redis_url)) as changes:
        with changes.subscribe("A-1") as one:
            await one.wait(0.01)
            await real_redis.client_kill_filter(_type="pubsub")
            assert await one.wait(LONG_S)


async def test_a_redis_that_sends_nothing_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP alone would believe in it for hours."""
    monkeypatch.setattr("storage.redis.changes.SILENCE_S", 0.02)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the beginning of a connection, and then nothing."""
        writer.write(b"+OK\r\n+OK\r\n")
        while await reader.read(1000):
            pass

    async with serving(swallow) as port, AsyncExitStack() as stack:
        changes = Changes(await stack.enter_async_context(client_of(f"redis://127.0.0.1:{port}")))
        with capture_logs() as lines:
            task = asyncio.create_task(changes.listen())
            await eventually(lambda: [line for line in lines if line["event"] == "redis_link_lost"])
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_redis_without_changes_does_not_count_as_lost(
    real_redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.redis.changes.SILENCE_S", 0.5)  # longer than a busy machine keeps an answer waiting
    with capture_logs() as lines:
        async with listening(partial(job_client_of, redis_url)) as changes:
            before = await calls_of(real_redis, "ping")
            await eventually(lambda: has_pings(real_redis, before + 2))
            with changes.subscribe("A-1") as one:
                await follow_ups_of(real_redis).add(changes=[("A-1", 1)])
                assert await one.wait(LONG_S)
    assert lines == []


async def has_pings(redis: Redis, pings: int) -> bool:
    return await calls_of(redis, "ping") >= pings


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_a_listener_ends_although_the_client_swallows_its_cancellation(
    real_redis: Redis, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Python's own `wait_for` does so before 3.12, at the moment when what it waits for has just ended."""
    is_waiting = asyncio.Event()

    async def swallow(_: PubSub, timeout: float) -> None:  # noqa: ASYNC109 - redis-py's signature
        is_waiting.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(timeout)
        if error is not None:
            raise error

    monkeypatch.setattr(PubSub, "get_message", swallow)
    listener = asyncio.create_task(Changes(real_redis).listen())
    await is_waiting.wait()
    listener.cancel()
    await asyncio.wait([listener], timeout=LONG_S)
    assert listener.cancelled()


async def test_publishing_delays_no_caller_while_redis_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.redis.delay_queue.SEND_TIMEOUT_S", 0.5)

    async def never_answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(never_answer) as port, client_of(f"redis://127.0.0.1:{port}") as silent:
        follow_ups = follow_ups_of(silent)
        with capture_logs() as lines:
            began_at = monotonic()
            for _ in range(100):
                with suppress(RedisUnavailable):
                    await follow_ups.add(changes=[("A-1", 1)])
            assert monotonic() - began_at < 25, "a hundred time-outs would take 50 s"
    assert [line["event"] for line in lines] == ["redis_link_lost"]


async def test_publishing_works_again_when_redis_does(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.redis.delay_queue.PUBLISH_PAUSE_S", 0.05)
    with EmbeddedRedis(server_directory) as server:
        async with client_of(server.url) as client:
            follow_ups = follow_ups_of(client)
            with capture_logs() as lines:
                server.kill()
                with pytest.raises(RedisUnavailable):
                    await follow_ups.add(changes=[("A-1", 1)])
                server.start()

                async def published() -> bool:
                    with suppress(RedisUnavailable):
                        await follow_ups.add(changes=[("A-1", 1)])
                    return bool(lines[-1]["event"] == "redis_link_restored")

                await eventually(published)


async def test_listeners_are_bounded_and_forgotten(redis: Redis) -> None:
    changes = Changes(redis, listeners_max=2)
    with (
        changes.subscribe("A-1"),
        changes.subscribe("A-1"),
        pytest.raises(TooManyRequests),
        changes.subscribe("A-2"),
    ):
        pass
    with changes.subscribe("A-2"):
        pass
    assert not changes._listeners
