-- Takes a ticket, once. A repeated request is answered as the first was.
--
-- KEYS  1 ticket  2 the ticket as this request takes it
-- Returns what the ticket stands for, or nil.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
end
return redis.call('GET', KEYS[2])
