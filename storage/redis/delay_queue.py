"""The delay queue in Redis, in arq's keys and format. Every key and all Lua of the queue are here or, for claimed jobs,
in `storage.redis.job_claims`, and nowhere else.

Redis may be flushed at any moment: the sweep then finds due work in Postgres, and a new epoch shows that the jobs of
the next half hour have to be armed again.

    arq:queue:{queries-0}               sorted set: job id → when it is due, Unix milliseconds by Redis's own clock
    arq:job:{queries-0}q:…              payload; removed with the job
    nodrop:{epoch}:…                    current epoch, the last one armed completely

The hash tag keeps a lane's shard in one slot of a cluster; more shards would be {queries-1} and so on.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import NamedTuple

import msgspec
from arq.constants import in_progress_key_prefix, job_key_prefix
from redis.asyncio import Redis

from core.errors import RedisUnavailable
from core.jobs import Job, Lane
from storage.redis.changes import Change, publishing
from storage.redis.client import Call, Patience, RedisLink, Run, Script, gathering, redis_errors, run_together
from storage.redis.job_payload import encode_job

HORIZON_S = 1800.0
BATCH_MAX = 500
"""Jobs in one run of a script. Redis does nothing else meanwhile: about two milliseconds."""

NUDGES = "nodrop:nudges"
"""Channel on which a lane's queue is named when a job may be due before the next look of its workers."""

NUDGED_S = 1.0
"""The longest time between two looks of a worker that hears nudges: a job due later than this needs none."""

SEND_TIMEOUT_S = 1.0
"""The longest that one batch of callers waits for a Redis that hangs."""

WAITING_MAX = 10_000
"""Callers that wait for what follows their commits."""

PUBLISH_PAUSE_S = 1.0
"""Pause after a failure, so that not every change of an order waits for a Redis that is down."""


