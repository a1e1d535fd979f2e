"""The bound: the least that a worker with leases and payloads can do, one round trip for a thousand jobs.

Its jobs run side by side, a task each, as jobs that call somebody must. It has no owners, no time-outs, no limit of
running jobs, and ends with its connection: nobody should use it.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from bench.peers.queue.plan import Plan, Records, run_role
from core.settings import Settings
from storage.redis.address import redis_address
from storage.redis.client import Script, open_redis

BATCH = 1000
LEASE_MS = 30_000
POLL_S = 0.02
QUEUE = "bench:{loop}:due"
JOB = "bench:{loop}:job:"

# KEYS: the queue, then the payloads of the jobs that have ended. ARGV: prefix of payloads, jobs to claim, lease in ms,
# then the ids that have ended
_NEXT = Script("""
if #KEYS > 1 then
  redis.call('ZREM', KEYS[1], unpack(ARGV, 4))
  redis.call('DEL', unpack(KEYS, 2))
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
if #ids == 0 then
  return {ids, ids}
end
local scores, names = {}, {}
for i, id in ipairs(ids) do
  scores[2 * i - 1], scores[2 * i], names[i] = now + ARGV[3], id, ARGV[1] .. id
end
redis.call('ZADD', KEYS[1], unpack(scores))
return {ids, redis.call('MGET', unpack(names))}
""")

# KEYS: the queue, then the payload of each job. ARGV: due time and id of each, then its payload
_ENQUEUE = Script("""
local count = #KEYS - 1
redis.call('ZADD', KEYS[1], unpack(ARGV, 1, 2 * count))
for i = 1, count do
  redis.call('SET', KEYS[i + 1], ARGV[2 * count + i])
end
""")


async def _work(plan: Plan, records: Records) -> None:
    redis = open_redis(redis_address(Settings(redis_url=plan.redis_url)))

    async def run(number: int) -> None:
        records.add(number)

    ended: list[bytes] = []
    while True:
        keys = [QUEUE, *(JOB + name.decode() for name in ended)]
        ended, payloads = await _NEXT.run(redis, (keys, [JOB, BATCH, LEASE_MS, *ended]))
        await asyncio.gather(*(run(msgspec.json.decode(payload)["number"]) for payload in payloads))
        if not ended:
            await asyncio.sleep(POLL_S)


async def _produce(plan: Plan) -> None:
    redis = open_redis(redis_address(Settings(redis_url=plan.redis_url)))
    for chunk in plan.chunks():
        for at in range(chunk.start, chunk.stop, BATCH):
            numbers = range(at, min(at + BATCH, chunk.stop))
            due = [part for number in numbers for part in (_due_ms(plan, number), str(number))]
            payloads = [msgspec.json.encode({"number": number}) for number in numbers]
            await _ENQUEUE.run(redis, ([QUEUE, *(f"{JOB}{number}" for number in numbers)], [*due, *payloads]))
    await redis.aclose()


def _due_ms(plan: Plan, number: int) -> int:
    return round((plan.due_at(number) or time.time()) * 1000)


if __name__ == "__main__":
    run_role(_work, _produce)
