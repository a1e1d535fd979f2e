import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job as ArqJob
from arq.jobs import JobStatus
from arq.worker import Retry, Worker, async_check_health, func
from fakeredis import FakeServer
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from core.errors import RedisUnavailable
from core.jobs import Job, Lane, query_payment
from core.order import PaymentKey
from demo.embedded import EmbeddedRedis
from storage.redis import job_claims
from storage.redis.address import read_redis_address
from storage.redis.client import redis_errors, redis_settings
from storage.redis.delay_queue import DelayQueue, health_key, job_id, queue_name
from storage.redis.job_claims import Claimed, Ending, JobClaims, Turn, Unended, Way
from storage.redis.job_payload import decode_job, encode_job
from tests.servers import eventually
from tests.storage.redis.test_job_claims import lose_answer
from tests.storage.redis.tools import Connect, fake_client_of, job_client_of
from worker.lane import LaneWorker
from worker.running import JobFunction

LANE = Lane.QUERIES
QUEUE = "arq:queue:{queries-0}"
PARKED = QUEUE + ":parked-jobs"
EVER_S = 3600.0
TURNS = 10
"""Turns of the event loop: more than the end of a job takes."""

T = TypeVar("T")


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
    keys = [key async for key in redis.scan_iter() if b"health" not in key and b":claim:" not in key]
    return len([key for key in keys if key != PARKED.encode()])


async def ended(worker: LaneWorker) -> None:
    """Wait until all jobs have ended, and Redis knows."""
    await asyncio.gather(*(running.task for running in worker.running.values()))
    await eventually(lambda: not worker._ended)


async def claimed(redis: ArqRedis, count: int = 10, *, process: str = "elsewhere") -> list[Claimed]:
    """Claim as another process does."""
    return (await JobClaims(redis, QUEUE, process=process, lease_ms=60_000).claim(count)).jobs


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
    monkeypatch.setattr("time.time", lambda: real() + skew_s)
    ran = Ran()
    worker = worker_of(redis, ran)
    await queue.arm([query(1, delay_s=60), query(2)])
    assert await worker.run_once() == 1
    await ended(worker)
    assert ran.jobs == [("trade-2", 1)]


async def test_a_worker_that_may_not_claim_leaves_jobs_to_others(redis: ArqRedis, queue: DelayQueue) -> None:
    """As one whose clock is far off."""
    ran, may_claim = Ran(), False
    worker = worker_of(redis, ran, may_claim=lambda: may_claim)
    await queue.arm([query(1)])
    assert await worker.run_once() == 0
    may_claim = True
    assert await worker.run_once() == 1
    await ended(worker)


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
    (task,) = [running.task for running in worker.running.values()]
    await eventually(lambda: runs == 1)
    await redis.flushall()
    await queue.arm([query(1)])
    assert await worker.run_once() == 0
    assert [running.task for running in worker.running.values()] == [task]
    release.set()
    await ended(worker)
    assert (runs, await remaining_keys(redis)) == (1, 0), "its end is that of the second claim"


async def test_no_more_jobs_run_at_once_than_allowed(redis: ArqRedis, queue: DelayQueue) -> None:
    release = asyncio.Event()
    worker = worker_of(redis, lambda *_: release.wait(), max_jobs=3)  # type: ignore[arg-type]
    await queue.arm([query(number) for number in range(10)])
    assert [await worker.run_once(), await worker.run_once()] == [3, 0]
    release.set()
    await ended(worker)
    assert await worker.run_once() == 3
    await worker.drain(1)


