-- The moment of a rotation: the old ID dies and names its heir, whose value
-- lies ready in another slot. Only if the value is the one that the heir was
-- made from; otherwise nothing happens.
--
-- KEYS  1 value  2 end  3 next  4 sid  5 wrote
-- ARGV  1 expected bytes  2 the heir's ID  3 TTL ms of next, 0: no grace
--       4 TTL ms of end  5 TTL ms of wrote  6 news
-- Returns {"done"} | {"ended", tombstone} | {"absent"}
--         | {"conflict", current bytes}
if redis.call('EXISTS', KEYS[5]) == 1 then
  return {'done'}
end
local tombstone = redis.call('GET', KEYS[2])
if tombstone then
  return {'ended', tombstone}
end
local current = redis.call('GET', KEYS[1])
if not current then
  return {'absent'}
end
if current ~= ARGV[1] then
  return {'conflict', current}
end
redis.call('DEL', KEYS[1], KEYS[4])
redis.call('SET', KEYS[2], 'rotated ' .. ARGV[2], 'PX', ARGV[4])
if tonumber(ARGV[3]) > 0 then
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
end
redis.call('SET', KEYS[5], '1', 'PX', ARGV[5])
redis.call('PUBLISH', 'tandem:sessions', ARGV[6])
return {'done'}
