"""Jobs that cannot be run: parked or dropped, never executed as code, and the queue goes on."""

import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from core.jobs import Lane
from storage.redis.delay_queue import queue_name
from tests.scenarios.scenario import Scenario
from tests.servers import eventually
from tests.storage.redis.tools import client_of

QUEUE = queue_name(Lane.QUERIES)


class MakesDirectory:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self._path,)


async def test_a_pickled_job_is_never_executed(scenario: Scenario, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    payload = pickle.dumps({"t": 1, "f": "query_payment", "a": (MakesDirectory(trace),), "k": {}, "et": 1})

    await _enqueue(scenario, "{queries-0}evil", payload)

    assert await _parked_payload(scenario, "{queries-0}evil") == payload
    await _next_order_is_paid(scenario)
    assert not trace.exists()


UNREADABLE = (
    b"",
    b"\xff\xfe not even text",
    b'{"f":"query_payment"',
    b"[" * 10_000,
    b'{"t":null,"f":"query_payment","a":[' + b"9" * 5_000 + b'],"k":{},"et":1}',
)
FORGED: tuple[list[object], ...] = ([], ["sandbox"], ["nobody", "000000", 1], [1, 2, 3], ["sandbox", "x" * 9000, 1])


async def test_jobs_that_cannot_be_read_are_parked_as_they_are(scenario: Scenario) -> None:
    names = [f"{{queries-0}}unreadable:{number}" for number in range(len(UNREADABLE))]
    for name, payload in zip(names, UNREADABLE, strict=True):
        await _enqueue(scenario, name, payload)

    assert [await _parked_payload(scenario, name) for name in names] == list(UNREADABLE)
    await _next_order_is_paid(scenario)


async def test_a_job_of_a_newer_deploy_is_parked_for_a_worker_that_has_it(scenario: Scenario) -> None:
    """A producer that is one deploy ahead enqueues a function that no worker has yet."""
    payload = msgspec.json.encode({"t": None, "f": "query_everything", "a": ["sandbox"], "k": {}, "et": 1})

    await _enqueue(scenario, "{queries-0}newer", payload)

    assert await _parked_payload(scenario, "{queries-0}newer") == payload
    await _next_order_is_paid(scenario)


async def test_forged_jobs_do_nothing(scenario: Scenario) -> None:
    """A writer of Redis can at most cause a query for a payment."""
    names = [f"{{queries-0}}forged:{number}" for number in range(len(FORGED))]
    for name, arguments in zip(names, FORGED, strict=True):
        job: dict[str, object] = {"t": None, "f": "query_payment", "a": arguments, "k": {}, "et": 1}
        await _enqueue(scenario, name, msgspec.json.encode(job))

    for name in names:
        await eventually(partial(_is_gone, scenario, name))
    await _next_order_is_paid(scenario)


async def _enqueue(scenario: Scenario, job_id: str, payload: bytes) -> None:
    async with client_of(scenario.stack.redis.url) as redis:
        await redis.set(f"arq:job:{job_id}", payload)
        await redis.zadd(QUEUE, {job_id: int(time.time() * 1000)})


async def _parked_payload(scenario: Scenario, job_id: str) -> bytes:
    """Remove and return the parked payload, after the job has left the queue."""
    await eventually(lambda: _is_gone(scenario, job_id))
    async with client_of(scenario.stack.redis.url) as redis, redis.pipeline() as pipe:
        pipe.hget(f"{QUEUE}:parked-jobs", job_id)
        pipe.hdel(f"{QUEUE}:parked-jobs", job_id)
        parked, _ = await pipe.execute()
    assert isinstance(parked, bytes)
    return parked


async def _is_gone(scenario: Scenario, job_id: str) -> bool:
    async with client_of(scenario.stack.redis.url) as redis:
        return await redis.zscore(QUEUE, job_id) is None


async def _next_order_is_paid(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.pay(order, "lost")
    await scenario.until("paid", order)