async def test_running_jobs_at_the_head_of_the_queue_do_not_hide_the_others(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(number) for number in range(120)])
    await redis.mset({"arq:in-progress:" + job_id(query(number)): b"1" for number in range(120)})  # as stock workers
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
    """Its end is told when the server takes it."""
    end, tries, ran = JobClaims.end, 0, Ran()

    async def refuse_once(self: JobClaims, endings: Sequence[Ending]) -> Unended:
        nonlocal tries
        tries += 1
        if tries == 1:
            with redis_errors():
                raise ResponseError(refusal)
        return await end(self, endings)

    monkeypatch.setattr(JobClaims, "end", refuse_once)
    await queue.arm([query(1)])
    worker = worker_of(redis, ran)
    assert await worker.run_once() == 1
    await ended(worker)
    assert (ran.jobs, tries, await is_empty(redis)) == ([("trade-1", 1)], 2, True)
    assert await redis.exists(PARKED) == 0


async def test_an_exception_does_not_end_a_lane(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.lane.BROKEN_GAP_S", 0.0)
    claim, end, ran, broken = JobClaims.claim, JobClaims.end, Ran(), {"claim", "end"}

    async def claim_once_broken(self: JobClaims, count: int) -> Turn:
        if "claim" in broken:
            broken.remove("claim")
            raise KeyError("a secret")
        return await claim(self, count)

    async def end_once_broken(self: JobClaims, endings: Sequence[Ending]) -> Unended:
        if "end" in broken:
            broken.remove("end")
            raise IndexError("a secret")
        return await end(self, endings)

    monkeypatch.setattr(JobClaims, "claim", claim_once_broken)
    monkeypatch.setattr(JobClaims, "end", end_once_broken)
    await queue.arm([query(1)])
    with capture_logs() as lines:
        async with running(worker_of(redis, ran)):
            await eventually(lambda: is_empty(redis))
    assert ran.jobs == [("trade-1", 1)]
    broke = [line for line in lines if line["event"] == "lane_broke"]
    assert [(line["lane"], line["error"]) for line in broke] == [(LANE, "KeyError"), (LANE, "IndexError")]
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
    (line,) = [line for line in lines if line["event"] == "job_failed"]
    assert (line["job"], line["error"]) == ("query_payment", "TimeoutError")
    assert line["where"].startswith("asyncio.locks:"), "where it hung"


async def test_each_job_has_its_own_time_out(redis: ArqRedis, queue: DelayQueue) -> None:
    async def hanging(*_: Any) -> None:
        await asyncio.Event().wait()

    worker = worker_of(redis, hanging, job_timeout_s=0.05)
    await queue.arm([query(1), query(2)])
    assert await worker.run_once() == 2
    first, second = worker.running.values()
    second.late_at += 3600  # as of a job that begins an hour later
    await eventually(lambda: list(worker.running.values()) == [second])
    second.late_at -= 3600
    worker._jobs._cancel_late()
    await eventually(lambda: is_empty(redis))
    assert first.is_late
    assert second.is_late


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


async def test_a_worker_outlives_the_death_of_redis(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That alone ends a round trip here: a process that stood still for seconds takes its Redis for lost, too."""
    for limit in ("ACQUIRE_TIMEOUT_S", "CONNECT_TIMEOUT_S", "SOCKET_TIMEOUT_S"):
        monkeypatch.setattr(f"storage.redis.connection.{limit}", EVER_S)
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


async def test_an_end_that_did_not_reach_redis_is_told_when_it_is_back(server_directory: Path) -> None:
    """And one whose lease is gone meanwhile is left to whoever claims it next."""
    with EmbeddedRedis(server_directory, appendonly=True) as server, capture_logs() as lines:
        async with job_client_of(server.url) as redis:
            runs, killed = Ran(), asyncio.Event()

            async def killing(ctx: dict[str, Any], account: str, out_trade_no: str, arm_no: int) -> None:
                await runs(ctx, account, out_trade_no, arm_no)
                if out_trade_no == "trade-2":
                    await redis.set("arq:in-progress:" + job_id(query(2)), "of another claim")
                    server.kill()
                    killed.set()
                await killed.wait()

            await DelayQueue(redis).arm([query(1), query(2)])
            worker = worker_of(redis, killing)
            await worker.run_once()
            await eventually(lambda: [line for line in lines if line["event"] == "redis_link_lost"])
            server.start()
            await eventually(lambda: not worker._ended)
            assert await redis.zrange(QUEUE, 0, -1) == [job_id(query(2)).encode()]
    assert sorted(runs.jobs) == [("trade-1", 1), ("trade-2", 1)]
    assert [line["job_id"] for line in lines if line["event"] == "job_left"] == [job_id(query(2))]


async def test_slow_round_trips_leave_no_job_to_its_lease(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job makes no round trip of its own: 300 take a few claims and ends, however long each takes."""
    trips, claim, end, ran = 0, JobClaims.claim, JobClaims.end, Ran()

    async def slow_claim(self: JobClaims, count: int) -> Turn:
        return await slow(claim(self, count))

    async def slow_end(self: JobClaims, endings: Sequence[Ending]) -> Unended:
        return await slow(end(self, endings))

    async def slow(call: Awaitable[T]) -> T:
        nonlocal trips
        trips += 1
        await asyncio.sleep(0.01)
        return await call

    monkeypatch.setattr(JobClaims, "claim", slow_claim)
    monkeypatch.setattr(JobClaims, "end", slow_end)
    await queue.arm([query(number) for number in range(300)])
    worker = worker_of(redis, ran, max_jobs=100)
    with capture_logs() as lines:
        for _ in range(3):
            assert await worker.run_once() == 100
            await ended(worker)
    assert (len(ran.jobs), trips, await is_empty(redis)) == (300, 6, True)
    assert not [line for line in lines if line["event"] == "job_left"]


async def test_no_job_is_claimed_while_too_many_ends_wait(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis takes none, a worker would run and keep without end."""
    end, may_end = JobClaims.end, asyncio.Event()

    async def end_late(self: JobClaims, endings: Sequence[Ending]) -> Unended:
        await may_end.wait()
        return await end(self, endings)

    monkeypatch.setattr(JobClaims, "end", end_late)
    await queue.arm([query(number) for number in range(20)])
    worker, claimed_jobs = worker_of(redis, Ran(), max_jobs=3), []
    for _ in range(3):
        claimed_jobs.append(await worker.run_once())
        await asyncio.gather(*(running.task for running in worker.running.values()))
    assert claimed_jobs == [3, 3, 0]
    may_end.set()
    await ended(worker)
    assert await worker.run_once() == 3
    await worker.drain(1)


async def test_an_end_that_comes_as_the_last_ones_have_been_told_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the turn of the loop in which no other end waits: an await there would leave it until the next."""
    ended_ids: list[str] = []

    async def end_soon(_: JobClaims, endings: Sequence[Ending]) -> Unended:
        await asyncio.sleep(0)
        ended_ids.extend(ending.job.id for ending in endings)
        return Unended(frozenset(), frozenset())

    monkeypatch.setattr(JobClaims, "end", end_soon)
    async with fake_client_of(FakeServer(version=(7,))) as redis:
        worker = worker_of(redis, Ran())
        for pause in range(TURNS):
            for name in ("first", "second"):
                job = Claimed(f"{name}-{pause}", due_ms=0, token="token", tries=0, payload=None)
                worker._end(Ending(job, Way.FINISH))
                for _ in range(pause):
                    await asyncio.sleep(0)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert ended_ids[-2:] == [f"first-{pause}", f"second-{pause}"]


# -- Retry and abort ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defer_s", [None, 0.001])
async def test_a_job_that_raises_arqs_retry_runs_again(
    redis: ArqRedis, queue: DelayQueue, defer_s: float | None
) -> None:
    tries: list[int] = []

    async def retrying(ctx: dict[str, Any], *_: Any) -> None:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise Retry(defer_s)

    await queue.arm([query(1)])
    async with running(worker_of(redis, retrying)):
        await eventually(lambda: is_empty(redis))
    assert tries == [1, 2, 3]


async def test_a_deferred_retry_waits(redis: ArqRedis, queue: DelayQueue) -> None:
    async def retrying(*_: Any) -> None:
        raise Retry(60)

    await queue.arm([query(1)])
    worker = worker_of(redis, retrying)
    await worker.run_once()
    await ended(worker)
    (name,) = await redis.zrange(QUEUE, 0, -1)
    assert await ArqJob(name.decode(), redis, QUEUE).status() is JobStatus.deferred
    assert await worker.run_once() == 0


async def test_a_running_job_is_aborted_by_stock_arqs_request(redis: ArqRedis, queue: DelayQueue) -> None:
    """Its row in Postgres is still due, and the sweep finds it."""
    began, is_cancelled = asyncio.Event(), False

    async def waiting(*_: Any) -> None:
        nonlocal is_cancelled
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_cancelled = True
            raise

    await queue.arm([query(1)])
    with capture_logs() as lines:
        async with running(worker_of(redis, waiting)):
            await began.wait()
            job = ArqJob(job_id(query(1)), redis, QUEUE, redis.job_deserializer)
            assert await job.abort(timeout=5, poll_delay=0.01) is False, "no result is kept"
    assert (is_cancelled, await is_empty(redis)) == (True, True)
    assert [line["job_id"] for line in lines if line["event"] == "job_aborted"] == [job_id(query(1))]


async def test_a_job_that_was_aborted_before_it_began_is_not_begun(redis: ArqRedis, queue: DelayQueue) -> None:
    ran = Ran()
    await queue.arm([query(1), query(2)])
    await redis.zadd("arq:abort", {job_id(query(1)): 1, "of another lane": 1})
    worker = worker_of(redis, ran)
    assert await worker.run_once() == 1
    await ended(worker)
    assert ran.jobs == [("trade-2", 1)]
    assert await redis.zrange("arq:abort", 0, -1) == [b"of another lane"]


# -- stopping ----------------------------------------------------------------------------------------------------------


async def test_running_jobs_may_end_and_nothing_new_begins(redis: ArqRedis, queue: DelayQueue) -> None:
    release, ran = asyncio.Event(), Ran()

    async def slow(ctx: dict[str, Any], *args: Any) -> None:
        await release.wait()
        await ran(ctx, *args)

    worker = worker_of(redis, slow)
    await queue.arm([query(1)])
    async with running(worker):
        await eventually(lambda: len(worker.running) == 1)
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
        await eventually(lambda: len(worker.running) == 5)
        assert await worker.drain(0.01) == 5
        assert len(await claimed(redis)) == 5


async def test_what_is_given_back_is_due_as_before(redis: ArqRedis, queue: DelayQueue) -> None:
    worker = worker_of(redis, lambda *_: asyncio.Event().wait())  # type: ignore[arg-type]
    await queue.arm([query(1)])
    await redis.zadd(QUEUE, {job_id(query(1)): 1000})
    assert await worker.run_once() == 1
    assert await worker.drain(0) == 1
    assert await redis.zrange(QUEUE, 0, -1, withscores=True) == [(job_id(query(1)).encode(), 1000.0)]


async def test_what_redis_claimed_for_us_in_a_lost_answer_is_given_back(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(redis, Ran())
    await queue.arm([query(number) for number in range(5)])
    with monkeypatch.context() as patched:
        patched.setattr(job_claims, "run_together", lose_answer)
        with pytest.raises(RedisUnavailable):
            await worker.run_once()
    assert await claimed(redis) == []
    assert await worker.drain(0) == 0
    assert len(await claimed(redis)) == 5


async def test_a_job_that_has_just_ended_is_removed_before_the_worker_is_drained(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, began, may_end = JobClaims.end, asyncio.Event(), asyncio.Event()

    async def end_late(self: JobClaims, endings: Sequence[Ending]) -> Unended:
        began.set()
        await may_end.wait()
        return await end(self, endings)

    monkeypatch.setattr(JobClaims, "end", end_late)
    worker = worker_of(redis, Ran())
    await queue.arm([query(1)])
    await worker.run_once()
    await began.wait()
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    assert await worker.drain(0) == 0
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
