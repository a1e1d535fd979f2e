"""Claims and ends of jobs in Redis: who may end a job, and what a lost answer leaves."""

from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job as ArqJob
from arq.jobs import JobStatus

from core.errors import RedisUnavailable
from core.jobs import Job, Lane, query_payment
from core.order import PaymentKey
from storage.redis import job_claims
from storage.redis.client import run_together
from storage.redis.delay_queue import BATCH_MAX, DelayQueue, job_id, queue_name
from storage.redis.job_claims import ABORTS_GAP_S, Claimed, Ending, JobClaims, Way, is_text
from storage.redis.job_payload import read_payload
from tests.storage.redis.tools import calls_of, server_ms

QUEUE = "arq:queue:{queries-0}"
PARKED = QUEUE + ":parked-jobs"


@pytest.fixture
def queue(redis: ArqRedis) -> DelayQueue:
    return DelayQueue(redis)


def query(number: int, *, delay_s: float = 0.0) -> Job:
    return query_payment(PaymentKey("shop", f"trade-{number}"), 1, delay_s)


def claims_of(redis: ArqRedis, process: str = "one", *, lease_ms: int = 30_000, **options: Any) -> JobClaims:
    return JobClaims(redis, queue_name(Lane.QUERIES), process=process, lease_ms=lease_ms, **options)


async def claim(claims: JobClaims, count: int = 10) -> list[Claimed]:
    return (await claims.claim(count)).jobs


def ids(*numbers: int) -> list[str]:
    return [job_id(query(number)) for number in numbers]


def lease_of(job: Claimed) -> str:
    return "arq:in-progress:" + job.id


# -- claiming ----------------------------------------------------------------------------------------------------------


async def test_a_job_is_claimed_once_oldest_first_and_only_when_due(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(1), query(2), query(3), query(4, delay_s=60)])
    now = await server_ms(redis)
    await redis.zadd(QUEUE, {job_id(query(number)): now - 100 + number for number in (3, 2, 1)})
    claimed = await claim(claims_of(redis), 2)
    assert [job.id for job in claimed] == ids(1, 2)
    assert [job.due_ms for job in claimed] == [now - 99, now - 98]
    assert [job.id for job in await claim(claims_of(redis, "other"), 5)] == ids(3)
    assert 29_000 < await redis.pttl(lease_of(claimed[0])) <= 30_000


async def test_a_claim_has_the_payloads_and_a_token_of_its_own(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(1), query(2)])
    claims = claims_of(redis)
    (first,), (second,) = await claim(claims, 1), await claim(claims, 1)
    assert read_payload(first.payload or b"").a == ["shop", "trade-1", 1]
    assert (first.tries, second.tries) == (0, 0)
    assert await redis.get(lease_of(first)) == first.token.encode()
    assert first.token != second.token


async def test_a_claim_says_when_the_next_job_is_due(redis: ArqRedis, queue: DelayQueue) -> None:
    assert (await claims_of(redis).claim(5)).next_due_s == 86_400.0, "none is known"
    await queue.arm([query(1), query(2, delay_s=20)])
    assert 19.0 < (await claims_of(redis).claim(5)).next_due_s <= 20.0
    await redis.zrem(QUEUE, *ids(2))
    assert 29.0 < (await claims_of(redis).claim(5)).next_due_s <= 30.0, "a running job, when its lease ends"


@pytest.mark.parametrize("count", [19, 20, 21, 119, 120, 121])
async def test_the_next_job_is_seen_behind_any_number_of_due_ones(
    redis: ArqRedis, queue: DelayQueue, count: int
) -> None:
    """Wherever the pages end on which a claim reads the head of the queue."""
    await queue.arm([query(number) for number in range(count)])
    turn = await claims_of(redis, lease_ms=600_000).claim(BATCH_MAX)
    assert (len(turn.jobs), turn.next_due_s) == (count, 600.0)
    await queue.arm([query(number) for number in range(count, 2 * count)])
    await queue.arm([query(1000, delay_s=20)])
    turn = await claims_of(redis).claim(BATCH_MAX)
    assert len(turn.jobs) == count
    assert 19.0 < turn.next_due_s <= 20.0


async def test_a_lease_that_ended_leaves_the_job_to_the_next(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(1)])
    (job,) = await claim(claims_of(redis))
    assert await claim(claims_of(redis, "other")) == []
    await lapse(redis, job)
    (again,) = await claim(claims_of(redis, "other"))
    assert (again.id, again.token == job.token) == (job.id, False)


async def lapse(redis: ArqRedis, job: Claimed) -> None:
    """Let the time of the lease pass."""
    await redis.delete(lease_of(job))
    await redis.zadd(QUEUE, {job.id: 1})


