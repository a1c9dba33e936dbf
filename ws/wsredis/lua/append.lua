-- Appends one operation: deduplicates, numbers, stores and announces it.
-- Repeating the call is harmless: the ID is known then. When it is the same
-- call, sent again by the client library because its reply was late, the
-- answer is the same too; ARGV[2], unique to each call, tells.
--
-- ARGV[5] operations to keep   ARGV[6] user NUL id
-- ARGV[7], ARGV[8] newest epoch and seq that the caller has seen
-- ARGV[9] the frame without its head
-- returns {epoch, seq, 1 when it was there already}
local epoch, seq, logged = open(ARGV[7], tonumber(ARGV[8]))

-- Today's, yesterday's and the day before's IDs: more than 24 hours.
local token = string.sub(ARGV[2], 1, 4)
for i = 4, 6 do
  local entry = redis.call('HGET', KEYS[i], ARGV[6])
  if entry then
    local number, by = string.match(entry, '^(%d+) (%w+)$')
    local before = tonumber(number or 0)
    if before > 0 and before <= seq then
      return {epoch, before, by == token and 0 or 1}
    end
  end
end

seq = seq + 1
local number = string.format('%.0f', seq)
-- Trimming to the very number takes Redis twice as long as by whole blocks of
-- up to 100 entries, which where few are kept would be too coarse.
local trim = tonumber(ARGV[5]) < 1000 and '=' or '~'
redis.call('XADD', log, 'MAXLEN', trim, ARGV[5], number .. '-0', 'f', ARGV[9])
redis.call('HSET', doc, 'seq', number)
keep(seq, not logged)

-- The day is this server's, not the caller's: clocks of replicas differ. A
-- day's hash is gone 36 hours after its last write, half a day before its
-- turn comes again.
local today = KEYS[4 + math.floor(tonumber(redis.call('TIME')[1]) / day) % 3]
redis.call('HSET', today, ARGV[6], number .. ' ' .. token)
if redis.call('TTL', today) < 1.25 * day then
  redis.call('EXPIRE', today, 1.5 * day)
end

redis.call('PUBLISH', ARGV[1], head(epoch, number) .. ARGV[9])
return {epoch, seq, 0}
