-- Counters of one node: units in windows, units of prices, money under spend caps.
--
-- The hash of a node holds for each counter `<name>:w` start of the window that counts now, `<name>:u` used in it, `<name>:h` held
-- by all open holds, whatever window they began in, and `<name>:k` what was carried into the window, where units are carried; a
-- rolling counter has `<name>:b` instead of `:u` (lib/level/rolling.lua). A price is counted as `$<price_id>`, on the customer only.
-- A window that is over is not cleared when it ends: the next act finds another start and counts from zero. Where the clock
-- was put back over an edge, by less than five minutes, the window that had begun goes on, so that none is opened twice.
-- One name has one slot, so what a request names twice is seen by its second charge; a few are looked through, many are
-- found by name.
--
-- A slot has start (nil: no window holds this instant; false: it has no window, count on), reset, used, held, carried, and
-- more_used and more_held, which the act adds to and `write_counter` writes.

local MAX_CHARGES, CLOCK_STEP_MS, FEW = 100, 300000, 8

-- The fields of a counter: its start, units, what is held, what was carried, and the buckets of a rolling one.
local counter_fields = memo(function(name)
  return { name .. ':w', name .. ':u', name .. ':h', name .. ':k', name .. ':b' }
end, 4096)

-- The slot of this name at the node; made, and its fields asked for, where the request did not name it before.
local function counter_slot(node, name, window, since_ms, limit)
  local counters, fields = node.counters, node.fields
  local count = #counters
  for place = 1, count < FEW and count or 0 do
    if counters[place].name == name then return counters[place] end
  end
  if count >= FEW and counters[name] then return counters[name] end
  local is_rolling, carries, n = window and window[1] == ROLLING, limit and limit[6] > 0 and limit, #fields
  local names = counter_fields(name)
  local slot = {
    name = name, names = names, window = window, first = n, since = since_ms, carries = carries, is_rolling = is_rolling,
    start = false,
    reset = 0, begins = false, used = 0, held = 0, carried = 0, more_used = 0, more_held = 0, buckets = false,
  }
  counters[count + 1] = slot
  if count + 1 == FEW then
    for place = 1, FEW do counters[counters[place].name] = counters[place] end
  elseif count >= FEW then
    counters[name] = slot
  end
  fields[n + 1], fields[n + 2], fields[n + 3] = names[1], is_rolling and names[5] or names[2], names[3]
  if carries then fields[n + 4] = names[4] end
  return slot
end

local function read_counter(slot, values, at)
  local first, window = slot.first, slot.window
  slot.held = tonumber(values[first + 3]) or 0
  local stored_start = tonumber(values[first + 1])
  if slot.is_rolling then
    slot.start, slot.begins = slot.since, stored_start ~= slot.since
    rolling_acts.read(slot, values[first + 2], at)
    return
  end
  local used = tonumber(values[first + 2]) or 0
  slot.used = used
  if not window then return end
  if stored_start and stored_start > at and stored_start - at < CLOCK_STEP_MS then at = stored_start end
  local start, reset = window_at(window, at)
  if start and start < slot.since then start = slot.since end
  slot.start, slot.reset = start, reset or 0
  if start and start ~= stored_start then slot.used, slot.begins = 0, true end
  if start and slot.carries then
    slot.carried = carry_acts(slot, { start = stored_start, used = used, carried = tonumber(values[first + 4]) or 0 })
  end
end

-- Add the fields that the slot has changed. Units are written as sums that were checked below 2^53.
local function write_counter(slot, fields, at)
  local more_used, more_held = slot.more_used, slot.more_held
  if more_used == 0 and more_held == 0 then return end
  local n, names = #fields, slot.names
  if slot.is_rolling then
    fields[n + 1], fields[n + 2] = names[5], rolling_acts.pack(slot, at)
  else
    fields[n + 1], fields[n + 2] = names[2], slot.used + more_used
  end
  if more_held ~= 0 then
    fields[n + 3], fields[n + 4], n = names[3], slot.held + more_held, n + 2
  end
  if slot.begins then
    fields[n + 3], fields[n + 4], n = names[1], slot.start, n + 2
    if slot.carries then fields[n + 3], fields[n + 4] = names[4], slot.carried end
  end
end
