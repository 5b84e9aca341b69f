#!lua flags=no-writes
-- wallet_read: what a customer's wallet holds now, grant by grant in burn order.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         the tenant's clock offset
--   wallet_key           grants
-- ARGV
-- RETURNS
--   at_ms                this instant on the tenant's clock
--   currency*            of the grant; the grants of a currency follow one another
--   grant_id*            of each grant that may still hold something
--   is_usable*           1: effective and not expired; the balance is the sum of what remains in these
--   remaining_nanos*     not held, not spent
--   held_nanos*          set aside by open holds
--   effective_ms*        usable from
--   expires_ms*          usable until before; 0 never expires
--   priority*            lower burns first
--   paid*                0 promotional, 1 paid, 2 overdraft
--   features*            that it pays for, separated by spaces; "" all
--   lent_nanos*          of an overdraft: what is drawn, held included; else 0
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
-- INVARIANT
--   nothing is written
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua

local epoch_key, snapshot_key, wallet_key = KEYS[1], KEYS[2], KEYS[3]

if #KEYS ~= 3 or #ARGV ~= 0 then return redis.error_reply('INVALID arguments') end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end
local offset_ms = redis.call('HGET', snapshot_key, 'off')
if not offset_ms then return redis.error_reply('UNKNOWN customer') end

local at = real_now_ms() + offset_ms
local reply = { at }
local fields = redis.call('HGETALL', wallet_key)
local value_of = {}
for index = 1, #fields, 2 do value_of[fields[index]] = fields[index + 1] end
for index = 1, #fields, 2 do
  local currency = string.match(fields[index], '^o:(.*)$')
  for _, grant in ipairs(currency and cmsgpack.unpack(fields[index + 1]) or {}) do
    local is_usable = grant[2] <= at and (grant[3] == 0 or at < grant[3])
    local row = {
      currency, grant[1], is_usable and 1 or 0, tonumber(value_of['r:' .. grant[1]]),
      tonumber(value_of['h:' .. grant[1]]), grant[2], grant[3], grant[4], grant[5], grant[7],
    }
    row[11] = grant[5] == 2 and tonumber(value_of['a:' .. grant[1]]) - row[4] or 0
    for _, value in ipairs(row) do reply[#reply + 1] = value end
  end
end
return reply
