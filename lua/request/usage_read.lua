#!lua flags=no-writes
-- usage_read: what a customer may use and has used now, feature by feature.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
--   counters_key         used and held units
-- ARGV
-- RETURNS
--   at_ms                this instant on the tenant's clock
--   status               active or suspended
--   feature*             in no stated order
--   kind*                0 switch, 1 static, 2 metered
--   is_enabled*          0 or 1
--   static_value*        of a static feature, else ""
--   limit_units*         -1 no limit
--   is_soft*             1: above the limit is recorded, not refused
--   used_units*          in the window that counts now
--   held_units*          of open holds
--   remaining_units*     of the limit; 0 above it; -1 no limit
--   window_start_ms*     0 a lifetime; -1 no window holds this instant
--   reset_at_ms*         end of that window; 0 never
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
-- INVARIANT
--   nothing is written
--!include lib/number.lua
--!include lib/window.lua
--!include lib/counter.lua

local epoch_key, snapshot_key, counters_key = KEYS[1], KEYS[2], KEYS[3]

if #KEYS ~= 3 or #ARGV ~= 0 then return redis.error_reply('INVALID arguments') end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end
local fields = redis.call('HGETALL', snapshot_key)
if #fields == 0 then return redis.error_reply('UNKNOWN customer') end

local value_of, features = {}, {}
for index = 1, #fields, 2 do
  value_of[fields[index]] = fields[index + 1]
  features[#features + 1] = string.match(fields[index], '^f:(.*)$')
end
local at = real_now_ms() + value_of.off
local reply = { at, value_of.st }
for _, feature in ipairs(features) do
  local entitlement = cmsgpack.unpack(value_of['f:' .. feature])
  local charge, limit = { feature = feature, window = entitlement[6] }, entitlement[4]
  open_counters(counters_key, { charge }, at)
  local slot = charge.slot
  local row = {
    feature, entitlement[1], entitlement[2] and 1 or 0, entitlement[3], limit, entitlement[5], slot.used, slot.held,
    limit < 0 and -1 or math.max(limit - slot.used - slot.held, 0), slot.start or -1, slot.reset or 0,
  }
  for _, value in ipairs(row) do reply[#reply + 1] = value end
end
return reply
