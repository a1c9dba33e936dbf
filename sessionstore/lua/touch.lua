-- Renews a session's TTL when that is due. It never creates one.
--
-- Due is a TTL that has run down by the interval, and one that is too long:
-- an application that shares the session may have written it with its own.
--
-- KEYS  1 value  2 end  3 sid
-- ARGV  1 wanted TTL ms  2 interval ms  3 mark for sid
-- Returns the TTL in ms from now on, -2 when there is no living session, and
-- whether it was renewed.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {-2, 0}
end
local left = redis.call('PTTL', KEYS[1])
if left == -2 then
  return {-2, 0}
end
local want, every = tonumber(ARGV[1]), tonumber(ARGV[2])
if left >= 0 and left <= want + every and want - left < every then
  return {left, 0}
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[1])
return {want, 1}
