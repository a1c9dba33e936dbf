-- Deletes an account if it is still the one with this id.
-- KEYS: the set of names, the account. ARGV: lower-case name, id.
if redis.call('HGET', KEYS[2], 'id') ~= ARGV[2] then
  return 0
end
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