async def test_jobs_of_stock_workers_at_the_head_are_stepped_over(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(number) for number in range(350)])
    held = [name.decode() for name in await redis.zrange(QUEUE, 0, 299)]
    await redis.mset({"arq:in-progress:" + name: b"1" for name in held})
    assert await claim(claims_of(redis, look_max=100)) == []
    claimed = await claim(claims_of(redis), 60)
    assert len(claimed) == 50
    assert not {job.id for job in claimed} & set(held)


async def test_five_hundred_jobs_are_claimed_and_ended_in_two_round_trips(real_redis: ArqRedis) -> None:
    await DelayQueue(real_redis).arm([query(number) for number in range(BATCH_MAX)])
    claims = claims_of(real_redis)
    await claims.end([Ending(job, Way.FINISH) for job in await claim(claims, 1)])  # the server knows the scripts now
    sent = await calls_of(real_redis, "evalsha", "eval")
    jobs = await claim(claims, BATCH_MAX)
    unended = await claims.end([Ending(job, Way.FINISH) for job in jobs])
    assert (len(jobs), len(unended.lost)) == (BATCH_MAX - 1, 0)
    assert await calls_of(real_redis, "evalsha", "eval") - sent == 2
    left = {key async for key in real_redis.scan_iter("arq:*")}
    assert left == {b"arq:queue:{queries-0}:claim:one"}


async def test_what_a_lost_answer_claimed_is_given_back_by_the_same_token(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.arm([query(1), query(2)])
    claims = claims_of(redis)
    (held,) = await claim(claims, 1)
    with monkeypatch.context() as patched:
        patched.setattr(job_claims, "run_together", lose_answer)
        with pytest.raises(RedisUnavailable):
            await claims.claim(5)
    assert await claim(claims_of(redis, "other")) == []
    assert [job.id for job in await claim(claims)] == ids(2)
    assert await redis.get(lease_of(held)) == held.token.encode(), "of an earlier claim"


async def test_what_another_process_has_claimed_in_the_same_millisecond_is_not_given_back(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of an unanswered claim are found by the moment at which their leases end."""
    await queue.arm([query(1), query(2)])
    claims = claims_of(redis)
    (theirs,) = await claim(claims_of(redis, "other"), 1)
    with monkeypatch.context() as patched:
        patched.setattr(job_claims, "run_together", lose_answer)
        with pytest.raises(RedisUnavailable):
            await claims.claim(5)
    ends_ms = await redis.zscore(QUEUE, *ids(2))
    await redis.zadd(QUEUE, {theirs.id: ends_ms})
    assert [job.id for job in await claim(claims)] == ids(2)
    assert await redis.get(lease_of(theirs)) == theirs.token.encode()


async def test_an_unanswered_claim_is_given_back_at_the_end(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.arm([query(1), query(2)])
    claims = claims_of(redis)
    with monkeypatch.context() as patched:
        patched.setattr(job_claims, "run_together", lose_answer)
        with pytest.raises(RedisUnavailable):
            await claims.claim(5)
    await claims.give_back_unanswered()
    assert sorted(job.id for job in await claim(claims_of(redis, "other"))) == ids(1, 2)
    await claims.give_back_unanswered()
    assert await claim(claims_of(redis, "third")) == []


async def test_a_claim_that_the_client_sends_twice_leaves_no_job_to_its_lease(
    redis: ArqRedis, queue: DelayQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis-py does so when a connection is lost before the answer."""

    async def send_twice(*args: Any) -> list[Any]:
        await run_together(*args)
        return await run_together(*args)

    await queue.arm([query(1), query(2)])
    monkeypatch.setattr(job_claims, "run_together", send_twice)
    assert sorted(job.id for job in await claim(claims_of(redis))) == ids(1, 2)


async def lose_answer(*args: Any) -> list[Any]:
    """Take the place of `run_together`: the scripts run, and the connection is cut before the answer."""
    await run_together(*args)
    raise ConnectionResetError


# -- ending ------------------------------------------------------------------------------------------------------------


async def test_only_the_holder_of_a_claim_ends_it(redis: ArqRedis, queue: DelayQueue) -> None:
    """Its lease ended while it ran, and another worker has the job."""
    await queue.arm([query(1)])
    slow = claims_of(redis)
    (late,) = await claim(slow)
    await lapse(redis, late)
    (job,) = await claim(claims_of(redis, "other"))
    before = await snapshot(redis)
    for way in Way:
        assert (await slow.end([Ending(late, way)])).lost == {job.id}
        assert await snapshot(redis) == before
    assert (await claims_of(redis, "other").end([Ending(job, Way.FINISH)])).lost == set()
    assert await redis.zcard(QUEUE) == 0


async def snapshot(redis: ArqRedis) -> tuple[object, ...]:
    (name,) = await redis.zrange(QUEUE, 0, -1, withscores=True)
    return (
        name,
        await redis.get("arq:in-progress:" + name[0].decode()),
        await redis.exists("arq:job:" + name[0].decode()),
    )


async def test_an_end_that_is_told_twice_takes_nothing_from_the_next_scheduling(
    redis: ArqRedis, queue: DelayQueue
) -> None:
    await queue.arm([query(1)])
    claims = claims_of(redis)
    (job,) = await claim(claims)
    assert (await claims.end([Ending(job, Way.FINISH)])).lost == set()
    await queue.arm([query(1)])
    assert (await claims.end([Ending(job, Way.FINISH)])).lost == {job.id}
    assert [again.id for again in await claim(claims)] == ids(1)
    assert (await claims.end([Ending(job, Way.FINISH)])).lost == {job.id}, "the next claim has another token"


async def test_each_job_of_a_batch_ends_its_own_way(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(number) for number in range(1, 6)])
    now = await server_ms(redis)
    await redis.zadd(QUEUE, {name: now - 1000 + at for at, name in enumerate(ids(1, 2, 3, 4, 5))})
    claims = claims_of(redis)
    jobs = await claim(claims)
    await redis.delete("arq:job:" + jobs[4].id)
    ways = (Way.FINISH, Way.PARK, Way.GIVE_BACK, Way.DEFER, Way.PARK)
    unended = await claims.end([Ending(job, way, 5000) for job, way in zip(jobs, ways, strict=True)])
    assert not unended.lost
    assert unended.expired == {jobs[4].id}
    assert await redis.hgetall(PARKED) == {jobs[1].id.encode(): jobs[1].payload}  # type: ignore[misc]
    given_back, deferred = await redis.zrange(QUEUE, 0, -1, withscores=True)
    assert given_back == (jobs[2].id.encode(), now - 998)
    assert deferred[0] == jobs[3].id.encode()
    assert 4000 < deferred[1] - await server_ms(redis) <= 5000
    assert not await redis.exists(*map(lease_of, jobs))
    assert await redis.exists(*(f"arq:job:{job.id}" for job in jobs)) == 2
    (again,) = await claim(claims)
    assert (again.id, again.tries) == (jobs[2].id, 1)


async def test_keys_of_other_types_stop_no_other_job(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(1), query(2), query(3)])
    for key in ("arq:retry:" + ids(1)[0], PARKED):
        await redis.delete(key)
        await redis.rpush(key, "x")  # type: ignore[misc]
    await redis.delete("arq:job:" + ids(2)[0])
    await redis.rpush("arq:job:" + ids(2)[0], "x")  # type: ignore[misc]
    claims = claims_of(redis)
    jobs = {job.id: job for job in await claim(claims)}
    assert jobs[ids(2)[0]].payload is None
    ways = dict(zip(ids(1, 2, 3), (Way.GIVE_BACK, Way.PARK, Way.FINISH), strict=True))
    assert (await claims.end([Ending(job, ways[name]) for name, job in jobs.items()])).lost == set()
    assert await redis.zrange(QUEUE, 0, -1) == [ids(1)[0].encode()]


