"""Names and Lua under which processes of protocols 1 and 2 count calls. While one runs, processes of this release count
each call here, too, so that all of them together stay within the rate. Those of protocol 2 have the tag and the memory
of each account apart, `nodrop:{admission:<account>}:`, and those of protocol 1:

    nodrop:{admission}:generation        time when Redis was last found without calls
    nodrop:{admission}:quiet             exists while no call is admitted
    nodrop:{admission}:<account>:fresh   sorted set: reservation → end of its call, Unix milliseconds by Redis's clock;
                                         while it is under way, the latest end that is waited for
                                         (…:scheduled and …:refresh likewise; background calls are in refresh,
                                         those for strangers in fresh)
    nodrop:{admission}:<account>:asked, …:background, …:queue, …:stranger, …:line:<kind>
                                         as the fields of these names in `storage.redis.admission.names`
                                         (`asked` as `fresh_until`)
    nodrop:{admission}:<account>:breaker:<kind>     hash: until, length, probe; missing: closed
    nodrop:{admission}:<account>:unanswered:<kind>  list: times of the last unanswered calls in a row
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

from core.admission import CallKind
from storage.redis.admission.items import Item, Refusal, Report, Wanted
from storage.redis.admission.script import NUMBERS
from storage.redis.client import Call, Run, Script, run_together


class OlderNames:
    """Reservations and reports under names that begin so, with `<account>` for its name. All processes share
    them, so a call is reserved here first.
    """

    def __init__(self, redis: Redis, *, memory: str, account: str) -> None:
        """`memory`: of the keys that tell what Redis has forgotten."""
        self._redis = redis
        self._memory = memory
        self._account = account
        self._generations: dict[str, str] = {}

    async def reserve(self, items: Sequence[Item]) -> dict[str, Refusal]:
        """Send them one by one, in one round trip; return the calls that are not admitted, by reservation."""
        runs, if_lost = [], []
        for item in items:
            runs.append(self._run(item, is_lost=False))
            if_lost.append(self._run(item, is_lost=True)[1])
        refusals: dict[str, Refusal] = {}
        answers = await run_together(self._redis, runs, if_unknown=if_lost)
        for item, answer in zip(items, answers, strict=True):
            if isinstance(item, Wanted):
                reason, wait_ms, generation = answer
                self._generations[_named(self._memory, item.account)] = str(generation, "ascii", "replace")
                if reason:
                    refusals[item.reservation] = Refusal(str(reason, "ascii"), wait_ms / 1000)
        return refusals

    async def give_back(self, items: Sequence[Item], refused: Iterable[str]) -> None:
        """Calls that are refused under other names were not made."""
        back = [item for item in items if isinstance(item, Wanted) and item.reservation in refused]
        calls = [self._report_call(item.account, item.kind, "", item.reservation) for item in back]
        if calls:
            await run_together(self._redis, [(REPORT, call) for call in calls])

    def _run(self, item: Item, *, is_lost: bool) -> Run:
        if isinstance(item, Report):
            return REPORT, self._report_call(*item)
        memory = _named(self._memory, item.account)
        generation = self._generations.get(memory, "")
        names = (f"breaker:{item.kind}", f"line:{item.kind}", *_LOGS, "background", "queue", "asked", "stranger")
        keys = [f"{memory}generation", f"{memory}quiet", *self._of(item.account, *names)]
        flags = (generation, int(is_lost and generation != ""), int(item.past_breaker))
        return ADMIT, (keys, [*item.limits, item.reservation, *flags])

    def _report_call(self, account: str, kind: CallKind, result: str, reservation: str) -> Call:
        """Keys and arguments of `REPORT`."""
        return self._of(account, f"breaker:{kind}", f"unanswered:{kind}", *_LOGS), [result, reservation]

    def _of(self, account: str, *names: str) -> list[str]:
        prefix = _named(self._account, account)
        return [prefix + name for name in names]


def older_names(redis: Redis) -> tuple[OlderNames, ...]:
    """Names of protocols 1 and 2."""
    shared, own = "nodrop:{admission}:", "nodrop:{admission:<account>}:"
    return (
        OlderNames(redis, memory=shared, account=f"{shared}<account>:"),
        OlderNames(redis, memory=own, account=own),
    )


def _named(prefix: str, account: str) -> str:
    return prefix.replace("<account>", account)


_LOGS = ("fresh", "scheduled", "refresh")


# -- Lua ---------------------------------------------------------------------------------------------------------------

# KEYS: generation, quiet; of the account: breaker and line of the kind, log of fresh, of scheduled, of refresh,
#       background, queue, asked, stranger
# ARGV: number of the urgency, rate, share, reservation, known generation or '', was data lost, may it pass the breaker
# Returns the reason for a refusal or '', the wait in ms, the generation
ADMIT = Script(
    NUMBERS
    + """
-- A full server refuses this, which changes nothing. Once a script has removed something it may write even there, and
-- some calls would find a server that is up where others find it down.
redis.call('ZADD', KEYS[5], 'XX', 0, '')

local urgency, rate, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = {share, share, 0}
if urgency == 1 or urgency == 5 then
  redis.call('SET', KEYS[10], 1, 'PX', FRESH_IDLE)
elseif urgency == 2 and redis.call('EXISTS', KEYS[10]) == 0 then
  kept[1] = 0
end
local log, line, step = math.min(urgency, 3), KEYS[4], PACE / (rate - kept[1])
local gap = nil
if urgency == 4 then
  gap, line, step = KEYS[8], KEYS[9], PART * WINDOW / rate
