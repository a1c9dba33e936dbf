-- Replaces the kept snapshot. Repeating the call is harmless. The log is not
-- trimmed here: a client that is a little behind goes on from its position,
-- and the log's length is bounded anyway.
--
-- ARGV[5], ARGV[6] epoch and seq that the snapshot stands for
-- ARGV[7] payload
-- returns 1, or 0 when it does not fit the log
local epoch, head_seq = open('', 0)
local seq = tonumber(ARGV[6])
if ARGV[5] ~= epoch or seq > head_seq or seq < snapshot_seq() then return 0 end
redis.call('HSET', snapshot, 'seq', ARGV[6], 'payload', ARGV[7])
keep(head_seq, true)
return 1
