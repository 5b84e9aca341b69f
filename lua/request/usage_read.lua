#!lua flags=no-writes
-- usage_read: what a customer may use and has used now, at the customer and at each level of a path.
--
-- One row for each feature, and then one for each limit, rate, concurrency limit, gauge and spend cap, at each level.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
--   counters_key         of the customer; those of a budget node have this name, a slash and the node
-- ARGV
--   path                 budget levels below the customer to be told too; "" none
-- RETURNS
--   at_ms                this instant on the tenant's clock
--   status               active or suspended
--   row*                 feature, limit, rate, concurrency, gauge or spend_cap, in no stated order
--   feature*             that it is about; "" of a spend cap
--   kind*                of the feature: 0 switch, 1 static, 2 metered, 3 gauge; -1 of a spend cap
--   is_enabled*          of the feature: 0 or 1; 1 of a spend cap
--   value*               of a static feature; the currency of a spend cap; else ""
--   level*               customer, or a node of the path; "" of a feature
--   counter*             of a limit, rate or spend cap; else ""
--   limit_units*         what a window, a burst or a gauge has at most, with what was carried; holds; nanos; -1 no limit
--   ceiling_units*       above it is refused; -1 never
--   used_units*          in the window that counts now; of a rate what of the burst is not drained, rounded up; a gauge's level
--   held_units*          by open holds
--   remaining_units*     of the limit; 0 above it; -1 no limit
--   window_start_ms*     0 a lifetime, a rolling window or none; -1 no window holds this instant
--   reset_at_ms*         when that window ends, or a rolling one has something back; 0 never
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID path         not team, project, user and key in this order, each `kind:name`
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
-- INVARIANT
--   nothing is written
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua
--!include lib/value/field.lua
--!include lib/value/path.lua
--!include lib/level/rolling.lua as rolling_acts
--!include lib/level/carry.lua as carry_acts
--!include lib/level/counter.lua
--!include lib/level/refusal.lua
--!include lib/level/pace.lua as pace_acts
--!include lib/level/life.lua as life_acts
--!include lib/level/level.lua

local epoch_key, snapshot_key, counters_key = KEYS[1], KEYS[2], KEYS[3]
local path = ARGV[1]

local reply = {}

local function tell(row)
  for place = 1, 14 do reply[#reply + 1] = row[place] end
end

-- A row of units: what of the limit is used and held, and what remains.
local function tell_units(head, units, ceiling, slot)
  local remaining = slot.start and math.max(units - slot.used - slot.held, 0) or 0
  local start = slot.is_rolling and 0 or slot.start or -1
  local row = { unpack(head, 1, 7) }
  row[8], row[9], row[10], row[11] = units, ceiling, slot.used, slot.held
  row[12], row[13], row[14] = remaining, start, slot.reset
  tell(row)
end

-- All that the node says of one feature.
local function tell_node(node, charge)
  local entitlement, feature = charge.entitlement, charge.feature
  local function head(row, counter)
    return { row, feature, entitlement[1], entitlement[2] and 1 or 0, '', node.level, counter }
  end
  for n = 1, #node.uses, 3 do
    local slot, limit = node.uses[n + 1], node.uses[n + 2]
    local ceiling = limit[3] < 0 and -1 or math.min(limit[3] + slot.carried, MAX_EXACT)
    tell_units(head('limit', limit[1]), math.min(limit[2] + slot.carried, MAX_EXACT), ceiling, slot)
  end
  for n = 1, #node.paced, 2 do
    local slot = node.paced[n + 1]
    local rate = slot.rate
    local stands = { start = 0, used = math.ceil(slot.level / rate[3]), held = 0, reset = 0 }
    tell_units(head('rate', rate[1]), rate[4], rate[4], stands)
  end
  for n = 1, #node.leases, 3 do
    local most = node.leases[n + 2]
    local stands = { start = 0, used = 0, held = tonumber(node.values[node.leases[n + 1]]) or 0, reset = 0 }
    tell_units(head('concurrency', ''), most, most, stands)
  end
  for n = 1, #node.gauges, 3 do
    local stands = { start = 0, used = tonumber(node.values[node.gauges[n + 1]]) or 0, held = 0, reset = 0 }
    for _, limit in ipairs(node.gauges[n + 2]) do tell_units(head('gauge', limit[1]), limit[2], limit[3], stands) end
    if not node.gauges[n + 2][1] then
      local row = { unpack(head('gauge', ''), 1, 7) }
      row[8], row[9], row[10], row[11], row[12], row[13], row[14] = -1, -1, stands.used, 0, -1, 0, 0
      tell(row)
    end
  end
end

if #KEYS ~= 3 or #ARGV ~= 1 then return redis.error_reply('INVALID arguments') end
if not read_path(path, counters_key) then return redis.error_reply('INVALID path') end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end
local names = redis.call('HKEYS', snapshot_key)
if #names == 0 then return redis.error_reply('UNKNOWN customer') end

local real_ms = real_now_ms()
local function open(charges)
  local nodes = read_path(path, counters_key)
  local status, offset_ms = read_snapshot(snapshot_key, nodes, charges)
  reply[1], reply[2] = real_ms + offset_ms, status
  open_levels(nodes, charges, real_ms + offset_ms)
  return nodes
end
for _, node in ipairs(open({})) do
  for n = 1, #node.caps, 2 do
    local slot, cap = node.caps[n], node.caps[n + 1]
    tell_units({ 'spend_cap', '', -1, 1, cap[2], node.level, cap[1] }, cap[3], cap[4], slot)
  end
end
for _, name in ipairs(names) do
  local feature = string.match(name, '^f:(.*)$')
  if feature then
    local charge = { feature = feature, quantity = 0, entitlement = false, kind = -1, tariffs = NONE }
    local nodes = open({ charge })
    local entitlement = charge.entitlement
    tell({ 'feature', feature, entitlement[1], entitlement[2] and 1 or 0, entitlement[3], '', '', -1, -1, 0, 0, -1, 0, 0 })
    for _, node in ipairs(nodes) do tell_node(node, charge) end
  end
end
return reply
