"""Lanes that sleep are woken by what becomes due before they look again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.worker import Retry
from fakeredis import FakeServer
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.jobs import Job, Lane, query_payment
from core.order import PaymentKey
from demo.embedded import EmbeddedRedis
from storage.redis.delay_queue import NUDGES, DelayQueue, queue_name
from storage.redis.job_claims import JobClaims, Turn
from storage.redis.nudges import Nudges
from tests.servers import eventually
from tests.storage.redis.tools import Connect, fake_client_of, job_client_of
from worker.lane import POLL_DELAY_S, LaneWorker

LANE = Lane.QUERIES
EVER_S = 3600.0
PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def long_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that hears nudges never looks by itself: without one these tests end after `PATIENCE_S`."""
    monkeypatch.setattr("worker.lane.NUDGED_S", EVER_S)


def query(number: int, delay_s: float = 0.0) -> Job:
    return query_payment(PaymentKey("shop", f"trade-{number}"), 1, delay_s)


@asynccontextmanager
async def listening(redis: Redis) -> AsyncIterator[Nudges]:
    nudges = Nudges(redis)
    task = asyncio.create_task(nudges.listen())
    try:
        yield nudges
    finally:
        while not task.done():  # redis-py swallows a cancellation that hits it while it connects
            task.cancel()
            await asyncio.wait({task}, timeout=1)


@asynccontextmanager
async def asleep(
    redis: ArqRedis, nudges: Nudges, function: Callable[..., Any], **options: Any
) -> AsyncIterator[LaneWorker]:
    """A lane that has found nothing to do, and has heard that it is subscribed."""
    await eventually(lambda: nudges.is_listening)
    options = {"process": "here", "job_timeout_s": EVER_S, **options}  # no lease ends meanwhile
    worker = LaneWorker(redis, LANE, {"query_payment": function}, nudges=nudges, **options)
    task = asyncio.create_task(worker.run_forever())
    await eventually(lambda: worker._gap_s > 1)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield worker
    finally:
        await worker.drain(1)
        await task


class Counted:
    def __init__(self) -> None:
        self.nudges = 0

    def __call__(self) -> None:
        self.nudges += 1


async def test_arming_nudges_when_a_job_is_due_before_what_a_lane_waits_for(redis: ArqRedis, connect: Connect) -> None:
    """Nothing runs here that could wait for a nudge: those that were sent come before a last message."""
    queue = DelayQueue(redis)
    async with connect() as other, other.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(NUDGES)

        async def nudges_of(*jobs: Job) -> int:
            await queue.arm(jobs)
            await redis.publish(NUDGES, "last")
            names = []
            while (message := await heard.get_message(timeout=PATIENCE_S)) is None or message["data"] != b"last":
                names += [] if message is None else [message["data"]]
            assert names == [queue_name(LANE).encode()] * len(names)
            return len(names)

        assert await nudges_of(query(1, 1000)) == 0
        assert await nudges_of(query(2, 0.9)) == 1
        assert await nudges_of(query(3, 0.95)) == 0
        await queue.cancel([query(2), query(3)])
        assert await nudges_of(query(4), query(5, 5)) == 1
        assert await nudges_of(query(6)) == 0


async def test_a_job_that_another_process_arms_wakes_a_lane(redis: ArqRedis, connect: Connect) -> None:
    ran = asyncio.Event()

    async def run(*_: Any) -> None:
        ran.set()

    async with connect() as other, listening(redis) as nudges, asleep(redis, nudges, run):
        await DelayQueue(other).arm([query(1)])
        await ran.wait()


async def test_a_job_that_is_due_soon_is_slept_for(redis: ArqRedis, connect: Connect) -> None:
    ran = asyncio.Event()

    async def run(*_: Any) -> None:
        ran.set()

    async with connect() as other, listening(redis) as nudges, asleep(redis, nudges, run):
        await DelayQueue(other).arm([query(1, 0.2)])
        await ran.wait()


async def test_a_job_that_is_given_back_wakes_its_lane(redis: ArqRedis) -> None:
    tries = 0

    async def run(*_: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Retry
        ran.set()

    ran = asyncio.Event()
    async with listening(redis) as nudges, asleep(redis, nudges, run):
        await DelayQueue(redis).arm([query(1)])
        await ran.wait()


async def test_a_lane_that_was_full_claims_again_when_its_jobs_end(redis: ArqRedis) -> None:
    ran: list[str] = []

    async def run(_ctx: object, _account: str, out_trade_no: str, _arm_no: int) -> None:
        ran.append(out_trade_no)

    async with listening(redis) as nudges, asleep(redis, nudges, run, max_jobs=2):
        await DelayQueue(redis).arm([query(number) for number in range(7)])
        await eventually(lambda: len(ran) == 7)


async def test_a_nudge_that_comes_during_a_claim_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be about a job that came too late for that claim."""
    claim = JobClaims.claim

    async def claim_and_hear(claims: JobClaims, count: int) -> Turn:
        turn = await claim(claims, count)
        worker.nudge()
        await worker._nudge.wait()
        return turn

    monkeypatch.setattr(JobClaims, "claim", claim_and_hear)
    async with fake_client_of(FakeServer(version=(7,))) as redis:
        worker = LaneWorker(redis, LANE, {}, process="here")
        assert await worker.run_once() == 0
        assert worker._nudge.is_set()


async def test_what_can_wait_for_the_next_look_is_no_nudge(redis: ArqRedis) -> None:
    counted, queue = Counted(), DelayQueue(redis)
    async with listening(redis) as nudges:
        await eventually(lambda: nudges.is_listening)
        nudges.add(queue_name(LANE), counted)
        await queue.arm([query(0, 1000)])
        await queue.arm([query(1, 0.9)])
        await eventually(lambda: counted.nudges == 1)
        await queue.arm([query(2, 0.95)])  # after what the lane waits for
        await queue.cancel([query(1), query(2)])
        await queue.arm([query(3), query(4, 5)])
        await eventually(lambda: counted.nudges == 2)
        await queue.arm([query(5)])  # the lane is about to claim
        await redis.publish(NUDGES, "arq:queue:{others}")
        await redis.publish(NUDGES, queue_name(LANE))
        await eventually(lambda: counted.nudges == 3)


async def test_a_lane_looks_often_while_it_hears_nothing(server_directory: Path) -> None:
    ran = asyncio.Event()

    async def run(*_: Any) -> None:
        ran.set()

    with EmbeddedRedis(server_directory) as server, capture_logs():
        async with job_client_of(server.url) as redis, listening(redis) as nudges, asleep(redis, nudges, run) as worker:
            server.kill()
            await eventually(lambda: not nudges.is_listening)
            await eventually(lambda: worker._gap_s == POLL_DELAY_S)
            server.start()
            await eventually(lambda: nudges.is_listening)
            await eventually(lambda: worker._gap_s > 1)
            await DelayQueue(redis).arm([query(1)])
            await ran.wait()
