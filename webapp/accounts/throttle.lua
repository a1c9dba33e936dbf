-- How many milliseconds to wait before another attempt; 0: none.
-- KEYS: failures (token -> ms). ARGV: window in ms, failures allowed in it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local from = now - ARGV[1]
if redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', from), '+inf') < tonumber(ARGV[2]) then
  return 0
end
-- The newest N fill the window: the oldest of them is the one to outlive.
local oldest = redis.call('ZREVRANGE', KEYS[1], ARGV[2] - 1, ARGV[2] - 1, 'WITHSCORES')
return math.max(1, oldest[2] + ARGV[1] - now)
