#!lua
-- grant: put a credit block into a wallet, once.
--
-- A grant is born in Postgres and applied here, perhaps several times: its `r:` field says that it is known, and is never
-- taken away. Grants that have neither remaining nor held nanos leave the burn order on this occasion.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   wallet_key           grants
-- ARGV
--   currency             of the amount
--   grant_id             of the grant
--   amount               nanos, 0 to 2^53 - 1
--   priority             lower burns first
--   effective_ms         usable from, on the tenant's clock
--   expires_ms           usable until before; 0 never expires
--   paid                 1 paid, 0 promotional
--   created_ms           breaks ties
-- RETURNS
--   applied              1 applied now, 0 known before
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID currency     not letters, digits, _ . -
--   INVALID grant_id     not letters, digits, _ . -
--   INVALID amount       not a whole number below 2^53
--   INVALID priority     not a whole number below 2^53
--   INVALID effective_ms not a whole number below 2^53
--   INVALID expires_ms   not a whole number below 2^53
--   INVALID paid         neither 0 nor 1
--   INVALID created_ms   not a whole number below 2^53
--   UNAVAILABLE epoch    the shard is not built
--   OVERFLOW wallet      what this currency's grants hold together would pass 2^53 - 1 nanos
-- INVARIANT
--   the burn order is sorted by priority, expiry (none last), promotional first, effective, created, id
--   remaining and held of all grants of a currency add up to at most 2^53 - 1
--!include lib/number.lua

local epoch_key, wallet_key = KEYS[1], KEYS[2]
local currency, grant_id, amount, priority, effective_ms, expires_ms, paid, created_ms =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

-- Whether id a sorts before id b, byte by byte; Lua's own < would ask the server's locale.
local function id_before(a, b)
  for index = 1, math.min(#a, #b) do
    local left, right = string.byte(a, index), string.byte(b, index)
    if left ~= right then return left < right end
  end
  return #a < #b
end

-- Whether a grant burns before another.
local function burns_before(a, b)
  if a[4] ~= b[4] then return a[4] < b[4] end
  if a[3] ~= b[3] then return b[3] == 0 or (a[3] ~= 0 and a[3] < b[3]) end
  if a[5] ~= b[5] then return a[5] < b[5] end
  if a[2] ~= b[2] then return a[2] < b[2] end
  if a[6] ~= b[6] then return a[6] < b[6] end
  return id_before(a[1], b[1])
end

if #KEYS ~= 2 or #ARGV ~= 8 then return redis.error_reply('INVALID arguments') end
if not string.find(currency, '^[%w_.%-]+$') then return redis.error_reply('INVALID currency') end
if not string.find(grant_id, '^[%w_.%-]+$') then return redis.error_reply('INVALID grant_id') end
amount, priority, effective_ms = whole(amount), whole(priority), whole(effective_ms)
expires_ms, paid, created_ms = whole(expires_ms), whole(paid), whole(created_ms)
if not amount then return redis.error_reply('INVALID amount') end
if not priority then return redis.error_reply('INVALID priority') end
if not effective_ms then return redis.error_reply('INVALID effective_ms') end
if not expires_ms then return redis.error_reply('INVALID expires_ms') end
if paid ~= 0 and paid ~= 1 then return redis.error_reply('INVALID paid') end
if not created_ms then return redis.error_reply('INVALID created_ms') end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end
if redis.call('HEXISTS', wallet_key, 'r:' .. grant_id) == 1 then return 0 end

local packed = redis.call('HGET', wallet_key, 'o:' .. currency)
local total, order, fresh = amount, {}, { grant_id, effective_ms, expires_ms, priority, paid, created_ms }
for _, grant in ipairs(packed and cmsgpack.unpack(packed) or {}) do
  local values = redis.call('HMGET', wallet_key, 'r:' .. grant[1], 'h:' .. grant[1])
  local nanos = (tonumber(values[1]) or 0) + (tonumber(values[2]) or 0)
  total = total + nanos
  if fresh and burns_before(fresh, grant) then order[#order + 1], fresh = fresh, nil end
  if nanos > 0 then order[#order + 1] = grant end
end
if fresh then order[#order + 1] = fresh end
if total > MAX_EXACT then return redis.error_reply('OVERFLOW wallet') end

redis.call('HSET', wallet_key, 'o:' .. currency, cmsgpack.pack(order), 'r:' .. grant_id, digits(amount),
  'h:' .. grant_id, '0')
return 1
