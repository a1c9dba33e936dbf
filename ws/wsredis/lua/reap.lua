-- Removes members of a dead replica and announces that they left. Several
-- replicas try this at once; each member is announced by the one that removed
-- it. A member that changed since it was read stays: its replica lives.
--
-- ARGV[3] beginning of the announcement, up to its list
-- ARGV[4…] for each member: connection, value that was read, departure
-- returns how many were removed
local left = {}
for i = 4, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    left[#left + 1] = ARGV[i + 2]
  end
end
if #left > 0 then
  announce(ARGV[3] .. table.concat(left, ',') .. ']}')
end
return #left
