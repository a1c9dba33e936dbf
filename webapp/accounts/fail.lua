-- Remembers a failure for one window, and no more failures than count.
-- KEYS: failures (token -> ms). ARGV: window in ms, failures allowed, token.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'NX', string.format('%.0f', now), ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
