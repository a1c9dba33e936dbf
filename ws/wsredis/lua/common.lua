-- Put before every script that looks at a document's log. All keys of one
-- call lie in one slot, so this runs on a Cluster too.
--
-- KEYS[1] doc       hash    epoch, seq: the life of the log and its head;
--                           home: the server history that this belongs to
-- KEYS[2] log       stream  <seq>-0 → f: the operation's frame without its head
-- KEYS[3] snapshot  hash    seq, payload: what the client left last
-- KEYS[4..6] seen   hash    user NUL id → seq and call, one a day, used in turn
-- ARGV[1] channel of the document's announcements
-- ARGV[2] name for an epoch, should one begin; unique to each call
-- ARGV[3] retention, seconds since the last write
-- ARGV[4] 1: every write is on the server's disk before it is answered; 0: not;
--         empty: the caller does not know yet
local doc, log, snapshot = KEYS[1], KEYS[2], KEYS[3]
local retention = tonumber(ARGV[3])
local day = 86400

local function snapshot_seq()
  return tonumber(redis.call('HGET', snapshot, 'seq') or 0)
end

-- keep prolongs the document's life, but not with every call: EXPIRE goes to
-- copies and to the append-only file, TTL does not. A document without a
-- single operation lives for a day only, or every mistyped ID would stay.
local function keep(seq, always)
  local life = retention
  if seq == 0 then life = math.min(day, life) end
  if always or redis.call('TTL', doc) < life * 0.95 then
    for i = 1, 3 do redis.call('EXPIRE', KEYS[i], life) end
  end
end

-- begin starts a new epoch with what is left of the document: the head is the
-- newest operation, or else what the snapshot stands for. Frames are kept
-- without epoch and seq, so operations that survived belong to the new life.
-- Without a log nothing is known of any ID: they may be sent again.
local function begin(here)
  local seq
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if newest then
    seq = tonumber(string.match(newest[1], '^%d+'))
  else
    redis.call('DEL', KEYS[4], KEYS[5], KEYS[6])
    seq = snapshot_seq()
  end
  redis.call('HSET', doc, 'epoch', ARGV[2], 'seq', seq, 'home', here)
  keep(seq, true)
  redis.call('PUBLISH', ARGV[1], '{"type":"reset","epoch":"' .. ARGV[2] .. '"}')
  return ARGV[2], seq, newest and true or false
end

-- open returns epoch, head and whether the log has entries. It begins a new
-- epoch when there is none, when the log is gone though something was in it,
-- and when operations may have been lost, or the same numbers would be given
-- to others: the server's history is another one, or the caller has seen an
-- operation past the head.
local function open(known_epoch, known_seq)
  local state = redis.call('HMGET', doc, 'epoch', 'seq', 'home')
  local epoch, seq, home = state[1], tonumber(state[2] or 0), state[3] or ''
  local here, info = whereabouts(ARGV[4], home)
  local told = here ~= '' and here ~= home
  if not epoch or (known_epoch == epoch and known_seq > seq)
    or (told and home ~= '' and not kept(home, here, info)) then
    return begin(here)
  end
  local logged = redis.call('EXISTS', log) == 1
  if not logged and seq ~= snapshot_seq() then
    return begin(here)
  end
  if told then redis.call('HSET', doc, 'home', here) end
  return epoch, seq, logged
end

local function head(epoch, seq)
  return '{"type":"operation","epoch":"' .. epoch .. '","seq":' .. seq .. ','
end
