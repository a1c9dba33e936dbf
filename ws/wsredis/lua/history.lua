-- Reads what a client needs to catch up, as of one moment. It writes only
-- when the document has no epoch yet, or lost its log.
--
-- ARGV[5], ARGV[6] the client's epoch and seq; an empty epoch and seq: none
-- ARGV[7] bytes of frames at most; one frame is returned always
-- returns {epoch, head, snapshot seq, payload or nil, recovered, more,
--          seq of the first, {frames without their heads, in order}}
local epoch, seq = open('', 0)
local payload, from = false, tonumber(ARGV[6])

local function after(position, count)
  local start = string.format('%.0f-0', position + 1)
  return redis.call('XRANGE', log, start, '+', 'COUNT', count)
end
-- first returns the seq of the first kept operation after position.
local function first(position)
  local entry = after(position, 1)[1]
  return entry and tonumber(string.match(entry[1], '^%d+')) or seq + 1
end

local next, recovered
if from and ARGV[5] == epoch and from <= seq then
  next = first(from)
  recovered = next == from + 1
end
if not recovered then
  local kept = snapshot_seq()
  payload = redis.call('HGET', snapshot, 'payload')
  next = first(kept)
  recovered = not from and next == kept + 1
end

-- Redis does nothing else meanwhile, so as little as can be is done for each
-- entry: the caller puts the heads on. Seqs have no gap.
local tails, size, limit, more = {}, 0, tonumber(ARGV[7]), 0
local position, overhead = next - 1, #head(epoch, string.format('%.0f', seq))
local count = 32
while position < seq and more == 0 do
  local batch = after(position, count)
  if #batch == 0 then break end
  for _, entry in ipairs(batch) do
    local tail = entry[2][2]
    size = size + overhead + #tail
    if size > limit and #tails > 0 then
      more = 1
      break
    end
    tails[#tails + 1] = tail
  end
  position = position + #batch
  -- As many as are likely to fit: a batch is read whole.
  count = math.max(1, math.min(1000, math.floor((limit - size) * #tails / size) + 1))
end
return {epoch, seq, snapshot_seq(), payload, recovered and 1 or 0, more, next, tails}
