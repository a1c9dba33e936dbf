-- Replaces a value, if it is still the one that the change was made on. It
-- never creates one, and its TTL stays.
--
-- With a mark the ID is given its handle in the same step. Should it have
-- been given another before (two replicas adopt one session at a time, or a
-- blind write dropped the attributes), that one counts.
--
-- The token in KEYS[3] makes a repeated request answer as the first did.
--
-- While a rotation holds the session everything is a conflict.
--
-- KEYS  1 value  2 end  3 wrote  4 sid  5 hold
-- ARGV  1 expected bytes  2 new bytes  3 TTL ms of wrote  4 news
--       5 mark for sid, or empty  6 TTL ms of sid
-- Returns {"done"} | {"ended", tombstone} | {"absent"} | {"given", mark}
--         | {"conflict", current bytes}
if redis.call('EXISTS', KEYS[3]) == 1 then
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
if ARGV[5] ~= '' then
  local given = redis.call('GET', KEYS[4])
  if given and given ~= ARGV[5] then
    return {'given', given}
  end
end
if current ~= ARGV[1] or redis.call('EXISTS', KEYS[5]) == 1 then
  return {'conflict', current}
end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
if ARGV[5] ~= '' then
  redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[6])
end
redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
redis.call('PUBLISH', 'tandem:sessions', ARGV[4])
return {'done'}
