-- Put before the scripts whose numbers must not be given twice. Redis copies
-- asynchronously, and most write to disk now and then: after a restart or a
-- fail-over the newest writes may be missing although they were answered.

-- whereabouts names the history of writes that this server's data come from.
-- Redis gives it another name after a restart and after a fail-over. A "+"
-- says that a restart loses nothing: the server is durable, and alone, so that
-- no copy can take its place. Empty where the server does not tell.
--
-- durable is 1: every write is on the server's disk before it is answered; 0:
-- not; empty: the caller does not know yet, and what home says counts.
local function whereabouts(durable, home)
  local info = redis.pcall('INFO', 'replication')
  local name = type(info) == 'string' and string.match(info, 'master_replid:(%x+)')
  if not name then return '', '' end
  if durable == '' and name == string.sub(home, 1, -2) then return home, info end
  local safe = durable == '1' and string.find(info, 'connected_slaves:0', 1, true)
  return name .. (safe and '+' or '-'), info
end

-- kept reports whether all that was answered at home is here, too.
local function kept(home, here, info)
  local name = string.sub(home, 1, -2)
  if name == string.sub(here, 1, -2) then return true end
  return string.sub(home, -1) == '+' and not string.find(info, 'master_replid2:' .. name, 1, true)
end

