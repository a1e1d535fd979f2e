import pickle

import msgspec
import pytest
from arq.connections import ArqRedis
from arq.jobs import Job as ArqJob
from redis.asyncio import Redis

from core.errors import RedisUnavailable
from core.jobs import Job, JobName, Lane, push_notification, query_payment
from core.order import PaymentKey
from storage.redis.delay_queue import BATCH_MAX, DelayQueue, job_id, queue_name
from storage.redis.job_claims import JobClaims
from storage.redis.job_payload import decode_job, encode_job
from tests.storage.redis.tools import calls_of, client_of, server_ms

LANE = Lane.QUERIES
QUEUE = "arq:queue:{queries-0}"


@pytest.fixture
def queue(redis: Redis) -> DelayQueue:
    return DelayQueue(redis)


def query(number: int, *, arm_no: int = 1, delay_s: float = 0.0) -> Job:
    return query_payment(PaymentKey("shop", f"trade-{number}"), arm_no, delay_s)


async def claim(redis: Redis, count: int) -> list[str]:
    claims = JobClaims(redis, QUEUE, process="one", lease_ms=30_000)
    return [job.id for job in (await claims.claim(count)).jobs]


# -- arming ------------------------------------------------------------------------------------------------------------


async def test_many_jobs_of_all_lanes_are_armed_in_one_round_trip(real_redis: Redis) -> None:
    queue = DelayQueue(real_redis)
    await queue.arm([query(0)])  # the server knows the script now
    jobs = [query(number) for number in range(1, BATCH_MAX + 2)] + [push_notification("n1", 1)]
    sent = await calls_of(real_redis, "evalsha", "eval")
    reads = await reads_of(real_redis)
    assert await queue.arm(jobs) == len(jobs)
    assert await calls_of(real_redis, "evalsha", "eval") - sent == 3  # two batches of queries, one of notifications
    assert (
        await reads_of(real_redis) - reads <= 10
    )  # what one client sends at once is read in pieces of 16 KiB and more


