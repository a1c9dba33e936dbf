-- Stores a change of one replica's own members and announces it. Repeating
-- the call is harmless: receivers know members by their connection.
--
-- ARGV[3] announcement
-- ARGV[4] number of members to put, then a connection and a value for each,
--         then the connections that left
local puts = tonumber(ARGV[4])
for i = 5, 3 + 2 * puts, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = 5 + 2 * puts, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
announce(ARGV[3])
return 1
