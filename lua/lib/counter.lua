-- Used and held units of a customer's features, and how far each price has come in its billing period.
--
-- The hash of counters has `<feature>:w` start of the window that counts now, `<feature>:u` used units in it,
-- `<feature>:h` units of all open holds whatever the window they began in; `$<price>:w`, `$<price>:u` the same of a price.
-- A window that is over is not cleared when it ends: the next act finds another start and counts from zero. One name
-- has one slot, so what a request names twice is seen by its second charge.

local MAX_CHARGES = 100

local function slot_of(counters, fields, name, window)
  local slot = counters.by_name[name]
  if not slot then
    slot = {
      name = name, window = window, first_field = #fields + 1, is_feature = false, start = false, reset = 0,
      begins = false, used = 0, held = 0, more_used = 0, more_held = 0, planned = 0,
    }
    counters.by_name[name], counters[#counters + 1] = slot, slot
    fields[#fields + 1], fields[#fields + 2] = name .. ':w', name .. ':u'
  end
  return slot
end

-- Give each charge its slots and read them. A charge has feature, window (nil: none is known, count on) and tariff or
-- nil; a static charge is not counted.
local function open_counters(counters_key, charges, at)
  local counters, fields = { key = counters_key, by_name = {} }, {}
  for _, charge in ipairs(charges) do
    if not charge.is_static then
      local known = #counters
      charge.slot = slot_of(counters, fields, charge.feature, charge.window)
      if #counters > known then
        charge.slot.is_feature, fields[#fields + 1] = true, charge.feature .. ':h'
      end
    end
    if charge.tariff then charge.price = slot_of(counters, fields, '$' .. charge.tariff[1], charge.tariff[6]) end
  end
  if #fields == 0 then return counters end
  local values = redis.call('HMGET', counters_key, unpack(fields))
  for _, slot in ipairs(counters) do
    local first = slot.first_field
    slot.used = tonumber(values[first + 1]) or 0
    slot.held = slot.is_feature and tonumber(values[first + 2]) or 0
    if slot.window then slot.start, slot.reset = window_at(slot.window, at) end
    if slot.start and slot.start ~= tonumber(values[first]) then slot.used, slot.begins = 0, true end
  end
  return counters
end

-- Write what the slots have gained or lost, in one command. Units are written as sums that were checked below 2^53.
local function write_counters(counters)
  local fields = {}
  for _, slot in ipairs(counters) do
    local name, n = slot.name, #fields
    if slot.more_used ~= 0 or slot.more_held ~= 0 then
      fields[n + 1], fields[n + 2] = name .. ':u', digits(slot.used + slot.more_used)
      if slot.more_held ~= 0 then
        fields[n + 3], fields[n + 4] = name .. ':h', digits(slot.held + slot.more_held)
      end
      if slot.begins then
        n = #fields
        fields[n + 1], fields[n + 2] = name .. ':w', digits(slot.start)
      end
    end
  end
  if #fields > 0 then redis.call('HSET', counters.key, unpack(fields)) end
end
