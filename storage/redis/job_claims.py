"""Claims of due jobs and the ends of running ones, each in one Lua call for many jobs of a queue, on arq's keys.

    arq:in-progress:{queries-0}q:…      token of the claim; expires when the lease ends
    arq:retry:{queries-0}q:…            tries that ended without an end of the job
    arq:queue:{queries-0}:claim:…       last claim of a process: its token, and when its leases end
    arq:queue:{queries-0}:parked-jobs   hash: job id → payload that no worker could run
    arq:abort                           ids of jobs that somebody asked to abort

A claimed job is scored with the end of its lease: it leaves the head of the queue, and comes back if its worker died.
The token belongs to the claim and not to the process, which may claim a job twice after a flush. Only its holder ends
the job.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import StrEnum
from secrets import token_hex

import msgspec
from arq.constants import abort_jobs_ss, in_progress_key_prefix, job_key_prefix, retry_key_prefix
from redis.asyncio import Redis

from storage.redis.client import Call, Script, redis_errors, run_together
from storage.redis.delay_queue import BATCH_MAX, NOW, NUDGES

LOOK_MAX = 2000
"""Due jobs to look at in one claim. Those that a stock worker runs stand at the head of the queue."""

PARKED_JOBS_MAX = 10_000
ABORTS_MAX = 100
ABORTS_GAP_S = 1.0
"""Requests to abort are read no more often; stock arq reads them about as often."""

TRIES_EXPIRE_S = 88_400
"""As arq's."""

_PREFIXES = in_progress_key_prefix, job_key_prefix, retry_key_prefix


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A job that the holder of `token` may run until the lease ends. No `payload`: expired, or no string.

    `due_ms` is when it was due, `tries` how often it was tried before. Bytes of `id` that are no text are surrogates.
    """

    id: str
    due_ms: int
    token: str
    tries: int
    payload: bytes | None


class Turn(msgspec.Struct, frozen=True):
    """Jobs of one claim, oldest first; seconds until another one may be due, a day if none is known; ids to abort."""

    jobs: list[Claimed]
    next_due_s: float
    aborted: frozenset[str]


class Way(StrEnum):
    """The end of a job: removed; moved out of the queue for a person; due at once as before; due after a time."""

    FINISH = "finish"
    PARK = "park"
    GIVE_BACK = "give_back"
    DEFER = "defer"


class Ending(msgspec.Struct, frozen=True, gc=False):
    """End of one claimed job. `reason` is for the log."""

    job: Claimed
    way: Way
    delay_ms: int = 0
    reason: str = ""


class Unended(msgspec.Struct, frozen=True):
    """Jobs that did not end as asked: not held by this claim any more; parked, but the payload had expired."""

    lost: frozenset[str]
    expired: frozenset[str]


class JobClaims:
    """Claims of one process in one queue. Every method takes one round trip and may raise RedisUnavailable.

    Stock arq workers respect the leases, and these claims respect theirs.
    """

    def __init__(
        self,
        redis: Redis,
        queue: str,
        *,
        process: str,
        lease_ms: int,
        look_max: int = LOOK_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._queue = queue
        self._process = process
        self._lease_ms = lease_ms
        self._look_max = look_max
        self._unanswered = ""
        self._clock = clock
        self._aborts_due_at = 0.0

    async def claim(self, count: int) -> Turn:
        """Lease up to `count` due jobs, oldest first.

        After a lost answer the same token is sent again, and what it claimed is given back before the next claim.
        """
        token = self._unanswered = self._unanswered or f"{self._process}:{token_hex(6)}"
        keys = [self._queue, f"{self._queue}:claim:{self._process}"]
        call: Call = (keys, [*_PREFIXES, token, self._lease_ms, min(count, BATCH_MAX), self._look_max])
        began_at, aborts = self._clock(), []
        if began_at >= self._aborts_due_at:
            aborts = [("ZRANGE", abort_jobs_ss, "0", str(ABORTS_MAX - 1), "REV")]
        with redis_errors():
            answer, *aborted = await run_together(self._redis, [(_CLAIM, call)], aborts)
        self._unanswered = ""
        if aborts:
            self._aborts_due_at = began_at + ABORTS_GAP_S
        wait_ms, names, due, found = answer
        payloads, tries = found[: len(names)], found[len(names) :]
        jobs = [
            Claimed(_text(name), due_ms, token, int(tried or 0), payload)
            for name, due_ms, payload, tried in zip(names, due, payloads, tries, strict=True)
        ]
        return Turn(jobs, int(wait_ms) / 1000, frozenset(_text(name) for names in aborted for name in names))

    async def give_back_unanswered(self) -> None:
        """End the leases of a claim whose answer was lost."""
        if self._unanswered:
            await self.claim(0)

    async def end(self, endings: Sequence[Ending]) -> Unended:
        """End up to BATCH_MAX jobs, those that their claim still holds. May be repeated after a lost answer."""
        keys = [self._queue, f"{self._queue}:parked-jobs"]
        args: list[str | int | bytes] = [*_PREFIXES, PARKED_JOBS_MAX, TRIES_EXPIRE_S, NUDGES]
        for (token, way, number), names in _alike(endings).items():
            args += [token, way, number, len(names), *names]
        with redis_errors():
            lost, expired = await _END.run(self._redis, (keys, args))
        return Unended(frozenset(map(_text, lost)), frozenset(map(_text, expired)))

    async def forget_aborts(self, ids: Sequence[str]) -> None:
        """Remove the requests to abort these jobs."""
        with redis_errors():
            await self._redis.zrem(abort_jobs_ss, *map(_name, ids))


def _alike(endings: Sequence[Ending]) -> dict[tuple[str, Way, int], list[bytes]]:
    """Group the jobs of one claim that end in one way: an argument more costs as much as a command more."""
    groups: defaultdict[tuple[str, Way, int], list[bytes]] = defaultdict(list)
    for ending in endings:
        job, way = ending.job, ending.way
        number = ending.delay_ms if way is Way.DEFER else job.due_ms if way is Way.GIVE_BACK else 0
        groups[job.token, way, number].append(_name(job.id))
    return groups


def is_text(job_id: str) -> bool:
    """Whether an id of a claimed job was text: no other tool can name it otherwise."""
    return job_id.isascii() or not any("\ud800" <= character <= "\udfff" for character in job_id)


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _name(job_id: str) -> bytes:
    return job_id.encode(errors="surrogateescape")


# -- Lua ---------------------------------------------------------------------------------------------------------------
# KEYS[1] is the queue. Keys made from ids carry its hash tag, so they are in its slot.

# KEYS[2]: the last claim of the process. ARGV: prefixes of leases, payloads and tries, token, lease in ms, jobs to
# claim, jobs to look at. Returns ms until the next due job, ids, their due times, payloads followed by tries.
_CLAIM = Script(
    NOW
    + """
