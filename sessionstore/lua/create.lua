-- Stores a new value. Never replaces one, and never brings an ended ID back.
--
-- KEYS  1 value  2 end  3 sid  4 wrote
-- ARGV  1 bytes  2 TTL ms  3 mark for sid  4 TTL ms of wrote
-- Returns {"done"} | {"ended", tombstone} | {"exists"}
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {'done'}
end
local tombstone = redis.call('GET', KEYS[2])
if tombstone then
  return {'ended', tombstone}
end
if not redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') then
  return {'exists'}
end
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[2])
redis.call('SET', KEYS[4], '1', 'PX', ARGV[4])
return {'done'}
