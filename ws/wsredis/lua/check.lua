-- Looks after one open document, with every tick or second one: begins a new epoch when its log
-- was lost, keeps the document alive while somebody is in it, and tells
-- whether this replica's members are still in the presence hash.
--
-- KEYS[7] presence hash   KEYS[8] count of announcements
-- ARGV[5], ARGV[6] newest epoch and seq that the caller has seen
-- ARGV[7] one of the caller's connections, empty: it has no member here.
--         Hashes are lost whole and reaped by replica, so one stands for all.
-- ARGV[8] life of the presence hash, seconds
-- ARGV[9] 1: look at the TTLs too
-- returns {epoch, head, number of the newest announcement of members or 0,
--          1 when that connection is present or none was asked}
local epoch, seq = open(ARGV[5], tonumber(ARGV[6]))
local number = tonumber(redis.call('GET', KEYS[8]) or 0)
if ARGV[7] == '' then return {epoch, seq, number, 1} end
if ARGV[9] == '1' then keep(seq, false) end
if redis.call('HEXISTS', KEYS[7], ARGV[7]) == 0 then return {epoch, seq, number, 0} end
if ARGV[9] == '1' and redis.call('TTL', KEYS[7]) < tonumber(ARGV[8]) / 2 then
  redis.call('EXPIRE', KEYS[7], ARGV[8])
  redis.call('EXPIRE', KEYS[8], ARGV[8])
end
return {epoch, seq, number, 1}
