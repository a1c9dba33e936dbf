-- Put before every script on a pair: one hash, so that a pair is whole or gone.
--
-- KEYS[1] pair  hash
--   unique, mode    of this life of the pair
--   home            server history that it belongs to; absent: the server does not tell
--   next            index of the next message
--   arrivals        how many times a side was taken
--   and for each side S, left and right,
--   S               connection that holds it; absent: nobody does
--   S:replica       ... its replica's incarnation
--   S:session       ... its session's handle
--   S:arrival       ... the number of its arrival
--   S:posted        batches that S has posted
--   S:first         index of the first message of the last of them
--   S:taken         how many of them its counterparts have taken, or never will
--   S:lost, S:lost_to   first and last of those that a counterpart left behind,
--                   the last time that one did
--   S:<n>           batch n until then (relay): index of its first message, blank, messages
-- ARGV[1] side that this is about   ARGV[2] connection that holds it
-- ARGV[3] as whereabouts' durable
local pair, side, conn = KEYS[1], ARGV[1], ARGV[2]
local across = side == 'left' and 'right' or 'left'

local function count(field) return tonumber(redis.call('HGET', pair, field) or 0) end
local function whole(n) return string.format('%.0f', n) end

-- tell sends the holder of a side, if any, a hint: its connection's ID, on the
-- channel of its replica. Nobody else has to hear it.
local function tell(of, posted)
  local holder = redis.call('HMGET', pair, of, of .. ':replica')
  if holder[1] then
    redis.call('PUBLISH', 'tandem:pairs:{' .. holder[2] .. '}', holder[1] .. (posted or ''))
  end
end

-- depart frees the side. What was under way to its holder is lost.
local function depart()
  local posted, taken = count(across .. ':posted'), count(across .. ':taken')
  for n = taken + 1, posted do redis.call('HDEL', pair, across .. ':' .. whole(n)) end
  if taken < posted then
    redis.call('HSET', pair, across .. ':taken', whole(posted),
      across .. ':lost', whole(taken + 1), across .. ':lost_to', whole(posted))
  end
  redis.call('HDEL', pair, side, side .. ':replica', side .. ':session', side .. ':arrival')
end

-- intact reports whether nothing of the pair was lost that somebody may have
-- been told: else the same numbers would be given again, and its sides may be
-- held by connections that left long ago. Returns home and the present one too.
local function intact()
  local home = redis.call('HGET', pair, 'home') or ''
  local here, info = whereabouts(ARGV[3], home)
  return home == '' or here == '' or kept(home, here, info), home, here
end
