-- Budget levels: the customer, and the nodes of a path below it (lib/path.lua).
--
-- The customer's counters lie in the hash of counters, those of a node in the hash of that name, `/` and the node.
-- A node's hash also has `x`, until when anything in it counts (tenant's clock; 2^53 - 1: for ever), and `o`, how many open
-- holds it has; it expires when nothing counts and nothing is held.
--
-- A node has level (`customer`, or its name), key, budget (what the snapshot says, or nil), and once it is open: fields and values
-- of its hash, by_name, counters, rates (slots), and what the request asks of it, in the order of the charges and flat:
-- uses {index, slot, limit, ...}, paced {index, slot, ...}, leases {index, field place, most, ...}, gauges
-- {index, field place, limits, ...} and caps {slot, cap, ...}.
--
-- A charge that is read here gets entitlement (or nil), tariffs and prices (slots in the same order), guard and is_gauge.

local NO_TARIFFS, HOUR_MS = {}, 3600000

-- Read what the snapshot says of the nodes and the charges. Returns the status and the clock's offset; nil: no customer.
local function read_snapshot(snapshot_key, nodes, charges)
  local fields, n = { 'st', 'off', 'b:' }, 3
  for depth = 2, #nodes do
    local node = nodes[depth]
    fields[n + 1], fields[n + 2], n = 'b:' .. node.level, 'b:' .. node.kind .. ':*', n + 2
  end
  for index, charge in ipairs(charges) do fields[n + index] = 'f:' .. charge.feature end
  local values = redis.call('HMGET', snapshot_key, unpack(fields))
  if not values[1] then return nil end
  for depth, node in ipairs(nodes) do
    local packed = depth == 1 and values[3] or depth > 1 and (values[2 * depth] or values[2 * depth + 1])
    if packed then node.budget = cmsgpack.unpack(packed) end
  end
  for index, charge in ipairs(charges) do
    local packed = values[n + index]
    local entitlement = packed and cmsgpack.unpack(packed)
    charge.tariffs = NO_TARIFFS
    if entitlement then
      charge.entitlement = entitlement
      if entitlement[1] == STATIC then
        charge.is_static, charge.quantity = true, 0
      else
        charge.guard, charge.tariffs, charge.is_gauge = entitlement[4], entitlement[5], entitlement[1] == GAUGE
      end
    end
  end
  return values[1], tonumber(values[2])
end

-- Ask for what this guard needs to know of the charge.
local function ask_guard(node, index, charge, guard)
  local fields, feature = node.fields, charge.feature
  for _, rate in ipairs(guard[2]) do
    local paced = node.paced
    paced[#paced + 1], paced[#paced + 2] = index, rate_slot(node, rate)
  end
  if charge.is_gauge then return end
  if guard[3] >= 0 then
    local leases = node.leases
    fields[#fields + 1] = feature .. ':c'
    leases[#leases + 1], leases[#leases + 2], leases[#leases + 3] = index, #fields, guard[3]
  end
  local uses = node.uses
  for _, limit in ipairs(guard[1]) do
    local n = #uses
    uses[n + 1], uses[n + 2], uses[n + 3] = index, counter_slot(node, limit[1], limit[4], limit[5], limit), limit
  end
end

-- Ask for the node's part of all charges.
local function ask_node(node, charges, is_customer)
  local fields, budget = {}, node.budget
  node.fields, node.by_name, node.counters, node.rates = fields, {}, {}, {}
  node.uses, node.paced, node.leases, node.gauges, node.caps = {}, {}, {}, {}, {}
  if not is_customer then fields[1], fields[2] = 'x', 'o' end
  local guards = budget and budget[1]
  for index, charge in ipairs(charges) do
    if not charge.is_static then
      local guard = guards and guards[charge.feature]
      if is_customer then guard = charge.guard end
      if charge.is_gauge then
        local gauges, n = node.gauges, #node.gauges
        fields[#fields + 1] = charge.feature .. ':g'
        gauges[n + 1], gauges[n + 2], gauges[n + 3] = index, #fields, guard and guard[1] or NO_TARIFFS
      end
      if guard then ask_guard(node, index, charge, guard) end
      if is_customer and charge.tariffs[1] then
        local prices = {}
        for place, tariff in ipairs(charge.tariffs) do
          prices[place] = counter_slot(node, '$' .. tariff[1], tariff[6], 0)
        end
        charge.prices = prices
      end
    end
  end
  if budget then
    for _, cap in ipairs(budget[2]) do
      local caps, n = node.caps, #node.caps
      caps[n + 1], caps[n + 2] = counter_slot(node, cap[1], cap[5], cap[6]), cap
    end
  end
end

-- Open the nodes: read all that the charges ask of them, in one command for each.
local function open_levels(nodes, charges, at)
  for depth, node in ipairs(nodes) do
    ask_node(node, charges, depth == 1)
    local values = NO_TARIFFS
    if #node.fields > 0 then values = redis.call('HMGET', node.key, unpack(node.fields)) end
    node.values = values
    for _, slot in ipairs(node.counters) do read_counter(slot, values, at) end
    for _, slot in ipairs(node.rates) do read_rate(slot, values, at) end
  end
end

-- Until when something that this act has written in the node counts.
local function latest_of(node, at)
  local latest = 0
  for _, slot in ipairs(node.counters) do
    if slot.more_used ~= 0 or slot.more_held ~= 0 then latest = math.max(latest, counts_until(slot, at)) end
  end
  for _, slot in ipairs(node.rates) do
    if slot.raised > 0 then
      latest = math.max(latest, slot.since + math.ceil((slot.level + slot.raised) / slot.rate[2]))
    end
  end
  return node.keeps_level and NEVER or latest
end

-- Let the node's hash live as long as something in it counts or is held: to the full hour, so that it is seldom told anew.
local function write_life(node, fields, at, real_ms)
  local known, latest = tonumber(node.values[1]) or 0, latest_of(node, at)
  local holds = tonumber(node.values[2]) or 0
  local left = holds + (node.more_holds or 0)
  if latest < NEVER then latest = math.ceil(latest / HOUR_MS) * HOUR_MS end
  local n = #fields
  if latest > known then fields[n + 1], fields[n + 2], n = 'x', digits(latest), n + 2 end
  if left ~= holds then fields[n + 1], fields[n + 2] = 'o', digits(left) end
  latest = math.max(latest, known)
  if #fields == 0 then return end
  if left == 0 and latest <= at then
    redis.call('DEL', node.key)
    return
  end
  redis.call('HSET', node.key, unpack(fields))
  if left > 0 or latest >= NEVER then
    if holds == 0 and known < NEVER then redis.call('PERSIST', node.key) end
  elseif latest > known or holds > 0 then
    redis.call('PEXPIREAT', node.key, digits(latest - at + real_ms))
  end
end

-- Write what the slots of all nodes have gained or lost: one HSET for each. A node may have more_fields to be written too.
local function write_levels(nodes, at, real_ms)
  for depth, node in ipairs(nodes) do
    local fields = node.more_fields or {}
    for _, slot in ipairs(node.counters) do write_counter(slot, fields, at) end
    write_rates(node, fields)
    if depth > 1 then
      write_life(node, fields, at, real_ms)
    elseif #fields > 0 then
      redis.call('HSET', node.key, unpack(fields))
    end
  end
end
