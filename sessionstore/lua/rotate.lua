-- The moment of a rotation: the old ID dies and names its heir, whose value
-- lies ready in another slot. Only if the value is the one that the heir was
-- made from; otherwise nothing happens.
--
-- A rotation takes longer than a save, and where many save without a break it
-- would never find the value as it was. Once it has met another value the
-- session is held for its next attempt: save.lua waits. Two rotations need no
-- hold between them: the second finds the first one's tombstone.
--
-- KEYS  1 value  2 end  3 next  4 sid  5 wrote  6 hold
-- ARGV  1 expected bytes  2 the heir's ref  3 what next tells the client, or
--       empty: nothing  4 TTL ms of next  5 TTL ms of end  6 TTL ms of wrote
--       7 news  8 name of this rotation  9 TTL ms of hold
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
  redis.call('SET', KEYS[6], ARGV[8], 'PX', ARGV[9], 'NX')
  return {'conflict', current}
end
redis.call('DEL', KEYS[1], KEYS[4], KEYS[6])
redis.call('SET', KEYS[2], 'rotated ' .. ARGV[2], 'PX', ARGV[5])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
end
redis.call('SET', KEYS[5], '1', 'PX', ARGV[6])
redis.call('PUBLISH', 'tandem:sessions', ARGV[7])
return {'done'}
