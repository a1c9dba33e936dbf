-- Ends a session: deletes its value, leaves a tombstone against late
-- writers, and announces it, in one step. For an ID that has a tombstone it
-- only deletes what a late writer brought back; so it may be repeated.
--
-- KEYS  1 value  2 end  3 sid
-- ARGV  1 reason  2 TTL ms of end  3 handle, or empty: as in sid
-- Returns {"done", handle, deleted bytes} | {"ended", tombstone}
--         | {"absent", handle}: there was no value; the tombstone is set all
--         the same, against a writer that is under way
local tombstone = redis.call('GET', KEYS[2])
if tombstone then
  redis.call('DEL', KEYS[1], KEYS[3])
  return {'ended', tombstone}
end
local value = redis.call('GET', KEYS[1])
local handle = ARGV[3]
if handle == '' then
  handle = string.sub(redis.call('GET', KEYS[3]) or '', 1, 26)
end
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
if handle ~= '' then
  redis.call('PUBLISH', 'tandem:sessions',
    '{"t":"ended","sid":"' .. handle .. '","reason":"' .. ARGV[1] .. '"}')
end
if not value then
  return {'absent', handle}
end
return {'done', handle, value}
