-- Numbers a batch of messages and, in relay mode, keeps it for the counterpart.
-- Repeating the call is harmless: the batch is known by its number.
--
-- ARGV[3], ARGV[4] unique ID of the pair and arrival of the counterpart that
--                  the caller knows
-- ARGV[5] number of the batch   ARGV[6] how many messages it has
-- ARGV[7] batches that may be under way   ARGV[8] the messages
-- returns {1, index of the first message, number of the last batch that the
--          counterpart has taken, 0 when it has left}, or {0}: the caller has to look again
local state = redis.call('HMGET', pair, 'unique', side, side .. ':posted', across .. ':arrival', 'mode')
if state[1] ~= ARGV[3] or state[2] ~= conn then return {0} end
local posted, number = tonumber(state[3] or 0), tonumber(ARGV[5])
if number > 0 and posted == number then
  -- After the counterpart has left, taken counts what it left behind too.
  return {1, count(side .. ':first'), state[4] == ARGV[4] and count(side .. ':taken') or 0}
end
if number ~= posted + 1 or state[4] ~= ARGV[4] then return {0} end

local relay = state[5] == 'relay'
local taken = relay and count(side .. ':taken') or number
if posted - taken >= tonumber(ARGV[7]) then return {0} end
local first = redis.call('HINCRBY', pair, 'next', ARGV[6]) - tonumber(ARGV[6])
redis.call('HSET', pair, side .. ':posted', ARGV[5], side .. ':first', whole(first))
if relay then
  redis.call('HSET', pair, side .. ':' .. ARGV[5], whole(first) .. ' ' .. ARGV[8])
  tell(across, '+')
else
  redis.call('HSET', pair, side .. ':taken', ARGV[5])
end
return {1, first, taken}
