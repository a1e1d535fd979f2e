"""This process's own lag is no death of Redis, and callers that wait at the same time share one round trip."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from arq.connections import ArqRedis
from structlog.testing import capture_logs

from core.admission import Admitted, CallKind, Urgency
from core.errors import RedisUnavailable
from core.jobs import Job, Lane, query_payment
from core.order import PaymentKey
from demo.embedded import EmbeddedRedis
from storage.redis.admission.shared import SharedAdmission
from storage.redis.client import Patience, gathering
from storage.redis.delay_queue import DelayQueue, FollowUps
from tests.storage.redis.tools import calls_of, frozen, job_client_of


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    async with job_client_of(redis_url) as client:
        await client.ping()
        yield client


def query(number: int) -> Job:
    return query_payment(PaymentKey("shop", f"trade-{number}"), 1, 60.0)


def block(seconds: float) -> None:
    """Do something else, as a busy process does: no task of this loop runs meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_a_wait_ends_after_its_limit() -> None:
    with pytest.raises(TimeoutError):
        async with Patience(0.05) as patience:
            await asyncio.Event().wait()
    assert 0.05 <= patience.waited_s < 0.061


async def test_the_lag_of_this_process_is_no_part_of_a_wait() -> None:
    answer = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.02, block, 0.3)
    asyncio.get_running_loop().call_later(0.25, answer.set_result, None)  # it comes while the process is busy
    async with Patience(0.2) as patience:
        await answer
        await asyncio.sleep(0)
    assert patience.waited_s < 0.2


async def test_a_loop_that_is_never_idle_lets_no_time_pass() -> None:
    """Each of its turns takes longer than a tick."""
    async with Patience(0.05) as patience:
        for _ in range(20):
            block(0.02)
            await asyncio.sleep(0)
    assert patience.waited_s < 0.05


async def test_a_cancelled_wait_is_cancelled_and_not_late() -> None:
    async def wait() -> None:
        async with Patience(10.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- batches -----------------------------------------------------------------------------------------------------------


async def test_hundreds_of_callers_arm_their_jobs_in_a_few_round_trips(redis: ArqRedis) -> None:
    queue = DelayQueue(redis)
    follow_ups = FollowUps(redis, queue)
    await queue.arm([query(0)])  # the server knows the script now
    before = await calls_of(redis, "evalsha")
    await asyncio.gather(*(follow_ups.add(arm=[query(number)]) for number in range(600)))
    assert await calls_of(redis, "evalsha") - before <= 3
    assert (await queue.depth(Lane.QUERIES)).queued == 600


async def test_what_comes_while_a_batch_is_sent_goes_with_the_next() -> None:
    sent: list[list[int]] = []
    began, may_end = asyncio.Event(), asyncio.Event()

    async def send(items: list[int]) -> list[int]:
        sent.append(items)
        began.set()
        await may_end.wait()
        return items

    numbers = gathering(send, waiting_max=100)
    tasks = [asyncio.create_task(numbers.add(number)) for number in (1, 2)]
    await began.wait()
    tasks += [asyncio.create_task(numbers.add(number)) for number in (3, 4)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert sent == [[1, 2]]
    may_end.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4]
    assert sent == [[1, 2], [3, 4]]


async def test_what_a_cancelled_caller_has_committed_is_armed_all_the_same(redis: ArqRedis) -> None:
    queue = DelayQueue(redis)
    follow_ups = FollowUps(redis, queue)
    cancelled, other = (asyncio.create_task(follow_ups.add(arm=[query(number)])) for number in (1, 2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    assert (await queue.depth(Lane.QUERIES)).queued == 2


async def test_every_caller_of_a_batch_learns_that_it_failed_and_the_next_is_sent() -> None:
    sent: list[list[int]] = []

    async def send(items: list[int]) -> list[int]:
        sent.append(items)
        if len(sent) == 1:
            raise RedisUnavailable("down")
        return items

    numbers = gathering(send, waiting_max=100)
    results = await asyncio.gather(*(numbers.add(number) for number in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [RedisUnavailable] * 3
    await numbers.add(4)
    assert sent == [[0, 1, 2], [4]], "nothing is sent again to a Redis that is down"


async def test_what_waits_is_bounded() -> None:
    never = asyncio.Event()

    async def send(items: list[int]) -> list[int]:
        await never.wait()
        return items

    numbers = gathering(send, waiting_max=2)
    waiting = [asyncio.create_task(numbers.add(number)) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RedisUnavailable, match="too many"):
        await numbers.add(3)
    for task in waiting:
        task.cancel()


# -- a process that is busy --------------------------------------------------------------------------------------------


async def test_a_busy_process_loses_no_reminder_and_no_admission_while_redis_is_up(
    redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is blocked for longer than each time-out while the answers of Redis wait in its sockets."""
    for name in ("delay_queue.SEND_TIMEOUT_S", "admission.shared.REDIS_TIMEOUT_S"):
        monkeypatch.setattr(f"storage.redis.{name}", 0.25)
    queue, admission = DelayQueue(redis), SharedAdmission(redis, processes=4)
    follow_ups = FollowUps(redis, queue)
    with capture_logs() as lines:
        arming = asyncio.create_task(follow_ups.add(arm=[query(1)]))
        admitting = asyncio.create_task(admission.admit("shop", 50, CallKind.QUERY, Urgency.SCHEDULED))
        publishing = asyncio.create_task(follow_ups.add(changes=[("A-1", 1)]))
        for _ in range(6):
            await asyncio.sleep(0)
            block(0.3)
        await asyncio.gather(arming, publishing)
        result = await admitting
    assert lines == []
    assert isinstance(result, Admitted)
    assert (await queue.depth(Lane.QUERIES)).queued == 1


async def test_a_process_that_is_late_for_its_reservation_does_not_call_redis_dead(redis: ArqRedis) -> None:
    """The reservation holds all the same: it counts until a second after the end of its call."""
    times = iter([float(n) for n in range(100)])
    late = SharedAdmission(redis, processes=4, clock=lambda: next(times))
    with capture_logs() as lines:
        results = [await late.admit("shop", 50, CallKind.QUERY, Urgency.SCHEDULED) for _ in range(5)]
    assert all(isinstance(result, Admitted) for result in results)
    assert lines == []


async def test_a_redis_that_is_frozen_is_noticed(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory) as server:
        async with job_client_of(server.url) as client:
            queue = DelayQueue(client)
            await queue.arm([query(1)])
            with frozen(server.pid), pytest.raises(RedisUnavailable):
                await FollowUps(client, queue).add(arm=[query(2)])
