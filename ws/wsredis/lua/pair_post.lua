-- Numbers a batch of messages and, in relay mode, keeps it for the counterpart.
-- Repeating the call is harmless: the batch is known by its number.
--
-- ARGV[4], ARGV[5] unique ID of the pair and arrival of the counterpart that
--                  the caller knows
-- ARGV[6] number of the batch   ARGV[7] how many messages it has
-- ARGV[8] batches that may be under way   ARGV[9] the messages
-- returns {1, index of the first message, number of the last batch that the
--          counterpart has taken, 0 when it has left}, or {0}: the caller has to look again
local state = redis.call('HMGET', pair, 'unique', side, side .. ':posted', across .. ':arrival', 'mode')
if state[1] ~= ARGV[4] or state[2] ~= conn or not intact() then return {0} end
local posted, number = tonumber(state[3] or 0), tonumber(ARGV[6])
if number > 0 and posted == number then
  -- After the counterpart has left, taken counts what it left behind too.
  return {1, count(side .. ':first'), state[4] == ARGV[5] and count(side .. ':taken') or 0}
end
if number ~= posted + 1 or state[4] ~= ARGV[5] then return {0} end

local relay = state[5] == 'relay'
local taken = relay and count(side .. ':taken') or number
if posted - taken >= tonumber(ARGV[8]) then return {0} end
local first = redis.call('HINCRBY', pair, 'next', ARGV[7]) - tonumber(ARGV[7])
redis.call('HSET', pair, side .. ':posted', ARGV[6], side .. ':first', whole(first))
if relay then
  redis.call('HSET', pair, side .. ':' .. ARGV[6], whole(first) .. ' ' .. ARGV[9])
  tell(across, '+')
else
  redis.call('HSET', pair, side .. ':taken', ARGV[6])
end
return {1, first, taken}
