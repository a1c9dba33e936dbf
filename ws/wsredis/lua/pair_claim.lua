-- Takes the side, or confirms that the connection holds it: the same script,
-- so that a claim which was lost is taken again by looking at it. Repeating
-- the call is harmless: the side is held then.
--
-- ARGV[4] incarnation of the caller   ARGV[5] handle of the session, or empty
-- ARGV[6] life of the hash, seconds
-- ARGV[7], ARGV[8] unique ID and mode, should a pair be made
-- ARGV[9] connection that is dead and may be displaced, or empty
-- ARGV[10] 1: a newcomer, who displaces an older connection of its session.
--          One that looks after its claim must not, or the two would take
--          turns for ever.
-- ARGV[11], ARGV[12] unique ID of the pair that the connection has last posted
--          in, or empty, and the number of the batch
-- returns {1, …} with the state, or {0, holder, its incarnation, the same for the side across}
local sound, home, here = intact()
if not sound or redis.call('HGET', pair, 'unique') == ARGV[11] and count(side .. ':posted') < tonumber(ARGV[12]) then
  -- Both sides take their places again in another life of the pair.
  tell(side)
  tell(across)
  redis.call('DEL', pair)
  home = ''
end
local function look()
  return redis.call('HMGET', pair, 'unique', 'mode', across, across .. ':replica', across .. ':arrival',
    side .. ':posted', across .. ':taken', across .. ':posted', side .. ':taken', side .. ':lost', side .. ':lost_to',
    side, side .. ':replica', side .. ':session')
end
local state = look()
local holder, replica, session = state[12], state[13], state[14]
if holder ~= conn then
  if holder then
    local own = ARGV[10] == '1' and ARGV[5] ~= '' and session == ARGV[5]
    if not own and holder ~= ARGV[9] then return {0, holder, replica, state[3] or '', state[4] or ''} end
    tell(side)
    depart()
  end
  redis.call('HSETNX', pair, 'unique', ARGV[7])
  redis.call('HSETNX', pair, 'mode', ARGV[8])
  local arrival = redis.call('HINCRBY', pair, 'arrivals', 1)
  redis.call('HSET', pair, side, conn, side .. ':replica', ARGV[4], side .. ':session', ARGV[5], side .. ':arrival', whole(arrival))
  tell(across)
  state = look()
end
if here ~= '' and here ~= home then redis.call('HSET', pair, 'home', here) end
-- EXPIRE goes to copies and to the append-only file, TTL does not.
if redis.call('TTL', pair) < ARGV[6] / 2 then redis.call('EXPIRE', pair, ARGV[6]) end
for i = 1, 11 do state[i] = state[i] or '' end
return {1, unpack(state, 1, 11)}
