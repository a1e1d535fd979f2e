"""A pytest plugin for arq's own tests: arq's `Worker` with its constructor, whose jobs are claimed and ended by
`storage.redis.job_claims`, and a `testcontainers` that leads to the embedded Redis.

Hooks, results, cron jobs, log lines and signals stay arq's: nodrop uses none of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from types import ModuleType
from typing import Any, Self
from uuid import uuid4

import arq
import arq.worker
from arq.constants import abort_jobs_ss, in_progress_key_prefix, result_key_prefix, retry_key_prefix

from storage.redis.job_claims import Claimed, Ending, JobClaims, Way


class LaneBackedWorker(arq.worker.Worker):
    """Claims by one script and ends by another, with a token for each claim."""

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claim up to as many jobs as arq sees due."""
        free = min(len(job_ids), self.max_jobs - self.job_counter)
        if free > 0:
            async with self._claiming():  # the lane has one claim at a time
                turn = await self._claims().claim(free)
            for job in turn.jobs:
                await self.sem.acquire()
                self.job_counter += 1
                self._claimed()[job.id] = job
                task = self.loop.create_task(self.run_job(job.id, job.due_ms))
                task.add_done_callback(lambda _: self._release_sem_dec_counter_on_complete())
                self.tasks[job.id] = task

    async def finish_job(
        self,
        job_id: str,
        finish: bool,
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        job = self._claimed().get(job_id)
        if job is None:  # a test called `run_job` itself
            arguments = (result_data, result_timeout_s, keep_result_forever, incr_score, keep_in_progress)
            await super().finish_job(job_id, finish, *arguments)
        elif finish:
            keep_ms = None if keep_result_forever else round((result_timeout_s or 0) * 1000)
            await self._keep(job_id, result_data, keep_ms)
            await self._end(Ending(job, Way.FINISH))
        else:
            await self.pool.decr(retry_key_prefix + job_id)  # arq counts a try at its start, the lane at its end
            delay_ms = job.due_ms + incr_score - time.time_ns() // 1_000_000 if incr_score else 0
            await self._end(Ending(job, Way.DEFER if incr_score else Way.GIVE_BACK, max(0, delay_ms)))
        if keep_in_progress is not None and job is not None:
            await self.pool.psetex(in_progress_key_prefix + job_id, round(keep_in_progress * 1000), b"1")

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        job = self._claimed().get(job_id)
        if job is None:
            await super().finish_failed_job(job_id, result_data)
            return
        keep_s = self.keep_result_s or 0
        if self.keep_result_forever or keep_s > 0:
            await self._keep(job_id, result_data, None if self.keep_result_forever else round(keep_s * 1000))
        await self._end(Ending(job, Way.FINISH))

    async def _keep(self, job_id: str, result_data: bytes | None, keep_ms: int | None) -> None:
        await self.pool.zrem(abort_jobs_ss, job_id)
        if result_data:
            await self.pool.set(result_key_prefix + job_id, result_data, px=keep_ms or None)

    async def _end(self, ending: Ending) -> None:
        unended = await self._claims().end([ending])
        assert not unended.lost, "a claim of this worker was taken by another"
        del self._claimed()[ending.job.id]
        await self.pool.delete(f"{self.queue_name}:claim:{self._process()}")  # some tests count all keys

    def _claims(self) -> JobClaims:
        lease_ms = round(self.in_progress_timeout_s * 1000)
        made = JobClaims(self.pool, self.queue_name, process=self._process(), lease_ms=lease_ms)
        claims: JobClaims = self.__dict__.setdefault("lane_claims", made)
        return claims

    def _claiming(self) -> asyncio.Lock:
        lock: asyncio.Lock = self.__dict__.setdefault("lane_claiming", asyncio.Lock())
        return lock

    def _claimed(self) -> dict[str, Claimed]:
        claimed: dict[str, Claimed] = self.__dict__.setdefault("lane_claimed", {})
        return claimed

    def _process(self) -> str:
        return str(self.__dict__.setdefault("lane_process", uuid4().hex))


class RedisContainer:
    """The Redis of the environment, under the name that arq's tests use."""

    port = 6379

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_container_host_ip(self) -> str:
        return "127.0.0.1"

    def get_exposed_port(self, _port: int) -> int:
        return int(os.environ["ARQ_SUITE_REDIS_PORT"])


if os.environ.get("ARQ_SUITE_WORKER") != "stock":
    arq.worker.Worker = arq.Worker = LaneBackedWorker  # type: ignore[misc]
_containers = ModuleType("testcontainers.redis")
_containers.RedisContainer = RedisContainer  # type: ignore[attr-defined]
sys.modules["testcontainers"] = ModuleType("testcontainers")
sys.modules["testcontainers.redis"] = _containers
