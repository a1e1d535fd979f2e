"""Lua of `storage.redis.admission.shared`: the calls of one account, reserved and reported for many callers in
one run, and a breaker for each kind of them. Its keys and their fields are in `names`.
"""

from __future__ import annotations

from functools import lru_cache

from core.admission import (
    FLIGHT_S,
    FRESH_IDLE_S,
    OPEN_S,
    OPEN_S_MAX,
    PARTS,
    PROBE_S,
    UNANSWERED_MAX,
    UNANSWERED_WITHIN_S,
    Urgency,
)
from storage.redis.admission.local import WINDOW_S
from storage.redis.admission.names import ACCOUNTS_MAX
from storage.redis.client import Script

PROBE_GAP_S = 1.0
"""Least time between two probes for a Redis that is down, so that only one call per gap waits for a time-out."""

RETURN_S = WINDOW_S + PROBE_GAP_S
"""Time until the calls of other processes, which may notice a second later that Redis is back, leave the window."""

LINE_S = 300.0

COUNTED_S = 1.01
"""A call counts for a second after its end, and a hundredth more because times are cut to milliseconds."""

PACE_S = 0.85
"""In so many seconds as many refused scheduled calls return as the rate has: too many, so that it is used up although
jobs start late. One that does not fit gets another time behind the others. Measured with `bench backlog`: 0.95 left a
sixth of the rate unused.
"""

KEPT_S = 600.0
"""A breaker without reports is forgotten after so long."""

ENDED = "ended"
"""Report of a request that is over while its call goes on: the breaker hears of that later."""

SPAN = 10**13
"""Scores of a log are milliseconds plus its number times this: the calls of all three are one sorted set."""

NUMBERS = f"""
local COUNTED, PACE, WINDOW = {COUNTED_S * 1000:.0f}, {PACE_S * 1000:.0f}, {WINDOW_S * 1000:.0f}
local RETURN, LINE = {RETURN_S * 1000:.0f}, {LINE_S * 1000:.0f}
local FLIGHT, FRESH_IDLE = {FLIGHT_S * 1000:.0f}, {FRESH_IDLE_S * 1000:.0f}
local PART, STRANGERS_PART = {PARTS[Urgency.BACKGROUND]}, {PARTS[Urgency.STRANGER]}
local UNANSWERED, WITHIN = {UNANSWERED_MAX}, {UNANSWERED_WITHIN_S * 1000:.0f}
local OPEN, OPEN_MAX, PROBE = {OPEN_S * 1000:.0f}, {OPEN_S_MAX * 1000:.0f}, {PROBE_S * 1000:.0f}
local KEPT, ENDED, SPAN = {KEPT_S * 1000:.0f}, '{ENDED}', {SPAN}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: state, calls
# ARGV: known generation or '', was it unknown, position of the first call; of each report: kind, result ('1' answered,
#       '0' not answered, '' not called, `ENDED`), reservation or ''; then of each call: kind, number of the urgency,
#       rate, share, may it pass the breaker, reservation. A reservation begins with the number of its log.
# Returns the generation; of each call the reason for a refusal or '', and the wait in ms
_ADMIT = (
    NUMBERS
    + """
local STATE, CALLS, first = KEYS[1], KEYS[2], tonumber(ARGV[3])

local function score(log, at)
  return string.format('%.0f', log * SPAN + at)
end

-- A full server refuses this, which changes nothing. Once a script has removed something it may write even there, and
-- some calls would find a server that is up where others find it down.
local is_writable = false
local function require_writes()
  if not is_writable then
    redis.call('ZADD', CALLS, 'XX', 0, '')
    is_writable = true
  end
end

