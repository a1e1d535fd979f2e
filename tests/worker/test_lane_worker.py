import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from arq.connections import ArqRedis
from arq.worker import Worker, async_check_health, func
from fakeredis import FakeServer
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from core.errors import RedisUnavailable
from core.jobs import Job, Lane, query_payment
from core.order import PaymentKey
from demo.embedded import EmbeddedRedis
from storage.redis.address import read_redis_address
from storage.redis.client import redis_settings
from storage.redis.delay_queue import Claimed, DelayQueue, health_key, job_id, queue_name
from storage.redis.job_payload import decode_job, encode_job
from tests.servers import eventually
from tests.storage.redis.tools import Connect, fake_client_of, job_client_of
from worker.lane import JobFunction, LaneWorker

LANE = Lane.QUERIES
QUEUE = "arq:queue:{queries-0}"
PARKED = QUEUE + ":parked-jobs"


@pytest.fixture
def queue(redis: ArqRedis) -> DelayQueue:
    return DelayQueue(redis)


class Ran:
    """The jobs that ran, by out_trade_no and arm number."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, int]] = []

    async def __call__(self, _ctx: dict[str, Any], _account: str, out_trade_no: str, arm_no: int) -> None:
        self.jobs.append((out_trade_no, arm_no))


def worker_of(redis: ArqRedis, function: JobFunction, **options: Any) -> LaneWorker:
    return LaneWorker(redis, LANE, {"query_payment": function}, process="here", **options)


@asynccontextmanager
async def running(worker: LaneWorker) -> AsyncIterator[LaneWorker]:
    task = asyncio.create_task(worker.run_forever())
    try:
        yield worker
    finally:
        await worker.drain(1)
        await task


def query(number: int, *, arm_no: int = 1, delay_s: float = 0.0) -> Job:
    return query_payment(PaymentKey("shop", f"trade-{number}"), arm_no, delay_s)


async def remaining_keys(redis: ArqRedis) -> int:
    """Count the keys of jobs: entries, payloads, leases, tries."""
    return len([key async for key in redis.scan_iter() if b"health" not in key and key != PARKED.encode()])


# -- running -----------------------------------------------------------------------------------------------------------


async def test_due_jobs_run_once_and_leave_nothing_behind(redis: ArqRedis, queue: DelayQueue) -> None:
    ran = Ran()
    await queue.arm([query(number) for number in range(50)])
    async with running(worker_of(redis, ran, max_jobs=20)):
        await eventually(lambda: len(ran.jobs) == 50)
        await eventually(lambda: is_empty(redis))
    assert sorted(ran.jobs) == sorted((f"trade-{number}", 1) for number in range(50))


async def is_empty(redis: ArqRedis) -> bool:
    return await remaining_keys(redis) == 0


@pytest.mark.parametrize("skew_s", [-3600.0, -600.0, 600.0, 3600.0])
async def test_a_skewed_clock_neither_starts_a_job_early_nor_starves_one(
    redis: ArqRedis, queue: DelayQueue, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr("arq.utils.time", lambda: real() + skew_s)
    monkeypatch.setattr("arq.worker.time", lambda: real() + skew_s)
    ran = Ran()
    worker = worker_of(redis, ran)
    await queue.arm([query(1, delay_s=60), query(2)])
    assert await worker.run_once() == 1
    await asyncio.gather(*worker.tasks.values())
    assert ran.jobs == [("trade-2", 1)]


async def test_a_worker_that_may_not_claim_leaves_jobs_to_others(redis: ArqRedis, queue: DelayQueue) -> None:
    """As one whose clock is far off."""
    ran, may_claim = Ran(), False
    worker = worker_of(redis, ran, may_claim=lambda: may_claim)
    await queue.arm([query(1)])
    assert await worker.run_once() == 0
    may_claim = True
    assert await worker.run_once() == 1
    await asyncio.gather(*worker.tasks.values())


async def test_a_job_may_arm_its_successor_from_inside_itself(redis: ArqRedis, queue: DelayQueue) -> None:
    """The arm number is part of the id, so the end of this run does not take the next one with it."""
    armed: list[int] = []

    async def query_again(_ctx: dict[str, Any], _account: str, _out_trade_no: str, arm_no: int) -> None:
        if arm_no < 4:
            armed.append(await queue.arm([query(1, arm_no=arm_no + 1)]))
        else:
            armed.append(arm_no)

    await queue.arm([query(1)])
    async with running(worker_of(redis, query_again)):
        await eventually(lambda: armed == [1, 1, 1, 4])


async def test_a_job_that_runs_here_is_not_started_again_after_a_flush(redis: ArqRedis, queue: DelayQueue) -> None:
    """Its lease is gone with everything else, and its row is armed again."""
    release, runs = asyncio.Event(), 0

    async def slow(*_: Any) -> None:
        nonlocal runs
        runs += 1
        await release.wait()

    worker = worker_of(redis, slow)
    await queue.arm([query(1)])
    assert await worker.run_once() == 1
    (task,) = worker.tasks.values()
    await eventually(lambda: runs == 1)
    await redis.flushall()
    await queue.arm([query(1)])
    assert await worker.run_once() == 0
    assert list(worker.tasks.values()) == [task]
    release.set()
    await task
    assert (runs, await remaining_keys(redis)) == (1, 0)


async def test_no_more_jobs_run_at_once_than_allowed(redis: ArqRedis, queue: DelayQueue) -> None:
    release = asyncio.Event()
    worker = worker_of(redis, lambda *_: release.wait(), max_jobs=3)  # type: ignore[arg-type]
    await queue.arm([query(number) for number in range(10)])
    assert [await worker.run_once(), await worker.run_once()] == [3, 0]
    release.set()
    await asyncio.gather(*worker.tasks.values())
    assert await worker.run_once() == 3
    await worker.drain(1)


async def test_running_jobs_at_the_head_of_the_queue_do_not_hide_the_others(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(number) for number in range(120)])
    await queue.claim(LANE, 120, owner="elsewhere", lease_ms=60_000, look_max=1000)
    await queue.arm([query(number) for number in range(120, 130)])
    ran = Ran()
    worker = worker_of(redis, ran, max_jobs=5)
    assert await worker.run_once() == 5
    await worker.drain(1)
    assert len(ran.jobs) == 5


@pytest.mark.filterwarnings("ignore:Call to deprecated close")  # by arq itself
async def test_the_process_and_its_lane_show_that_they_are_alive(real_redis: ArqRedis, redis_url: str) -> None:
    settings = redis_settings(read_redis_address(redis_url))
    worker = worker_of(real_redis, Ran())
    assert await async_check_health(settings, health_key(LANE), queue_name(LANE)) == 1
    await worker.run_once()
    assert await async_check_health(settings, health_key(LANE), queue_name(LANE)) == 0
    assert await real_redis.exists(health_key(LANE, "here"))
    await worker.drain(1)
    assert not await real_redis.exists(health_key(LANE, "here"))


# -- what cannot be run ------------------------------------------------------------------------------------------------


class CodeWhenUnpickled:
    """Runs code wherever it is unpickled."""

    has_run = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (CodeWhenUnpickled, "has_run", True)


UNRUNNABLE = {
    "pickled": pickle.dumps({"t": None, "f": "query_payment", "a": (CodeWhenUnpickled(),), "k": {}, "et": 1}),
    "cut off": b'{"t":null,"f":"query_pay',
    "deep": b"[" * 10_000,
    "five thousand digits": b'{"t":null,"f":"query_payment","a":[' + b"9" * 5000 + b'],"k":{},"et":1e5}',
    "year 60000": b'{"t":null,"f":"query_payment","a":[],"k":{},"et":1800000000000000}',
    "function of another kind": b'{"t":null,"f":["query_payment"],"a":[],"k":{},"et":1}',
    "unknown function": encode_job({"t": None, "f": "launch", "a": [], "k": {}, "et": 1}),
}


@pytest.mark.parametrize("payload", UNRUNNABLE.values(), ids=UNRUNNABLE)
async def test_a_job_that_cannot_run_is_parked_with_its_payload_and_delays_no_other(
    redis: ArqRedis, queue: DelayQueue, payload: bytes
) -> None:
    ran = Ran()
    await queue.arm([query(1), query(2)])
    await redis.set("arq:job:" + job_id(query(1)), payload)
    with capture_logs() as lines:
        async with running(worker_of(redis, ran)):
            await eventually(lambda: redis.hlen(PARKED))
            await eventually(lambda: ran.jobs == [("trade-2", 1)])
    assert await redis.hgetall(PARKED) == {job_id(query(1)).encode(): payload}  # type: ignore[misc]
    assert await is_empty(redis)
    assert not CodeWhenUnpickled.has_run
    (line,) = [line for line in lines if line["event"] == "job_parked"]
    assert line["job_id"] == job_id(query(1))


async def test_a_job_whose_payload_expired_is_dropped_and_logged(redis: ArqRedis, queue: DelayQueue) -> None:
    ran = Ran()
    await queue.arm([query(1), query(2)])
    await redis.delete("arq:job:" + job_id(query(1)))
    with capture_logs() as lines:
        async with running(worker_of(redis, ran)):
            await eventually(lambda: is_empty(redis))
    assert ran.jobs == [("trade-2", 1)]
    assert [line["event"] for line in lines if "job_id" in line] == ["job_expired"]


async def test_a_payload_key_of_another_type_is_parked(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(1), query(2)])
    await redis.delete("arq:job:" + job_id(query(1)))
    await redis.rpush("arq:job:" + job_id(query(1)), "x")  # type: ignore[misc]
    ran = Ran()
    async with running(worker_of(redis, ran)):
        await eventually(lambda: redis.hexists(PARKED, job_id(query(1))))
        await eventually(lambda: ran.jobs == [("trade-2", 1)])
        assert await redis.zcard(QUEUE) == 0


@pytest.mark.parametrize(
    "refusal",
    [
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "NOREPLICAS Not enough good replicas to write.",
        "OOM command not allowed when used memory > 'maxmemory'.",
    ],
)
async def test_a_server_that_refuses_to_write_parks_no_sound_job(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    async def refuse(*_: Any) -> None:
        message = f"Command # 2 (INCR arq:retry:…) of pipeline caused error: {(refusal,)}"
        raise ResponseError(message)

    await queue.arm([query(1)])
    worker = worker_of(redis, Ran())
    with monkeypatch.context() as patched:
        patched.setattr(Worker, "run_job", refuse)
        assert await worker.run_once() == 1
        await asyncio.gather(*worker.tasks.values())
    assert await redis.zrange(QUEUE, 0, -1) == [job_id(query(1)).encode()]
    assert await redis.exists(PARKED) == 0


async def test_an_exception_does_not_end_a_lane(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.lane.BROKEN_GAP_S", 0.0)
    claim, ran, is_broken = DelayQueue.claim, Ran(), True

    async def claim_once_broken(self: DelayQueue, *args: Any, **options: Any) -> list[Claimed]:
        nonlocal is_broken
        if is_broken:
            is_broken = False
            raise KeyError("a secret")
        return await claim(self, *args, **options)

    monkeypatch.setattr(DelayQueue, "claim", claim_once_broken)
    await queue.arm([query(1)])
    with capture_logs() as lines:
        async with running(worker_of(redis, ran)):
            await eventually(lambda: ran.jobs == [("trade-1", 1)])
    (line,) = [line for line in lines if line["event"] == "lane_broke"]
    assert (line["lane"], line["error"]) == (LANE, "KeyError")
    assert "secret" not in str(lines)


async def test_a_job_that_raises_is_logged_without_its_message(redis: ArqRedis, queue: DelayQueue) -> None:
    async def raising(_ctx: dict[str, Any], _account: str, out_trade_no: str, _arm_no: int) -> None:
        if out_trade_no == "trade-1":
            raise ValueError("sk_live_secret")

    await queue.arm([query(1), query(2)])
    with capture_logs() as lines:
        async with running(worker_of(redis, raising)):
            await eventually(lambda: is_empty(redis))
    (line,) = [line for line in lines if line["event"] == "job_failed"]
    assert (line["job"], line["job_id"], line["error"]) == ("query_payment", job_id(query(1)), "ValueError")
    assert line["where"].startswith("tests.worker.test_lane_worker:")
    assert "secret" not in str(lines)


async def test_a_job_that_hangs_is_ended_after_its_time_out(redis: ArqRedis, queue: DelayQueue) -> None:
    async def hanging(*_: Any) -> None:
        await asyncio.Event().wait()

    await queue.arm([query(1)])
    with capture_logs() as lines:
        async with running(worker_of(redis, hanging, job_timeout_s=0.05)):
            await eventually(lambda: is_empty(redis))
    assert [line["error"] for line in lines if line["event"] == "job_failed"] == ["TimeoutError"]


# -- Redis goes away ---------------------------------------------------------------------------------------------------


async def test_a_worker_runs_jobs_again_after_its_link_was_lost() -> None:
    server = FakeServer(version=(7,))
    ran = Ran()
    async with fake_client_of(server) as redis:
        worker = worker_of(redis, ran)
        await DelayQueue(redis).arm([query(1)])
        server.connected = False
        with pytest.raises(RedisUnavailable):
            await worker.run_once()
        server.connected = True
        assert await worker.run_once() == 1
        await worker.drain(1)
    assert ran.jobs == [("trade-1", 1)]


async def test_a_worker_outlives_the_death_of_redis(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory, appendonly=True) as server, capture_logs() as lines:
        async with job_client_of(server.url) as redis:
            ran = Ran()
            async with running(worker_of(redis, ran)):
                await DelayQueue(redis).arm([query(1)])
                await eventually(lambda: len(ran.jobs) == 1)
                server.kill()
                await eventually(lambda: [line for line in lines if line["event"] == "redis_link_lost"])
                server.start()
                await arm_when_back(redis, query(2))
                await eventually(lambda: len(ran.jobs) == 2)
    events = [line["event"] for line in lines if line["event"].startswith("redis_link") and line["of"] == "lane"]
    assert events == ["redis_link_lost", "redis_link_restored"]  # one line for each change, none for each try


async def arm_when_back(redis: ArqRedis, job: Job) -> None:
    async def armed() -> bool:
        try:
            return await DelayQueue(redis).arm([job]) >= 0
        except RedisUnavailable:
            return False

    await eventually(armed)


async def test_a_job_whose_end_did_not_reach_redis_runs_again(server_directory: Path) -> None:
    """It finds another arm number in Postgres then, and does nothing."""
    with EmbeddedRedis(server_directory, appendonly=True) as server, capture_logs() as lines:
        async with job_client_of(server.url) as redis:
            runs = 0

            async def killing(*_: Any) -> None:
                nonlocal runs
                runs += 1
                if runs == 1:
                    server.kill()

            await DelayQueue(redis).arm([query(1)])
            async with running(worker_of(redis, killing)):
                await eventually(lambda: [line for line in lines if line["event"] == "job_left"])
                server.start()
                await arm_when_back(redis, query(2))
                await redis.delete("arq:in-progress:" + job_id(query(1)))  # its lease has ended
                await eventually(lambda: runs >= 3)


# -- stopping ----------------------------------------------------------------------------------------------------------


async def test_running_jobs_may_end_and_nothing_new_begins(redis: ArqRedis, queue: DelayQueue) -> None:
    release, ran = asyncio.Event(), Ran()

    async def slow(ctx: dict[str, Any], *args: Any) -> None:
        await release.wait()
        await ran(ctx, *args)

    worker = worker_of(redis, slow)
    await queue.arm([query(1)])
    async with running(worker):
        await eventually(lambda: len(worker.job_tasks) == 1)
        worker.stop_claiming()
        await queue.arm([query(2)])
        draining = asyncio.create_task(worker.drain(10))
        assert await worker.run_once() == 0
        release.set()
        assert await draining == 0
    assert ran.jobs == [("trade-1", 1)]
    assert await redis.zrange(QUEUE, 0, -1) == [job_id(query(2)).encode()]


async def test_a_job_cancelled_at_the_end_is_given_back_at_once(redis: ArqRedis, queue: DelayQueue) -> None:
    worker = worker_of(redis, lambda *_: asyncio.Event().wait())  # type: ignore[arg-type]
    await queue.arm([query(number) for number in range(5)])
    async with running(worker):
        await eventually(lambda: len(worker.job_tasks) == 5)
        assert await worker.drain(0.01) == 5
        assert len(await queue.claim(LANE, 10, owner="next", lease_ms=1000, look_max=10)) == 5


async def test_a_job_claimed_and_not_started_is_given_back(redis: ArqRedis, queue: DelayQueue) -> None:
    """Also what Redis claimed for us in an answer that never came."""
    ran = Ran()
    worker = worker_of(redis, ran)
    await queue.arm([query(number) for number in range(5)])
    await queue.claim(LANE, 2, owner="here", lease_ms=60_000, look_max=10)
    assert await worker._claim(10) == 3
    assert await worker.drain(0) == 3
    assert ran.jobs == []
    assert len(await queue.claim(LANE, 10, owner="next", lease_ms=1000, look_max=10)) == 5


async def test_a_job_that_has_just_ended_is_removed_before_the_worker_is_drained(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, ended, may_finish = Worker.finish_job, asyncio.Event(), asyncio.Event()

    async def finish_late(worker: Worker, *args: Any) -> None:
        ended.set()
        await may_finish.wait()
        await finish(worker, *args)

    monkeypatch.setattr(Worker, "finish_job", finish_late)
    worker = worker_of(redis, Ran())
    await queue.arm([query(1)])
    await worker._claim(1)
    await ended.wait()
    asyncio.get_running_loop().call_later(0.05, may_finish.set)
    assert await worker.drain(0) == 1
    assert await is_empty(redis)


# -- beside stock arq --------------------------------------------------------------------------------------------------


async def test_a_stock_worker_and_ours_share_a_queue_without_running_a_job_twice(
    redis: ArqRedis, queue: DelayQueue, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arq.worker.log_redis_info", no_info)  # fakeredis knows no INFO
    ran = Ran()
    await queue.arm([query(number) for number in range(40)])
    async with connect() as stock_redis, running(worker_of(redis, ran, max_jobs=4)):
        stock = Worker(
            [func(cast("Any", ran.__call__), name="query_payment")],
            queue_name=QUEUE,
            redis_pool=stock_redis,
            burst=True,
            keep_result=0,
            handle_signals=False,
            poll_delay=0.01,
            job_serializer=encode_job,
            job_deserializer=decode_job,
        )
        await stock.async_run()
        await eventually(lambda: is_empty(redis))
    assert sorted(ran.jobs) == sorted((f"trade-{number}", 1) for number in range(40))


async def no_info(*_: Any) -> None:
    """Replace the line that arq logs about the server."""


async def test_the_worker_waits_for_a_redis_that_is_not_there_at_start() -> None:
    async with job_client_of("redis://127.0.0.1:1") as unreachable:
        with capture_logs() as lines:
            async with running(worker_of(unreachable, Ran())):
                await eventually(lambda: [line for line in lines if line["event"] == "redis_link_lost"])
