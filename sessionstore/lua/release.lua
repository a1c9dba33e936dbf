-- Ends the hold of a rotation that gives up. Repeating the call is harmless.
--
-- KEYS  1 hold
-- ARGV  1 name of the rotation
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return {'done'}