-- State: read once, written once. '' is a field that is not there.
local fields = {'generation', 'quiet', 'fresh_until', 'queue', 'background', 'stranger', 'server'}
local state, changed, kinds = {}, {}, {}
local function read_kinds(from, to, step)
  for at = from, to, step do
    local kind = ARGV[at]
    if not kinds[kind] then
      kinds[kind] = true
      for _, name in ipairs({'line:', 'until:', 'length:', 'probe:', 'unanswered:'}) do
        fields[#fields + 1] = name .. kind
      end
    end
  end
end
read_kinds(4, first - 1, 3)
read_kinds(first, #ARGV, 6)
for i, value in ipairs(redis.call('HMGET', STATE, unpack(fields))) do
  state[fields[i]] = value or ''
end
local function set(field, value)
  if state[field] ~= value then
    state[field], changed[field] = value, value
  end
end
local function number(field)
  return tonumber(state[field])
end

-- Reports
local function close_breaker(kind)
  for _, name in ipairs({'until:', 'length:', 'probe:', 'unanswered:'}) do
    set(name .. kind, '')
  end
end

local function count_unanswered(kind)
  local times = {}
  for at in string.gmatch(state['unanswered:' .. kind], '%S+') do
    times[#times + 1] = at
  end
  times[#times + 1] = string.format('%.0f', now)
  if #times > UNANSWERED then
    table.remove(times, 1)
  end
  if #times < UNANSWERED or now - times[1] > WITHIN then
    set('unanswered:' .. kind, table.concat(times, ' '))
    return
  end
  close_breaker(kind)
  set('until:' .. kind, now + OPEN)
  set('length:' .. kind, OPEN)
end

local function open_breaker(kind)
  local ends = number('until:' .. kind)
  if ends and now - ends > KEPT then
    close_breaker(kind)
    ends = nil
  end
  if not ends then
    count_unanswered(kind)
  elseif now >= ends then -- the probe failed; calls made before it opened do not count
    local length = math.min(2 * number('length:' .. kind), OPEN_MAX)
    set('until:' .. kind, now + length)
    set('length:' .. kind, length)
    set('probe:' .. kind, '')
  end
end

local ended, unmade = {}, {}
for at = 4, first - 1, 3 do
  local kind, result, reservation = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if result == '' then
    unmade[#unmade + 1] = reservation
  elseif reservation ~= '' then
    ended[#ended + 1] = score(tonumber(string.sub(reservation, 1, 1)) or 0, now)
    ended[#ended + 1] = reservation
  end
  if result == '1' then
    close_breaker(kind)
  elseif result == '0' then
    open_breaker(kind)
  end
end
if #ended > 0 then
  redis.call('ZADD', CALLS, 'XX', unpack(ended))
  is_writable = true
end
if #unmade > 0 then
  require_writes()
  redis.call('ZREM', CALLS, unpack(unmade))
end

-- Redis 7.4 and Valkey 8 keep 500 scripts that came by EVAL. One that is gone is no loss if the server is still the one
-- from which it was gone before. A server that hides its name may be another one.
local function is_restarted()
  local info = redis.pcall('INFO', 'server')
  local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
  local is_same = #server == 40 and server == state.server
  set('server', server)
  return not is_same
end

-- Calls made before a flush or a restart are not in the log. A process that knows an older generation, or whose script
-- the server has lost, makes all processes wait.
if state.generation == '' then
  -- finer than a millisecond, in which a fast machine is flushed and counts again
  set('generation', string.format('%.3f', time[1] * 1000 + time[2] / 1000))
end
local age, quiet = now - state.generation, (number('quiet') or 0) - now
if quiet > RETURN + 1 then -- written before the clock was set back, as other times that are too far ahead
  quiet = 0
end
local needed = 0
if ARGV[2] == '1' and is_restarted() then
  needed = RETURN
elseif ARGV[1] ~= '' and ARGV[1] ~= state.generation and age > -1 then
  needed = math.ceil(RETURN - age)
end
if needed > math.max(quiet, 0) then
  quiet = needed
  set('quiet', now + quiet)
end

-- What is in the log is more than what counts: it is cleared only when a call would not fit.
local total, made, oldest, new = nil, nil, {}, {0, 0, 0}
local function count_exactly()
  require_writes()
  total, made = 0, {}
  for log = 1, 3 do
    local ahead, beyond = '(' .. score(log, now + FLIGHT), '(' .. score(log + 1, 0)
    for _, call in ipairs(redis.call('ZRANGEBYSCORE', CALLS, ahead, beyond)) do
      redis.call('ZADD', CALLS, score(log, now), call)
    end
    redis.call('ZREMRANGEBYSCORE', CALLS, score(log, 0), '(' .. score(log, now - COUNTED))
    made[log] = redis.call('ZCOUNT', CALLS, score(log, 0), beyond) + new[log]
    total = total + made[log]
  end
end

local function oldest_of(log)
  if not oldest[log] then
    local call = redis.call('ZRANGEBYSCORE', CALLS, score(log, 0), score(log, now), 'WITHSCORES', 'LIMIT', 0, 1)
    oldest[log] = call[2] and call[2] - log * SPAN or now
  end
  return oldest[log]
end

-- A call counts from its reservation until a second after its end: it arrives at some moment between.
local function fits(log, rate, kept)
  total = total or redis.call('ZCARD', CALLS)
  if not made and total + kept[1] + kept[2] + kept[3] - kept[log] >= rate then
    count_exactly()
  end
  if not made then
    return true
  end
  local used = total
  for i = 1, 3 do
    if i ~= log then
      used = used + math.max(0, kept[i] - made[i])
    end
  end
  return used < rate
end

-- Every refused call of a job gets another time to return at, so that a backlog does not return at once.
local function refuse(reason, wait, line, step)
  if line then
    local slot = math.max(number(line) or 0, now + wait)
    if slot > now + LINE then
      slot = now + wait
    end
    set(line, slot + step)
    wait = slot - now
  end
  return reason, math.ceil(wait)
end

local added = {}
local function admit(kind, urgency, rate, share, may_pass, reservation)
  local kept, fresh_left = {share, share, 0}, (number('fresh_until') or 0) - now
  if urgency == 1 or urgency == 5 then
    if fresh_left < FRESH_IDLE - 1000 or fresh_left > FRESH_IDLE then -- written once a second
      set('fresh_until', now + FRESH_IDLE)
    end
  elseif urgency == 2 and (fresh_left <= 0 or fresh_left > FRESH_IDLE) then
    kept[1] = 0
  end
  local log, line, step, gap = math.min(urgency, 3), nil, PACE / (rate - kept[1]), nil
  if urgency == 2 then
    line = 'line:' .. kind
  elseif urgency == 4 then
    gap, line, step = 'background', 'queue', PART * WINDOW / rate
  elseif urgency == 5 then
    log, gap, step = 1, 'stranger', STRANGERS_PART * WINDOW / rate
  end

  if quiet > 0 then
    return refuse('redis_forgot', quiet, line, step)
  end
  local ends, is_half_open = number('until:' .. kind), false
  if ends and now - ends <= KEPT then
    local left, probing = ends - now, (number('probe:' .. kind) or 0) - now
    local is_open = left > 0 and left <= number('length:' .. kind)
    if not may_pass and is_open then
      return refuse('breaker', left, line, step)
    end
    if not may_pass and probing > 0 and probing <= PROBE then
      return refuse('breaker', math.min(probing, OPEN), line, step)
    end
    is_half_open = not is_open
  end
  if gap then
    local left = (number(gap) or 0) - now
    if left > 0 and left <= step then
      return refuse('share', left, line, step)
    end
  end
  if not fits(log, rate, kept) then
    local first_end = now
    for i = 1, 3 do
      if made[i] > (i == log and 0 or kept[i]) then -- when this one leaves the window, the call fits
        first_end = math.min(first_end, oldest_of(i))
      end
    end
    return refuse('rate', first_end + COUNTED + 1 - now, line, step)
  end

  added[#added + 1] = score(log, now + FLIGHT)
  added[#added + 1] = reservation
  new[log], total = new[log] + 1, total + 1
  if made then
    made[log] = made[log] + 1
  end
  if gap then
    set(gap, now + step)
  end
  if is_half_open then
    set('probe:' .. kind, now + PROBE)
  end
  return '', 0
end

local answer = {state.generation}
for at = first, #ARGV, 6 do
  local urgency, rate, share = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local reason, wait = admit(ARGV[at], urgency, rate, share, ARGV[at + 4] == '1', ARGV[at + 5])
  answer[#answer + 1] = reason
  answer[#answer + 1] = wait
end

local written = {}
for field, value in pairs(changed) do
  written[#written + 1] = field
  written[#written + 1] = value
end
if #written > 0 then
  redis.call('HSET', STATE, unpack(written))
end
if #added > 0 then
  redis.call('ZADD', CALLS, unpack(added))
end
if #written + #added == 0 then
  require_writes()
end
return answer
"""
)


@lru_cache(ACCOUNTS_MAX)
def admission_script(account: str) -> Script:
    """The script for one account. Each has a text of its own: a server that has lost its data has lost its scripts too,
    and whoever calls an account first after that is to notice, also when others called other accounts.
    """
    return Script(f"{_ADMIT}-- {account}")
