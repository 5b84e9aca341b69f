#!lua
-- grant: put a credit block into a wallet, once.
--
-- A grant is born in Postgres and applied here, perhaps several times: its `r:` field says that it is known, and is never
-- taken away. Grants that have neither remaining nor held nanos leave the burn order on this occasion, but for overdrafts.
-- A paid grant that counts now, for all features, first repays what is drawn of overdrafts, and tells it in an entry.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         the tenant's clock offset (0 where there is no snapshot)
--   wallet_key           grants
--   stream_key           usage stream of the shard
-- ARGV
--   currency             of the amount
--   grant_id             of the grant
--   amount               nanos, 0 to 2^53 - 1; of an overdraft what it lends at most
--   priority             lower burns first
--   effective_ms         usable from, on the tenant's clock
--   expires_ms           usable until before; 0 never expires
--   paid                 1 paid, 0 promotional, 2 overdraft: burns after all others
--   created_ms           breaks ties
--   features             codes of those that it pays for, separated by single spaces; "" all
--   body                 of the entry that tells a repayment, msgpack
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
--   INVALID paid         neither 0, 1 nor 2
--   INVALID created_ms   not a whole number below 2^53
--   INVALID features     not codes separated by single spaces
--   INVALID body         empty
--   UNAVAILABLE epoch    the shard is not built
--   OVERFLOW wallet      what this currency's grants hold together would pass 2^53 - 1 nanos
-- INVARIANT
--   the burn order is sorted by overdraft last, priority, expiry (none last), promotional first, effective, created, id
--   remaining and held of all grants of a currency add up to at most 2^53 - 1
--   what a repayment takes from the grant = what it gives to the overdrafts = the movements of its entry, which add up to zero
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua
--!include lib/money/burn_order.lua

local epoch_key, snapshot_key, wallet_key, stream_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local currency, grant_id, amount, priority, effective_ms, expires_ms, paid, created_ms, features, body =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local PAID = 1

local function are_codes(text)
  for code in string.gmatch(text .. ' ', '([^ ]*) ') do
    if not string.find(code, '^[%w][%w_.%-]*$') then return text == '' end
  end
  return true
end

if #KEYS ~= 4 or #ARGV ~= 10 then return redis.error_reply('INVALID arguments') end
if not string.find(currency, '^[%w][%w_.%-]*$') then return redis.error_reply('INVALID currency') end
if not string.find(grant_id, '^[%w_.%-]+$') then return redis.error_reply('INVALID grant_id') end
amount, priority, effective_ms = whole(amount), whole(priority), whole(effective_ms)
expires_ms, paid, created_ms = whole(expires_ms), whole(paid), whole(created_ms)
if not amount then return redis.error_reply('INVALID amount') end
if not priority then return redis.error_reply('INVALID priority') end
if not effective_ms then return redis.error_reply('INVALID effective_ms') end
if not expires_ms then return redis.error_reply('INVALID expires_ms') end
if not paid or paid > OVERDRAFT then return redis.error_reply('INVALID paid') end
if not created_ms then return redis.error_reply('INVALID created_ms') end
if not are_codes(features) then return redis.error_reply('INVALID features') end
if body == '' then return redis.error_reply('INVALID body') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
if redis.call('HEXISTS', wallet_key, 'r:' .. grant_id) == 1 then return 0 end

local at = real_now_ms() + (tonumber(redis.call('HGET', snapshot_key, 'off')) or 0)
local packed = redis.call('HGET', wallet_key, 'o:' .. currency)
local repays = paid == PAID and features == '' and effective_ms <= at and (expires_ms == 0 or at < expires_ms)
local total, order, left, repaid = amount, {}, amount, {}
local fresh = { grant_id, effective_ms, expires_ms, priority, paid, created_ms, features }
for _, grant in ipairs(packed and cmsgpack.unpack(packed) or {}) do
  local values = redis.call('HMGET', wallet_key, 'r:' .. grant[1], 'h:' .. grant[1], 'a:' .. grant[1])
  local nanos = (tonumber(values[1]) or 0) + (tonumber(values[2]) or 0)
  total = total + nanos
  if fresh and burns_before(fresh, grant) then order[#order + 1], fresh = fresh, nil end
  if nanos > 0 or grant[5] == OVERDRAFT then order[#order + 1] = grant end
  local drawn = repays and grant[5] == OVERDRAFT and math.min(left, (tonumber(values[3]) or 0) - nanos) or 0
  if drawn > 0 then repaid[#repaid + 1], repaid[#repaid + 2], left = grant[1], drawn, left - drawn end
end
if fresh then order[#order + 1] = fresh end
if total > MAX_EXACT then return redis.error_reply('OVERFLOW wallet') end

local fields = { 'o:' .. currency, cmsgpack.pack(order), 'r:' .. grant_id, digits(left), 'h:' .. grant_id, '0' }
if paid == OVERDRAFT then fields[7], fields[8] = 'a:' .. grant_id, digits(amount) end
if #repaid > 0 then
  local moved = grant_id .. '=' .. digits(amount - left)
  for n = 1, #repaid, 2 do moved = moved .. ' ' .. repaid[n] .. '=' .. digits(-repaid[n + 1]) end
  redis.call('XADD', stream_key, '*', 'k', 'repay', 'b', body, 'at', digits(at), 'm', moved, 'w', currency, 'e', epoch)
end
for n = 1, #repaid, 2 do redis.call('HINCRBY', wallet_key, 'r:' .. repaid[n], digits(repaid[n + 1])) end
redis.call('HSET', wallet_key, unpack(fields))
return 1