async def reads_of(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


async def test_a_job_is_scored_by_the_clock_of_redis_and_its_payload_does_not_expire(
    redis: Redis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 0)
    before = await server_ms(redis)
    await queue.arm([query(1, delay_s=60)])
    after = await server_ms(redis)
    score = await redis.zscore(QUEUE, job_id(query(1)))
    assert before + 60_000 <= score <= after + 60_000
    assert await redis.pttl("arq:job:" + job_id(query(1))) == -1


async def test_a_job_that_is_armed_already_is_left_alone(redis: Redis, queue: DelayQueue) -> None:
    assert await queue.arm([query(1, delay_s=60)]) == 1
    score = await redis.zscore(QUEUE, job_id(query(1)))
    assert await queue.arm([query(1), query(2), query(2)]) == 1
    assert await redis.zscore(QUEUE, job_id(query(1))) == score


@pytest.mark.parametrize("others", [[], [2], [1, 2]])
async def test_a_payload_that_is_there_is_left_alone(redis: Redis, queue: DelayQueue, others: list[int]) -> None:
    await queue.arm([query(0)])
    await redis.set("arq:job:" + job_id(query(0)), "of somebody else")
    assert await queue.arm([query(number) for number in (0, *others)]) == len(others)
    assert await redis.get("arq:job:" + job_id(query(0))) == b"of somebody else"
    for number in others:
        assert await redis.exists("arq:job:" + job_id(query(number)))


@pytest.mark.parametrize("lost", ["payload", "entry"])
async def test_the_lost_half_of_a_job_is_put_back(redis: Redis, queue: DelayQueue, lost: str) -> None:
    await queue.arm([query(1)])
    if lost == "payload":
        await redis.delete("arq:job:" + job_id(query(1)))
    else:
        await redis.zrem(QUEUE, job_id(query(1)))
    assert await queue.arm([query(1)]) == 1
    assert await queue.arm([query(1)]) == 0
    assert await claim(redis, 5) == [job_id(query(1))]
    assert await redis.exists("arq:job:" + job_id(query(1)))


async def test_jobs_due_beyond_the_horizon_stay_in_postgres(redis: Redis) -> None:
    queue = DelayQueue(redis, horizon_s=60)
    assert await queue.arm([query(1, delay_s=60), query(2, delay_s=60.5)]) == 1
    assert await queue.arm([query(2, delay_s=60.5)]) == 0
    assert (await queue.depth(LANE)).queued == 1


async def test_stock_arq_reads_what_we_arm(redis: ArqRedis) -> None:
    await DelayQueue(redis).arm([query(7, arm_no=3)])
    (definition,) = await redis.queued_jobs(queue_name=queue_name(LANE))
    status = await ArqJob(job_id(query(7, arm_no=3)), redis, queue_name(LANE)).status()
    assert (definition.function, list(definition.args)) == (JobName.QUERY_PAYMENT, ["shop", "trade-7", 3])
    assert status == "queued"


async def test_stock_arq_arms_what_we_can_read(redis: ArqRedis) -> None:
    await redis.enqueue_job("query_payment", "shop", "trade-1", 1, _job_id="{queries-0}x", _queue_name=QUEUE)
    payload = await redis.get("arq:job:{queries-0}x")
    assert decode_job(payload)["a"] == ["shop", "trade-1", 1]


# -- cancelling, counting ----------------------------------------------------------------------------------------------


async def test_cancelled_jobs_are_gone_with_their_payloads(redis: Redis, queue: DelayQueue) -> None:
    await queue.arm([query(1), query(2, delay_s=60), query(3)])
    assert await queue.cancel([query(1), query(2), query(4)]) == 2
    assert await claim(redis, 5) == [job_id(query(3))]
    assert not await redis.exists("arq:job:" + job_id(query(1)), "arq:job:" + job_id(query(2)))


async def test_a_running_job_is_not_cancelled(redis: Redis, queue: DelayQueue) -> None:
    await queue.arm([query(1)])
    assert await claim(redis, 1) == [job_id(query(1))]
    assert await queue.cancel([query(1)]) == 0
    assert await redis.exists("arq:job:" + job_id(query(1)))


async def test_depth_counts_queued_due_and_overdue_jobs(redis: Redis, queue: DelayQueue) -> None:
    assert msgspec.structs.astuple(await queue.depth(LANE)) == (0, 0, 0)
    await queue.arm([query(1), query(2, delay_s=60)])
    await redis.zincrby(QUEUE, -5000, job_id(query(1)))
    depth = await queue.depth(LANE)
    assert (depth.queued, depth.due) == (2, 1)
    assert 5000 <= depth.oldest_due_ms < 10_000
    assert await queue.due(LANE, 5) == [job_id(query(1)).encode()]
    assert await claim(redis, 5) == [job_id(query(1))]
    assert msgspec.structs.astuple(await queue.depth(LANE)) == (2, 0, 0), "a running job is queued and not due"


# -- payloads ----------------------------------------------------------------------------------------------------------


class CodeWhenUnpickled:
    """Runs code wherever it is unpickled."""

    has_run = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (CodeWhenUnpickled, "has_run", True)


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps({"t": None, "f": "query_payment", "a": (CodeWhenUnpickled(),), "k": {}, "et": 1}),
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"f":"f","a":[],"k":{},"et":1,"t":null,"x":' + b"[" * 10_000,
        b'{"f":"f","a":[' + b"9" * 5000 + b'],"k":{},"et":99999999999999999}',
        b'{"f":["f"],"a":[],"k":{},"et":1}',
        b'{"f":"f","a":[],"k":{},"et":-1}',
        b'{"f":"f","a":[[]],"k":{},"et":1}',
        b'{"f":"f","a":[],"k":{},"et":1,"t":1000000}',
        b'{"f":"f","a":["' + b"x" * 70_000 + b'"],"k":{},"et":1}',
        b"",
    ],
)
def test_a_payload_that_is_not_ours_is_undecodable_and_runs_no_code(payload: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        decode_job(payload)
    assert not CodeWhenUnpickled.has_run


def test_the_payload_of_these_tests_runs_code_when_unpickled() -> None:
    pickle.loads(pickle.dumps(CodeWhenUnpickled()))  # noqa: S301
    assert CodeWhenUnpickled.has_run
    CodeWhenUnpickled.has_run = False


def test_a_payload_survives_the_way_there_and_back() -> None:
    job: dict[str, object] = {"t": None, "f": "close_order", "a": ["A-1", 4], "k": {}, "et": 1_700_000_000_000}
    assert decode_job(encode_job(job)) == job


# -- the epoch ---------------------------------------------------------------------------------------------------------


async def test_a_flush_is_noticed_and_exactly_the_lost_jobs_are_armed_again(redis: Redis, queue: DelayQueue) -> None:
    jobs = [query(number) for number in range(20)]
    first = await queue.epoch()
    assert not first.armed
    assert await queue.arm(jobs) == 20
    await queue.mark_rearmed(first)
    assert (await queue.epoch()).armed

    await redis.flushall()
    second = await queue.epoch()
    assert second.id != first.id
    assert not second.armed
    await queue.arm(jobs[:5])  # new work comes in meanwhile
    assert await queue.arm(jobs) == 15
    await queue.mark_rearmed(second)
    assert (await queue.epoch()).armed
    assert (await queue.depth(LANE)).queued == 20


async def test_a_flush_in_the_middle_of_arming_again_is_not_forgotten(redis: Redis, queue: DelayQueue) -> None:
    walked = await queue.epoch()
    await redis.flushall()
    assert not (await queue.epoch()).armed
    await queue.mark_rearmed(walked)
    assert not (await queue.epoch()).armed


async def test_all_processes_see_the_same_epoch(redis: Redis, queue: DelayQueue) -> None:
    assert await queue.epoch() == await DelayQueue(redis).epoch()


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_errors_of_redis_become_ours(queue: DelayQueue, redis: Redis) -> None:
    await redis.set(QUEUE, "of another kind")
    with pytest.raises(RedisUnavailable, match="ResponseError"):
        await queue.arm([query(1)])
    with pytest.raises(RedisUnavailable):
        await queue.due(LANE, 1)


async def test_arming_nothing_sends_nothing() -> None:
    async with client_of("redis://127.0.0.1:1") as unreachable:
        assert await DelayQueue(unreachable).arm([]) == 0
        assert await DelayQueue(unreachable).cancel([]) == 0
        with pytest.raises(RedisUnavailable, match="ConnectionError"):
            await DelayQueue(unreachable).arm([query(1)])
