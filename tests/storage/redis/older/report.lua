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
