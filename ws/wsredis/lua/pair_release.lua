-- Frees the side if the connection still holds it, and tells the counterpart.
-- Repeating the call is harmless.
--
-- ARGV[4] grace: seconds that the pair lives on after both have left
-- returns 1, or 0 when somebody else holds it, or nobody
if redis.call('HGET', pair, side) ~= conn then return 0 end
depart()
if redis.call('HEXISTS', pair, across) == 1 then
  tell(across)
else
  redis.call('EXPIRE', pair, ARGV[4])
end
return 1