elseif urgency == 5 then
  log, gap, step = 1, KEYS[11], STRANGERS_PART * WINDOW / rate
end

local generation = redis.call('GET', KEYS[1])
if not generation then
  -- finer than a millisecond, in which a fast machine is flushed and counts again
  generation = string.format('%.3f', time[1] * 1000 + time[2] / 1000)
  redis.call('SET', KEYS[1], generation)
end

-- Every refused call of a job gets another time to return at, so that a backlog does not return at once.
local function refuse(reason, wait)
  if urgency == 2 or urgency == 4 then
    local slot = math.max(tonumber(redis.call('GET', line) or 0), now + wait)
    if slot > now + LINE then
      slot = now + wait
    end
    redis.call('SET', line, slot + step, 'PX', 2 * LINE)
    wait = slot - now
  end
  return {reason, math.ceil(wait), generation}
end

-- Calls made before a flush or a restart are not in the log. A process that knows an older generation, or whose script
-- the server has lost, makes all processes wait.
local age = now - generation
if ARGV[6] == '1' then
  redis.call('SET', KEYS[2], 1, 'PX', RETURN)
elseif ARGV[5] ~= '' and ARGV[5] ~= generation and age > -1 and age < RETURN then
  redis.call('SET', KEYS[2], 1, 'PX', math.ceil(RETURN - age))
end
local quiet = redis.call('PTTL', KEYS[2])
if quiet > 0 then
  return refuse('redis_forgot', quiet)
end

-- Times too far in the future were written before the clock was set back.
local breaker = redis.call('HMGET', KEYS[3], 'until', 'length', 'probe')
local is_half_open = false
if breaker[1] then
  local left, probing = breaker[1] - now, (breaker[3] or 0) - now
  local is_open = left > 0 and left <= tonumber(breaker[2])
  local is_probed = probing > 0 and probing <= PROBE
  if ARGV[7] ~= '1' and is_open then
    return refuse('breaker', left)
  end
  if ARGV[7] ~= '1' and is_probed then
    return refuse('breaker', math.min(probing, OPEN))
  end
  is_half_open = not is_open
end

if gap then
  local left = tonumber(redis.call('GET', gap) or 0) - now
  if left > 0 and left <= step then
    return refuse('share', left)
  end
end

-- A call counts from its reservation until a second after its end: it arrives at some moment between.
local made, used = {}, 0
for i = 1, 3 do
  local calls = KEYS[4 + i]
  for _, call in ipairs(redis.call('ZRANGEBYSCORE', calls, '(' .. string.format('%.0f', now + FLIGHT), '+inf')) do
    redis.call('ZADD', calls, now, call)
  end
  redis.call('ZREMRANGEBYSCORE', calls, '-inf', '(' .. string.format('%.0f', now - COUNTED))
  made[i] = redis.call('ZCARD', calls)
  used = used + made[i]
  if i ~= log then
    used = used + math.max(0, kept[i] - made[i])
  end
end
if used >= rate then
  local oldest = now
  for i = 1, 3 do
    if made[i] > (i == log and 0 or kept[i]) then -- when this one leaves the window, the call fits
      oldest = math.min(oldest, redis.call('ZRANGE', KEYS[4 + i], 0, 0, 'WITHSCORES')[2])
    end
  end
  return refuse('rate', oldest + COUNTED + 1 - now)
end

redis.call('ZADD', KEYS[4 + log], now + FLIGHT, ARGV[4])
redis.call('PEXPIRE', KEYS[4 + log], FLIGHT + 2 * WINDOW)
if gap then
  redis.call('SET', gap, now + step, 'PX', math.ceil(2 * step))
end
if is_half_open then
  redis.call('HSET', KEYS[3], 'probe', now + PROBE)
end
return {'', 0, generation}
"""
)

# KEYS: breaker, unanswered, log of fresh, of scheduled, of refresh
# ARGV: whether the channel answered, '' if it was not called, `ENDED`; reservation or ''
REPORT = Script(
    NUMBERS
    + """
for i = 3, 5 do
  if ARGV[1] == '' then
    redis.call('ZREM', KEYS[i], ARGV[2])
  elseif ARGV[2] ~= '' then
    redis.call('ZADD', KEYS[i], 'XX', now, ARGV[2])
  end
end
if ARGV[1] == '' or ARGV[1] == ENDED then
  return
end
if ARGV[1] == '1' then
  redis.call('DEL', KEYS[1], KEYS[2])
  return
end
local breaker = redis.call('HMGET', KEYS[1], 'until', 'length')
if not breaker[1] then
  redis.call('RPUSH', KEYS[2], now)
  redis.call('LTRIM', KEYS[2], -UNANSWERED, -1)
  redis.call('PEXPIRE', KEYS[2], WITHIN)
  if redis.call('LLEN', KEYS[2]) < UNANSWERED or now - redis.call('LINDEX', KEYS[2], 0) > WITHIN then
    return
  end
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'until', now + OPEN, 'length', OPEN)
elseif now >= tonumber(breaker[1]) then -- the probe failed; calls made before it opened do not count
  local length = math.min(2 * breaker[2], OPEN_MAX)
  redis.call('HSET', KEYS[1], 'until', now + length, 'length', length)
  redis.call('HDEL', KEYS[1], 'probe')
end
redis.call('PEXPIRE', KEYS[1], KEPT)
"""
)
