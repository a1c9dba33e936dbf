-- Replaces the kept snapshot, and trims the operations that it stands for but
-- for the newest: a client that is a little behind goes on from its position.
-- Repeating the call is harmless.
--
-- ARGV[5], ARGV[6] epoch and seq that the snapshot stands for
-- ARGV[7] payload
-- returns 1, or 0 when it does not fit the log
local epoch, head_seq = open('', 0)
local seq = tonumber(ARGV[6])
if ARGV[5] ~= epoch or seq > head_seq or seq < snapshot_seq() then return 0 end
redis.call('HSET', snapshot, 'seq', ARGV[6], 'payload', ARGV[7])
local oldest = seq - 1000
if oldest > 1 then -- by whole blocks, as in append.lua
  redis.call('XTRIM', log, 'MINID', '~', string.format('%.0f-0', oldest))
end
keep(head_seq, true)
return 1
