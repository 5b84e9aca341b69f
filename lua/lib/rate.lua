-- Rate limits: GCRA in its continuous form, exact in integers.
--
-- A rate is {counter, units, per_ms, burst_units, counts}: `units` each `per_ms`, at most `burst_units` at once. The hash of a node
-- holds `<counter>:t`, `level at`: a level in unit * ms that one unit raises by per_ms and each millisecond lowers by `units`.
-- What would raise it above burst_units * per_ms is refused and costs nothing.
--
-- Example: 10 a second, 2 at once. Each unit raises the level by 1,000, each millisecond lowers it by 10, and 2,000 is the
-- most: after two at once the next one passes 100 ms later.

-- The slot of this rate at the node, which asks for its field.
local function rate_slot(node, rate)
  local slot = node.by_name[rate[1]]
  if slot then return slot end
  local n = #node.fields
  slot = { name = rate[1], rate = rate, field = n + 1, level = 0, since = 0, raised = 0, is_counted = false }
  node.by_name[rate[1]], node.rates[#node.rates + 1], node.fields[n + 1] = slot, slot, rate[1] .. ':t'
  return slot
end

-- The level as it is now. A clock that was put back lowers nothing.
local function read_rate(slot, values, at)
  local level, since = string.match(values[slot.field] or '', '^(%d+) (%d+)$')
  slot.since = at
  if not level then return end
  level, since = tonumber(level), tonumber(since)
  if since > at then
    slot.level, slot.since = level, since
  else
    slot.level = math.max(0, level - (at - since) * slot.rate[2])
  end
end

-- Raise the level by these units; or false and in how many ms they would pass (0: never).
local function raise(slot, units)
  local rate = slot.rate
  if units > rate[4] then return false, 0 end
  local cost, room = units * rate[3], rate[4] * rate[3] - slot.level - slot.raised
  if cost > room and units > 0 then return false, math.ceil((cost - room) / rate[2]) + slot.since end
  slot.raised = slot.raised + cost
  return true
end

-- Add the fields that the slots have changed.
local function write_rates(node, fields)
  for _, slot in ipairs(node.rates) do
    if slot.raised > 0 then
      local n = #fields
      fields[n + 1] = slot.name .. ':t'
      fields[n + 2] = digits(slot.level + slot.raised) .. ' ' .. digits(slot.since)
    end
  end
end
