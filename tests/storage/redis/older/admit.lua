local COUNTED, PACE, WINDOW = 1010, 950, 1100
local RETURN, LINE = 2100, 300000
local FLIGHT, FRESH_IDLE = 5000, 10000
local PART, STRANGERS_PART = 5, 10
local UNANSWERED, WITHIN = 10, 60000
local OPEN, OPEN_MAX, PROBE = 5000, 60000, 20000
local ENDED = 'ended'
local KEPT = 600000 -- a breaker without reports expires after ten minutes
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

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