async def test_an_id_that_is_no_text_can_be_parked(redis: ArqRedis) -> None:
    await redis.zadd(QUEUE, {b"\xff": 1})
    await redis.set(b"arq:job:\xff", b"payload")
    claims = claims_of(redis)
    (job,) = await claim(claims)
    assert (is_text(job.id), is_text("shop-é"), job.payload) == (False, True, b"payload")
    await claims.end([Ending(job, Way.PARK)])
    assert await redis.hgetall(PARKED) == {b"\xff": b"payload"}  # type: ignore[misc]
    assert await redis.zcard(QUEUE) == 0


# -- stock arq's view --------------------------------------------------------------------------------------------------


async def test_stock_arq_sees_a_claimed_job_as_in_progress(redis: ArqRedis, queue: DelayQueue) -> None:
    await queue.arm([query(1), query(2, delay_s=60)])
    jobs = [ArqJob(name, redis, QUEUE, redis.job_deserializer) for name in ids(1, 2, 3)]
    claims = claims_of(redis)
    (claimed,) = await claim(claims)
    states = [await job.status() for job in jobs]
    assert states == [JobStatus.in_progress, JobStatus.deferred, JobStatus.not_found]
    info = await jobs[0].info()
    assert info is not None
    assert list(info.args) == ["shop", "trade-1", 1]
    assert {job.job_id for job in await redis.queued_jobs(queue_name=QUEUE)} == set(ids(1, 2))
    await claims.end([Ending(claimed, Way.FINISH)])
    assert await jobs[0].status() is JobStatus.not_found


async def test_a_request_to_abort_comes_with_a_claim(redis: ArqRedis) -> None:
    await redis.zadd("arq:abort", {"a": 1, "b": 2})
    now = 100.0
    claims = claims_of(redis, clock=lambda: now)
    assert (await claims.claim(1)).aborted == {"a", "b"}
    await claims.forget_aborts(["a"])
    assert (await claims.claim(1)).aborted == set(), "read once a second"
    now += ABORTS_GAP_S
    assert (await claims.claim(1)).aborted == {"b"}