class LaneDepth(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs in a lane. Running jobs count as queued until they end, not as due. `oldest_due_ms` 0: nothing is due."""

    queued: int
    due: int
    oldest_due_ms: int


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """Period since Redis was last found empty. Not `armed`: the jobs of the next half hour may be missing."""

    id: str
    armed: bool


def queue_name(lane: Lane) -> str:
    """Return arq's name of a lane's queue: `arq:queue:{queries-0}`."""
    return f"arq:queue:{_tag(lane)}"


def job_id(job: Job) -> str:
    """Return arq's id of a job: `{queries-0}q:…`."""
    return f"{_tag(job.lane)}{job.id}"


def health_key(lane: Lane, process: str = "") -> str:
    """Key of the health record of one worker process, or of the whole lane, which `arq --check` reads."""
    return f"{queue_name(lane)}:health-check" + (f":{process}" if process else "")


class DelayQueue:
    """Queues of all lanes. Jobs due later than `horizon_s` from now stay in Postgres alone: Redis is kept small.

    Every method takes one round trip and raises RedisUnavailable when Redis does not answer, is read-only or full.
    """

    def __init__(self, redis: Redis, *, horizon_s: float = HORIZON_S) -> None:
        self._redis = redis
        self._horizon_s = horizon_s

    async def arm(self, jobs: Sequence[Job]) -> int:
        """Enqueue the jobs due within the horizon; return the number of new ones.

        A queued job is left alone. If half of it was lost (a payload evicted, an entry removed) that half is written
        again. Of lost payloads and lost entries the larger number counts.
        """
        return await self._run_all(self.arming(jobs))

    async def cancel(self, jobs: Sequence[Job]) -> int:
        """Remove queued jobs; return their number. A running job is left alone: it finds nothing to do."""
        return await self._run_all(self.cancelling(jobs))

    def arming(self, jobs: Iterable[Job]) -> list[Run]:
        """The runs of scripts with which `arm` is one round trip."""
        near = [job for job in jobs if job.delay_s <= self._horizon_s]
        return [(_ARM, _arm_call(lane, batch)) for lane, batch in _batches(near)]

    def cancelling(self, jobs: Iterable[Job]) -> list[Run]:
        """The same for `cancel`."""
        return [(_CANCEL, _cancel_call(lane, batch)) for lane, batch in _batches(jobs)]

    async def due(self, lane: Lane, count: int) -> list[bytes]:
        """Return the ids of the first `count` due jobs, oldest first, without running ones."""
        with redis_errors():
            return [bytes(name) for name in await _DUE.run(self._redis, ([queue_name(lane)], [count]))]

    async def depth(self, lane: Lane) -> LaneDepth:
        with redis_errors():
            queued, due, oldest = await _DEPTH.run(self._redis, ([queue_name(lane)], []))
        return LaneDepth(queued=int(queued), due=int(due), oldest_due_ms=int(oldest))

    async def epoch(self) -> Epoch:
        """Return the current epoch. If there is none, because Redis was flushed or is new, begin one."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(_EPOCH, token_hex(8), nx=True)
                pipe.mget(_EPOCH, _ARMED_EPOCH)
                _, (epoch, armed) = await pipe.execute()
        return Epoch(id=bytes(epoch).decode(errors="replace"), armed=epoch == armed)

    async def mark_rearmed(self, epoch: Epoch) -> None:
        """Record that all jobs due within the horizon were armed in `epoch`. A later epoch stays unarmed."""
        with redis_errors():
            await self._redis.set(_ARMED_EPOCH, epoch.id)

    async def _run_all(self, runs: Sequence[Run]) -> int:
        if not runs:
            return 0
        with redis_errors():
            return sum(int(count) for count in await run_together(self._redis, runs))


class _FollowUp(NamedTuple):
    """Of one caller."""

    arm: Sequence[Job]
    cancel: Sequence[Job]
    changes: Sequence[Change]


class FollowUps:
    """The follow-ups of a process's commits: jobs to arm and to cancel, changes to publish. Callers wait for their own
    part, which is sent with the parts of the others that wait.
    """

    def __init__(self, redis: Redis, queue: DelayQueue) -> None:
        self._redis = redis
        self._queue = queue
        self._gathering = gathering(self._send, waiting_max=WAITING_MAX)
        self._link = RedisLink("follow-ups")
        self._mute_until = 0.0

    async def add(self, *, arm: Sequence[Job] = (), cancel: Sequence[Job] = (), changes: Sequence[Change] = ()) -> None:
        """Arm and cancel jobs, as `DelayQueue` does, and publish that orders have changed.

        Raises:
            RedisUnavailable: it does not answer, or too many callers wait already.
        """
        now = asyncio.get_running_loop().time()
        follow_up = _FollowUp(arm, cancel, () if now < self._mute_until else changes)
        if not any(follow_up):
            return
        try:
            await self._gathering.add(follow_up)
        except asyncio.CancelledError:  # who is cancelled has committed all the same; to do it twice does no harm
            self._gathering.put(follow_up).add_done_callback(_ignore_error)
            raise
        except RedisUnavailable as error:
            self._link.lost(error)
            self._mute_until = now + PUBLISH_PAUSE_S
            raise
        self._link.up()

    async def _send(self, follow_ups: Sequence[_FollowUp]) -> list[None]:
        armed = self._queue.arming(job for one in follow_ups for job in one.arm)
        cancelled = self._queue.cancelling(job for one in follow_ups for job in one.cancel)
        changes = [change for one in follow_ups for change in one.changes]
        published = publishing(changes) if changes else []
        if armed or cancelled or published:
            with redis_errors():
                async with Patience(SEND_TIMEOUT_S):
                    await run_together(self._redis, [*armed, *cancelled], published)
        return [None] * len(follow_ups)


def _ignore_error(result: asyncio.Future[None]) -> None:
    if not result.cancelled():
        result.exception()  # nobody waits for it any more


# -- keys and arguments ------------------------------------------------------------------------------------------------

_EPOCH = "nodrop:{epoch}:id"
_ARMED_EPOCH = "nodrop:{epoch}:armed"


def _tag(lane: Lane) -> str:
    return f"{{{lane}-0}}"


def _batches(jobs: Iterable[Job]) -> list[tuple[Lane, list[Job]]]:
    lanes: defaultdict[Lane, list[Job]] = defaultdict(list)
    for job in jobs:
        lanes[job.lane].append(job)
    return [
        (lane, queued[start : start + BATCH_MAX])
        for lane, queued in lanes.items()
        for start in range(0, len(queued), BATCH_MAX)
    ]


def _arm_call(lane: Lane, jobs: Sequence[Job]) -> Call:
    enqueued_ms = time.time_ns() // 1_000_000  # shown, never compared
    tag = _tag(lane)
    soonest_s = min(job.delay_s for job in jobs)
    args: list[str | int | bytes] = [job_key_prefix, NUDGES, int(soonest_s * 1000) if soonest_s <= NUDGED_S else ""]
    for job in jobs:
        payload = encode_job({"t": None, "f": job.name, "a": job.args, "k": {}, "et": enqueued_ms})
        args += (tag + job.id, max(0, round(job.delay_s * 1000)), payload)
    return [queue_name(lane)], args


def _cancel_call(lane: Lane, jobs: Sequence[Job]) -> Call:
    names = [job_id(job) for job in jobs]
    return [queue_name(lane), *(job_key_prefix + name for name in names)], [in_progress_key_prefix, *names]


# -- Lua ---------------------------------------------------------------------------------------------------------------
# KEYS[1] is the lane's queue. Keys made from ids carry its hash tag, so they are in its slot.

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS[1]: the queue. ARGV: prefix of payloads, channel of nudges, the shortest delay if that may need one, then id,
# delay and payload of each job. As a rule none or all of many payloads are there, and one command serves all: a third
# of the cost of one for each, as an expiry would need.
_ARM = Script(
    NOW
    + """
local keys, written, scored = {}, {}, {}
for i = 4, #ARGV, 3 do
  local key, n = ARGV[1] .. ARGV[i], #written
  keys[#keys + 1] = key
  written[n + 1], written[n + 2] = key, ARGV[i + 2]
  scored[n + 1], scored[n + 2] = now + ARGV[i + 1], ARGV[i]
end

local new = #keys * redis.call('MSETNX', unpack(written))
if new == 0 and redis.call('EXISTS', unpack(keys)) < #keys then
  for i = 1, #written, 2 do
    if redis.call('SET', written[i], written[i + 1], 'NX') then
      new = new + 1
    end
  end
end

local may_nudge = ARGV[3] ~= ''
local head = may_nudge and redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
new = math.max(new, redis.call('ZADD', KEYS[1], 'NX', unpack(scored)))
-- Whoever armed what is due already has nudged, and the lane is about to claim.
if may_nudge and not (head and tonumber(head) <= math.max(now, now + ARGV[3])) then
  redis.pcall('PUBLISH', ARGV[2], KEYS[1])
end
return new
"""
)

# KEYS: the queue, then a payload's key for each job. ARGV: prefix of leases, then the id of each
_CANCEL = Script("""
local leases, names, payloads = {}, {}, {}
for i = 2, #ARGV do
  leases[#leases + 1] = ARGV[1] .. ARGV[i]
end
local is_any_leased = redis.call('EXISTS', unpack(leases)) > 0
for i, lease in ipairs(leases) do
  if not is_any_leased or redis.call('EXISTS', lease) == 0 then
    names[#names + 1] = ARGV[i + 1]
    payloads[#payloads + 1] = KEYS[i + 1]
  end
end
if #names == 0 then
  return 0
end
redis.call('DEL', unpack(payloads))
return redis.call('ZREM', KEYS[1], unpack(names))
""")

_DUE = Script(
    NOW
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""
)

_DEPTH = Script(
    NOW
    + """
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {
  redis.call('ZCARD', KEYS[1]),
  redis.call('ZCOUNT', KEYS[1], '-inf', now),
  oldest and math.max(0, now - tonumber(oldest)) or 0,
}
"""
)
