-- Forgets the batches for this side that have reached its client, and returns
-- the next. Repeating the call is harmless.
--
-- ARGV[4] unique ID of the pair that the caller knows
-- ARGV[5] number of the last batch that has reached the client
-- ARGV[6] batches that may be under way: a sender who waits for room is told
-- returns {1, number, batch}, {1, number} when there is none after number, or
--         {0}: the caller has to look again
local state = redis.call('HMGET', pair, 'unique', side, across .. ':posted', across .. ':taken')
if state[1] ~= ARGV[4] or state[2] ~= conn or not intact() then return {0} end
local posted, taken = tonumber(state[3] or 0), tonumber(state[4] or 0)
local done = math.min(tonumber(ARGV[5]), posted)
if done > taken then
  for n = taken + 1, done do redis.call('HDEL', pair, across .. ':' .. whole(n)) end
  redis.call('HSET', pair, across .. ':taken', whole(done))
  if posted - taken >= tonumber(ARGV[6]) then tell(across) end
  taken = done
end
if taken >= posted then return {1, taken} end
return {1, taken + 1, redis.call('HGET', pair, across .. ':' .. whole(taken + 1))}
