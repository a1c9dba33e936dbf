-- Reads what a client needs to catch up, as of one moment. It writes only
-- when the document has no epoch yet, or lost its log.
--
-- ARGV[4], ARGV[5] the client's epoch and seq; an empty epoch and seq: none
-- ARGV[6] bytes of frames at most; one frame is returned always
-- returns {epoch, head, snapshot seq, payload or nil, recovered, more,
--          {seq, frame, seq, frame, …}}
local epoch, seq = open('', 0)
local payload, from = false, tonumber(ARGV[5])

local function after(position)
  local start = string.format('%.0f-0', position + 1)
  return redis.call('XRANGE', log, start, '+', 'COUNT', 32)
end
local function number(entry) return tonumber(string.match(entry[1], '^%d+')) end
-- complete: nothing between position and the first of batch was trimmed.
local function complete(position, batch)
  if position == seq then return true end
  return batch[1] ~= nil and number(batch[1]) == position + 1
end

local batch, recovered
if from and ARGV[4] == epoch and from <= seq then
  batch = after(from)
  recovered = complete(from, batch)
end
if not recovered then
  local asked = from
  from = snapshot_seq()
  payload = redis.call('HGET', snapshot, 'payload')
  batch = after(from)
  recovered = not asked and complete(from, batch)
end

local frames, size, limit, more = {}, 0, tonumber(ARGV[6]), 0
while #batch > 0 and more == 0 do
  for _, entry in ipairs(batch) do
    from = number(entry)
    local frame = head(epoch, string.format('%.0f', from)) .. entry[2][2]
    size = size + #frame
    if size > limit and #frames > 0 then
      more = 1
      break
    end
    frames[#frames + 1] = from
    frames[#frames + 1] = frame
  end
  if more == 0 then batch = after(from) end
end
return {epoch, seq, snapshot_seq(), payload, recovered and 1 or 0, more, frames}
