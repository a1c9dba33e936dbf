-- Gives places to those who wait for one, in their order, and writes how many
-- one replica's connections take. A replica alone writes its hash, and writes
-- what the number is, never by how much it grew: repeating the call is
-- harmless.
--
-- KEYS[1] set of all replicas' hashes
-- KEYS[2] this replica's hash: session or user → connections, and the number
--         of its last write
-- KEYS[3..] the other replicas' hashes that the caller knows of
-- ARGV[1] life of a replica's hash, milliseconds   ARGV[2] of the set, seconds
-- ARGV[3] number of this write
-- ARGV[4] number of the write before, the same when there is nothing to write;
--         empty: write the hash anew
-- ARGV[5] fields that this is about, then for each its name and the connections
--         that this replica has
-- then for each who waits: place of the session's field and of the user's among
-- them, 0: none, and the limits of both, 0: none
-- returns {1, {1 or 0 for each who waits}, {hashes of KEYS that are gone}},
--         {0, hashes} when the caller does not know all of these,
--         {2} when this replica's hash is not what the caller wrote
local all, own = KEYS[1], KEYS[2]
local known = {}
for i = 2, #KEYS do known[KEYS[i]] = true end
local replicas = redis.call('SMEMBERS', all)
local member = false
for _, key in ipairs(replicas) do
  if not known[key] then return {0, replicas} end
  member = member or key == own
end
if ARGV[4] == '' then
  redis.call('DEL', own)
else
  local last = redis.call('HGET', own, 'write')
  if last ~= ARGV[4] and last ~= ARGV[3] then return {2} end
end

local count = tonumber(ARGV[5])
local waiting = 6 + 2 * count
local fields, here, total = {}, {}, {}
for i = 1, count do
  fields[i], here[i] = ARGV[4 + 2 * i], tonumber(ARGV[5 + 2 * i])
  total[i] = here[i]
end
local gone = {}
for k = 3, #KEYS do
  if redis.call('EXISTS', KEYS[k]) == 0 then
    redis.call('SREM', all, KEYS[k])
    gone[#gone + 1] = KEYS[k]
  elseif waiting <= #ARGV then
    local there = redis.call('HMGET', KEYS[k], unpack(fields))
    for i = 1, count do total[i] = total[i] + tonumber(there[i] or 0) end
  end
end

local function room(field, limit) return field == 0 or limit == 0 or total[field] < limit end
local function take(field)
  if field > 0 then here[field], total[field] = here[field] + 1, total[field] + 1 end
end
local given = {}
for i = waiting, #ARGV, 4 do
  local session, user = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local ok = room(session, tonumber(ARGV[i + 2])) and room(user, tonumber(ARGV[i + 3]))
  if ok then
    take(session)
    take(user)
  end
  given[#given + 1] = ok and 1 or 0
end

for i = 1, count do
  if here[i] > 0 then
    redis.call('HSET', own, fields[i], here[i])
  else
    redis.call('HDEL', own, fields[i])
  end
end
if count > 0 or ARGV[4] == '' then redis.call('HSET', own, 'write', ARGV[3]) end
redis.call('PEXPIRE', own, ARGV[1])
if not member then redis.call('SADD', all, own) end
redis.call('EXPIRE', all, ARGV[2])
return {1, given, gone}
