-- Counters of one node: units in windows, units of prices, money under spend caps.
--
-- The hash of a node holds for each counter `<name>:w` start of the window that counts now, `<name>:u` used in it, `<name>:h` held
-- by all open holds, whatever window they began in, and `<name>:k` what was carried into the window, where units are carried; a
-- rolling counter has `<name>:b` instead of `:u` (lib/rolling.lua). A price is counted as `$<price_id>`, on the customer only.
-- A window that is over is not cleared when it ends: the next act finds another start and counts from zero. One name
-- has one slot, so what a request names twice is seen by its second charge.
--
-- A slot has start (nil: no window holds this instant; false: it has no window, count on), reset, used, held, carried, and
-- more_used and more_held, which the act adds to and `write_counter` writes.

local MAX_CHARGES, NEVER = 100, MAX_EXACT

-- The slot of this name at the node; made, and its fields asked for, where the request did not name it before.
local function counter_slot(node, name, window, since_ms, limit)
  local slot = node.by_name[name]
  if slot then return slot end
  local fields, is_rolling, carries = node.fields, window and window[1] == ROLLING, limit and limit[6] > 0 and limit
  local n = #fields
  slot = {
    name = name, window = window, first = n, since = since_ms, carries = carries, is_rolling = is_rolling, start = false,
    reset = 0, begins = false, used = 0, held = 0, carried = 0, more_used = 0, more_held = 0, buckets = false,
  }
  node.by_name[name], node.counters[#node.counters + 1] = slot, slot
  fields[n + 1], fields[n + 2], fields[n + 3] = name .. ':w', name .. (is_rolling and ':b' or ':u'), name .. ':h'
  if carries then fields[n + 4] = name .. ':k' end
  return slot
end

-- How many edges of the window lie before or at the instant, counted from any fixed one.
local function edge_number(window, at)
  if window[1] == 1 then return math.floor((at - window[2]) / window[3]) end
  return window[1] == 2 and edges_until(window[4], at) or 0
end

-- What is carried into the window that starts now: from the counter's last one, or from since_ms where it has not counted since.
-- A window that was skipped used nothing, so each passes on the units too; work does not grow with their number.
local function carried_units(slot, stored_start, stored_used, stored_carried)
  local units, most = slot.carries[2], slot.carries[6]
  if stored_start == slot.start then return math.min(stored_carried, most) end
  local left = units + stored_carried - stored_used
  if not stored_start or stored_start < slot.since then
    if slot.since == 0 then return 0 end
    stored_start, left = slot.since, units
  end
  local steps = edge_number(slot.window, slot.start) - edge_number(slot.window, stored_start)
  if steps < 1 then return 0 end
  return math.min(most, math.max(0, left) + (steps - 1) * units)
end

local function read_counter(slot, values, at)
  local first, window = slot.first, slot.window
  slot.held = tonumber(values[first + 3]) or 0
  local stored_start = tonumber(values[first + 1])
  if slot.is_rolling then
    slot.start, slot.begins = slot.since, stored_start ~= slot.since
    rolling_acts().read(slot, values[first + 2], at)
    return
  end
  local used = tonumber(values[first + 2]) or 0
  slot.used = used
  if not window then return end
  local start, reset = window_at(window, at)
  if start and start < slot.since then start = slot.since end
  slot.start, slot.reset = start, reset or 0
  if start and start ~= stored_start then slot.used, slot.begins = 0, true end
  if start and slot.carries then
    slot.carried = carried_units(slot, stored_start, used, tonumber(values[first + 4]) or 0)
  end
end

-- Add the fields that the slot has changed. Units are written as sums that were checked below 2^53.
local function write_counter(slot, fields, at)
  if slot.more_used == 0 and slot.more_held == 0 then return end
  local n, name = #fields, slot.name
  if slot.is_rolling then
    fields[n + 1], fields[n + 2] = name .. ':b', rolling_acts().pack(slot, at)
  else
    fields[n + 1], fields[n + 2] = name .. ':u', digits(slot.used + slot.more_used)
  end
  if slot.more_held ~= 0 then
    fields[n + 3], fields[n + 4], n = name .. ':h', digits(slot.held + slot.more_held), n + 2
  end
  if slot.begins then
    fields[n + 3], fields[n + 4], n = name .. ':w', digits(slot.start), n + 2
    if slot.carries then fields[n + 3], fields[n + 4] = name .. ':k', digits(slot.carried) end
  end
end

-- Until when the slot counts, on the tenant's clock.
local function counts_until(slot, at)
  if slot.is_rolling then return at + slot.window[3] + slot.window[3] / 60 end
  if slot.carries or slot.window and slot.window[1] == 0 then return NEVER end
  return slot.reset
end
