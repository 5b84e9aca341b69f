#!lua
-- lapse: take what remains out of a grant that has expired or was declared void, or what an overdraft lends no more.
--
-- The grant leaves the burn order for good. What open holds have set aside from it is not touched: what they use is
-- charged, what they give back falls to the grant, where nobody can use it, and is taken by the next lapse. So the
-- billing side repeats a lapse until the grant is spent to its whole amount.
--
-- An overdraft lends so much less from then on. While some of it is drawn or held it stays in the order, as one that has
-- expired, so that the next paid grant finds and repays it; what it gets back is taken by the next lapse. One that is
-- lowered goes on lending up to its limit.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         the tenant's clock offset (0 where there is no snapshot)
--   wallet_key           grants
--   stream_key           usage stream of the shard
-- ARGV
--   currency             of the grant
--   grant_id             of the grant
--   kind                 expire: nothing happens before the expiry instant; void: at once; lower: an overdraft, to its limit
--   body                 of the entry, msgpack; the event id must differ between lapses of a grant
--   limit                what an overdraft lends at most from now on, in nanos; read by lower
-- RETURNS
--   taken_nanos          out of the wallet; 0 where nothing remained, it is too early, or the grant is unknown
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID currency     not letters, digits, _ . -
--   INVALID grant_id     not letters, digits, _ . -
--   INVALID kind         neither expire, void nor lower
--   INVALID body         empty
--   INVALID limit        not a whole number below 2^53
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   taken_nanos = movement of the entry; no entry where nothing was taken
--   a lapsed grant is never debited again, a lowered overdraft never beyond its limit
--   an overdraft lends what it has remaining, held and drawn
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua
--!include lib/money/burn_order.lua

local epoch_key, snapshot_key, wallet_key, stream_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local currency, grant_id, kind, body, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local LONG_AGO_MS = 1

-- Put an entry into the order, in its place.
local function insert(order, entry)
  local place = #order + 1
  while place > 1 and burns_before(entry, order[place - 1]) do place = place - 1 end
  table.insert(order, place, entry)
end

if #KEYS ~= 4 or #ARGV ~= 5 then return redis.error_reply('INVALID arguments') end
if not string.find(currency, '^[%w_.%-]+$') then return redis.error_reply('INVALID currency') end
if not string.find(grant_id, '^[%w_.%-]+$') then return redis.error_reply('INVALID grant_id') end
if kind ~= 'expire' and kind ~= 'void' and kind ~= 'lower' then return redis.error_reply('INVALID kind') end
if body == '' then return redis.error_reply('INVALID body') end
limit = whole(limit)
if not limit then return redis.error_reply('INVALID limit') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end

local at = real_now_ms() + (tonumber(redis.call('HGET', snapshot_key, 'off')) or 0)
local values = redis.call('HMGET', wallet_key, 'o:' .. currency, 'r:' .. grant_id, 'a:' .. grant_id)
local nanos, lent = tonumber(values[2]) or 0, tonumber(values[3])
if kind == 'lower' then nanos = math.max(0, math.min(nanos, (lent or 0) - limit)) end
local order, listed = {}, nil
for _, grant in ipairs(values[1] and cmsgpack.unpack(values[1]) or {}) do
  if grant[1] == grant_id then listed = grant else order[#order + 1] = grant end
end
if listed and kind == 'expire' and (listed[3] == 0 or at < listed[3]) then return 0 end
if kind == 'lower' and not lent then return 0 end
if listed and lent and lent > nanos then
  if kind == 'void' then listed[3] = LONG_AGO_MS end
  insert(order, listed)
end

if nanos > 0 then
  redis.call('XADD', stream_key, '*', 'k', 'lapse', 'b', body, 'at', digits(at), 'm', grant_id .. '=' .. digits(nanos),
    'w', currency, 'e', epoch)
  redis.call('HINCRBY', wallet_key, 'r:' .. grant_id, digits(-nanos))
  if lent then redis.call('HINCRBY', wallet_key, 'a:' .. grant_id, digits(-nanos)) end
end
if listed and #order > 0 then
  redis.call('HSET', wallet_key, 'o:' .. currency, cmsgpack.pack(order))
elseif listed then
  redis.call('HDEL', wallet_key, 'o:' .. currency)
end
return nanos
