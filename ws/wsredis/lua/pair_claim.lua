-- Takes the side, or confirms that the connection holds it: the same script,
-- so that a claim which was lost is taken again by looking at it. Repeating
-- the call is harmless: the side is held then.
--
-- ARGV[3] incarnation of the caller   ARGV[4] handle of the session, or empty
-- ARGV[5] life of the hash, seconds
-- ARGV[6], ARGV[7] unique ID and mode, should a pair be made
-- ARGV[8] connection that is dead and may be displaced, or empty
-- ARGV[9] 1: a newcomer, who displaces an older connection of its session.
--         One that looks after its claim must not, or the two would take
--         turns for ever.
-- returns {1, …} with the state, or {0, holder, its incarnation}
local function look()
  return redis.call('HMGET', pair, 'unique', 'mode', across, across .. ':replica', across .. ':arrival',
    side .. ':posted', across .. ':taken', across .. ':posted', side .. ':taken', side .. ':lost', side .. ':lost_to',
    side, side .. ':replica', side .. ':session')
end
local state = look()
local holder, replica, session = state[12], state[13], state[14]
if holder ~= conn then
  if holder then
    local own = ARGV[9] == '1' and ARGV[4] ~= '' and session == ARGV[4]
    if not own and holder ~= ARGV[8] then return {0, holder, replica} end
    tell(side)
    depart()
  end
  redis.call('HSETNX', pair, 'unique', ARGV[6])
  redis.call('HSETNX', pair, 'mode', ARGV[7])
  local arrival = redis.call('HINCRBY', pair, 'arrivals', 1)
  redis.call('HSET', pair, side, conn, side .. ':replica', ARGV[3], side .. ':session', ARGV[4], side .. ':arrival', whole(arrival))
  tell(across)
  state = look()
end
-- EXPIRE goes to copies and to the append-only file, TTL does not.
if redis.call('TTL', pair) < ARGV[5] / 2 then redis.call('EXPIRE', pair, ARGV[5]) end
for i = 1, 11 do state[i] = state[i] or '' end
return {1, unpack(state, 1, 11)}
