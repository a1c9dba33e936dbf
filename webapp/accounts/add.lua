-- Makes an account, if its name is free and, when asked, if it is the first.
-- KEYS: the set of names, the account. ARGV: lower-case name, "any" or
-- "first", id, name as written, created, password hash.
-- The random id is the request's token: the same call repeated is "ok" again.
local id = redis.call('HGET', KEYS[2], 'id')
if id == ARGV[3] then
  return 'ok'
end
if ARGV[2] == 'first' and redis.call('EXISTS', KEYS[1]) == 1 then
  return 'not first'
end
if id then
  return 'exists'
end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], 'id', ARGV[3], 'name', ARGV[4], 'created', ARGV[5], 'password', ARGV[6])
return 'ok'