local token, lease, count, look_max = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local ends = string.format('%.0f', now + lease)

-- The same token again: the answer was lost, to us or to redis-py, which sends once more by itself. End its leases,
-- which all end at one moment.
local last = redis.call('GET', KEYS[2])
if last and string.sub(last, 1, #token + 1) == token .. ' ' then
  local ended = string.sub(last, #token + 2)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ended, ended)) do
    if redis.call('GET', ARGV[1] .. id) == token then
      redis.call('DEL', ARGV[1] .. id)
      redis.call('ZADD', KEYS[1], now, id)
    end
  end
  redis.call('DEL', KEYS[2])
end

-- As a rule few jobs are due, and the job behind them on the first page is the next one.
local ids, due, keys, scored, looked, page, later = {}, {}, {}, {}, 0, 20, nil
while #ids < count and looked < look_max and not later do
  local head = redis.call('ZRANGE', KEYS[1], looked, looked + page - 1, 'WITHSCORES')
  for i = 1, #head, 2 do
    if tonumber(head[i + 1]) > now then
      later = head[i + 1]
      break
    end
    if #ids < count and redis.call('SET', ARGV[1] .. head[i], token, 'NX', 'PX', lease) then
      local n = #ids + 1
      ids[n], due[n], keys[n] = head[i], math.floor(tonumber(head[i + 1])), ARGV[2] .. head[i]
      scored[2 * n - 1], scored[2 * n] = ends, head[i]
    end
  end
  if #head < 2 * page then
    later = later or #ids > 0 and ends or now + 86400000
  end
  looked, page = looked + page, math.max(count - #ids, 100)
end

local found = {}
if #ids > 0 then
  redis.call('ZADD', KEYS[1], unpack(scored))
  redis.call('SET', KEYS[2], token .. ' ' .. ends, 'PX', lease)
  for i = 1, #ids do
    keys[#ids + i] = ARGV[3] .. ids[i]
  end
  found = redis.call('MGET', unpack(keys))
end
later = later or redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] or ends
return {math.ceil(later - now), ids, due, found}
"""
)

# KEYS[2]: the hash of parked jobs. ARGV: prefixes of leases, payloads and tries, size limit of the hash, expiry of
# tries, channel of nudges; then groups of token, way, number, count and as many ids. Returns ids that were not held,
# and parked ones without payload.
_END = Script("""
local gone, deleted, lost, expired = {}, {}, {}, {}

local function park(id)
  local payload = redis.pcall('GET', ARGV[2] .. id)
  if type(payload) == 'table' then -- not even a string
    payload = ''
  end
  local parked = redis.pcall('HLEN', KEYS[2])
  if not payload then
    expired[#expired + 1] = id
  elseif type(parked) == 'number' and parked < tonumber(ARGV[4]) then
    redis.call('HSET', KEYS[2], id, payload)
  end
end

local function reschedule(id, way, number)
  local at_ms = number
  if way == 'defer' then
    local time = redis.call('TIME')
    at_ms = time[1] * 1000 + math.floor(time[2] / 1000) + number
  end
  redis.call('ZADD', KEYS[1], at_ms, id)
  redis.pcall('INCRBY', ARGV[3] .. id, 1)
  redis.call('EXPIRE', ARGV[3] .. id, ARGV[5])
  redis.call('DEL', ARGV[1] .. id)
end

local at, is_rescheduled = 7, false
while at <= #ARGV do
  local token, way, number, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local keys = {}
  for i = 1, count do
    keys[i] = ARGV[1] .. ARGV[at + 3 + i]
  end
  local held = redis.call('MGET', unpack(keys))
  for i = 1, count do
    local id = ARGV[at + 3 + i]
    if held[i] ~= token then
      lost[#lost + 1] = id
    elseif way == 'defer' or way == 'give_back' then
      reschedule(id, way, number)
      is_rescheduled = true
    else
      if way == 'park' then
        park(id)
      end
      local n = #deleted
      gone[#gone + 1] = id
      deleted[n + 1], deleted[n + 2], deleted[n + 3] = keys[i], ARGV[2] .. id, ARGV[3] .. id
    end
  end
  at = at + 4 + count
end
if #gone > 0 then
  redis.call('ZREM', KEYS[1], unpack(gone))
  redis.call('DEL', unpack(deleted))
end
if is_rescheduled then
  redis.pcall('PUBLISH', ARGV[6], KEYS[1])
end
return {lost, expired}
""")
