-- Put before every script that changes a document's members.
--
-- KEYS[1] presence  hash    connection → {replica, member}
-- KEYS[2] count     string  number of the newest announcement of a change
-- ARGV[1] channel of the document's announcements
-- ARGV[2] life of both keys, seconds

-- announce publishes a JSON object with its number in front: the announcements
-- of a document's members have no gap, but for the first after the count was
-- lost, which says so. That one's number is the time, later than any before.
local function announce(object)
  local first = ''
  if redis.call('EXPIRE', KEYS[2], ARGV[2]) == 0 then
    local now = redis.call('TIME')
    redis.call('SET', KEYS[2], now[1] .. string.format('%06d', now[2]), 'EX', ARGV[2])
    first = '"first":true,'
  end
  local number = string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('PUBLISH', ARGV[1], '{"number":' .. number .. ',' .. first .. string.sub(object, 2))
end
