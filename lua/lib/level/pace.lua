-- Rate limits: GCRA in its continuous form, exact in integers; and how many holds may be open at once.
--
-- A rate is {counter, units, per_ms, burst_units, counts}: `units` each `per_ms`, at most `burst_units` at once. The hash of a node
-- holds `<counter>:t`, `level at`: a level in unit * ms that one unit raises by per_ms and each millisecond lowers by `units`.
-- What would raise it above burst_units * per_ms is refused and costs nothing. An act counts once for each rate of
-- requests, whatever it names; for a rate of units each charge counts its quantity.
--
-- Example: 10 a second, 2 at once. Each unit raises the level by 1,000, each millisecond lowers it by 10, and 2,000 is the
-- most: after two at once the next one passes 100 ms later.
--
-- `<feature>:c` is how many open holds name the feature. A hold takes a place, a debit only wants one to be free.

-- The slot of this rate at the node, which asks for its field.
local function rate_slot(node, rate)
  if node.rates[rate[1]] then return node.rates[rate[1]] end
  local field = #node.fields + 1
  local slot = { name = rate[1], rate = rate, field = field, level = 0, since = 0, raised = 0, is_counted = false }
  node.rates[#node.rates + 1], node.rates[rate[1]], node.fields[field] = slot, slot, rate[1] .. ':t'
  return slot
end

-- Ask for the rates of a charge.
local function ask_rates(node, index, rates)
  if node.rates == NONE then node.rates, node.paced = {}, {} end
  local paced = node.paced
  for _, rate in ipairs(rates) do paced[#paced + 1], paced[#paced + 2] = index, rate_slot(node, rate) end
end

-- The levels as they are now. A clock that was put back lowers nothing.
local function read_rates(node, at)
  for _, slot in ipairs(node.rates) do
    local level, since = string.match(node.values[slot.field] or '0 0', '^(%d+) (%d+)$')
    level, since = tonumber(level), tonumber(since)
    slot.level, slot.since = math.max(0, level - math.max(0, at - since) * slot.rate[2]), math.max(at, since)
  end
end

-- Raise the level by these units; or false and in how many ms they would pass (0: never).
local function raise(slot, units)
  local rate = slot.rate
  if units > rate[4] then return false, 0 end
  local cost, room = units * rate[3], rate[4] * rate[3] - slot.level - slot.raised
  if cost > room and units > 0 then return false, math.ceil((cost - room) / rate[2]) end
  slot.raised = slot.raised + cost
  return true
end

-- Whether every charge passes every rate at every level.
local function fit_rates(decision, charges)
  for _, node in ipairs(decision.nodes) do
    for n = 1, #node.paced, 2 do
      local index, slot = node.paced[n], node.paced[n + 1]
      local units = charges[index].quantity
      if slot.rate[5] == 0 then
        units, slot.is_counted = slot.is_counted and 0 or 1, true
      end
      local passes, wait_ms = raise(slot, units)
      if not passes then
        if wait_ms > 0 then wait_ms = wait_ms + slot.since - decision.at end
        return refuse(decision, 'rate_limited', index, node, slot.name, wait_ms)
      end
    end
  end
  return true
end

-- Whether no feature has as many open holds as it may have, at any level.
local function fit_leases(decision)
  for _, node in ipairs(decision.nodes) do
    local leases = node.leases
    for n = 1, #leases, 3 do
      if (tonumber(node.values[leases[n + 1]]) or 0) >= leases[n + 2] then
        return refuse(decision, 'concurrency_limited', leases[n], node, node.fields[leases[n + 1]], 0)
      end
    end
  end
  return true
end

-- Add the fields that the rates have changed.
local function write_rates(node, fields)
  for _, slot in ipairs(node.rates) do
    if slot.raised > 0 then
      local n = #fields
      fields[n + 1] = slot.name .. ':t'
      fields[n + 2] = digits(slot.level + slot.raised) .. ' ' .. digits(slot.since)
    end
  end
end

return { ask = ask_rates, read = read_rates, fit = fit_rates, fit_leases = fit_leases, write = write_rates }
