-- Writes what is known of a session under its handle.
--
-- KEYS  1 handle
-- ARGV  1 TTL ms  2 id  3 user  4 user_name  5 created ms  6 seen ms
--       7 ua, or empty: keep  8 addr, or empty: keep
-- Returns the user that was recorded before, or an empty string.
local before = redis.call('HGET', KEYS[1], 'user') or ''
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'user', ARGV[3],
  'user_name', ARGV[4], 'created', ARGV[5], 'seen', ARGV[6])
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[1], 'ua', ARGV[7])
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[1], 'addr', ARGV[8])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return before
