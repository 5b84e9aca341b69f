#!lua
-- lapse: take what remains out of a grant that has expired or was declared void.
--
-- The grant leaves the burn order for good. What open holds have set aside from it is not touched: what they use is
-- charged, what they give back falls to the grant, where nobody can use it, and is taken by the next lapse. So the
-- billing side repeats a lapse until the grant is spent to its whole amount.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         the tenant's clock offset (0 where there is no snapshot)
--   wallet_key           grants
--   stream_key           usage stream of the shard
-- ARGV
--   currency             of the grant
--   grant_id             of the grant
--   kind                 expire: nothing happens before the expiry instant; void: at once
--   body                 of the entry, msgpack; the event id must differ between lapses of a grant
-- RETURNS
--   taken_nanos          out of the wallet; 0 where nothing remained, it is too early, or the grant is unknown
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID currency     not letters, digits, _ . -
--   INVALID grant_id     not letters, digits, _ . -
--   INVALID kind         neither expire nor void
--   INVALID body         empty
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   taken_nanos = movement of the entry; no entry where nothing was taken
--   a lapsed grant is never debited again
--!include lib/number.lua
--!include lib/window.lua

local epoch_key, snapshot_key, wallet_key, stream_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local currency, grant_id, kind, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 4 or #ARGV ~= 4 then return redis.error_reply('INVALID arguments') end
if not string.find(currency, '^[%w_.%-]+$') then return redis.error_reply('INVALID currency') end
if not string.find(grant_id, '^[%w_.%-]+$') then return redis.error_reply('INVALID grant_id') end
if kind ~= 'expire' and kind ~= 'void' then return redis.error_reply('INVALID kind') end
if body == '' then return redis.error_reply('INVALID body') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end

local at = real_now_ms() + (tonumber(redis.call('HGET', snapshot_key, 'off')) or 0)
local values = redis.call('HMGET', wallet_key, 'o:' .. currency, 'r:' .. grant_id)
local order, is_listed, is_early = {}, false, false
for _, grant in ipairs(values[1] and cmsgpack.unpack(values[1]) or {}) do
  if grant[1] == grant_id then
    is_listed, is_early = true, kind == 'expire' and (grant[3] == 0 or at < grant[3])
  else
    order[#order + 1] = grant
  end
end
local nanos = tonumber(values[2]) or 0
if is_early then return 0 end

if nanos > 0 then
  redis.call('XADD', stream_key, '*', 'k', 'lapse', 'b', body, 'at', digits(at), 'm', grant_id .. '=' .. digits(nanos),
    'w', currency, 'e', epoch)
  redis.call('HINCRBY', wallet_key, 'r:' .. grant_id, digits(-nanos))
end
if is_listed and #order > 0 then
  redis.call('HSET', wallet_key, 'o:' .. currency, cmsgpack.pack(order))
elseif is_listed then
  redis.call('HDEL', wallet_key, 'o:' .. currency)
end
return nanos
