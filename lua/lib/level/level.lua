-- Budget levels: the customer, and the nodes of a path below it (lib/value/path.lua).
--
-- The customer's counters lie in the hash of counters, those of a node in the hash of that name, `/` and the node.
-- A node's hash also has `x`, until when anything in it counts (tenant's clock; 2^53 - 1: for ever), and `o`, how many open
-- holds it has; it expires when nothing counts and nothing is held.
--
-- A node has level (`customer`, or its name), key, budget (what the snapshot says, or false), and once it is open: fields and
-- values of its hash, counters and rates (slots), and what the request asks of it, in the order of the charges and flat:
-- uses {index, slot, limit, ...}, paced {index, slot, ...}, leases {index, field place, most, ...}, gauges
-- {index, field place, limits, ...} and caps {slot, cap, ...}. Who writes may set more_fields {name, value, ...} and more_holds.
--
-- A charge that is read here gets entitlement (or false), kind, tariffs, and prices (slots in the same order; or false).

local STATIC, GAUGE = 1, 3

-- What stands packed in a snapshot, taken apart.
local unpacked = memo(function(packed) return cmsgpack.unpack(packed) end, 1024)

-- Names of fields: of a feature; of a budget, for that node and for all of its kind; of the counter of a price.
local feature_field = memo(function(feature) return 'f:' .. feature end, 4096)
local budget_fields = memo(function(level)
  return { 'b:' .. level, 'b:' .. string.match(level, '(%l+):[^/]*$') .. ':*' }
end, 4096)
local price_name = memo(function(price_id) return '$' .. price_id end, 4096)

-- Read what the snapshot says of the nodes and the charges. Returns the status and the clock's offset; nil: no customer.
local function read_snapshot(snapshot_key, nodes, charges)
  local fields, n = { 'st', 'off', 'b:', nil, nil, nil }, 3
  for depth = 2, #nodes do
    local names = budget_fields(nodes[depth].level)
    fields[n + 1], fields[n + 2], n = names[1], names[2], n + 2
  end
  for index = 1, #charges do fields[n + index] = feature_field(charges[index].feature) end
  local values = redis.call('HMGET', snapshot_key, unpack(fields))
  if not values[1] then return nil end
  if values[3] then nodes[1].budget = unpacked(values[3]) end
  for depth = 2, #nodes do
    local packed = values[2 * depth] or values[2 * depth + 1]
    if packed then nodes[depth].budget = unpacked(packed) end
  end
  for index = 1, #charges do
    local charge, packed = charges[index], values[n + index]
    if packed then
      local entitlement = unpacked(packed)
      local kind = entitlement[1]
      charge.entitlement, charge.kind = entitlement, kind
      if kind == STATIC then charge.quantity = 0 else charge.tariffs = entitlement[5] end
    end
  end
  return values[1], tonumber(values[2])
end

-- Ask for what this guard needs to know of the charge.
local function ask_guard(node, index, charge, guard)
  local limits = guard[1]
  if guard[2][1] then pace_acts.ask(node, index, guard[2]) end
  if charge.kind == GAUGE then return end
  if guard[3] >= 0 and not charge.keeps_place then
    if node.leases == NONE then node.leases = {} end
    local leases, fields = node.leases, node.fields
    fields[#fields + 1] = charge.feature .. ':c'
    leases[#leases + 1], leases[#leases + 2], leases[#leases + 3] = index, #fields, guard[3]
  end
  if not limits[1] then return end
  if node.uses == NONE then node.uses = { nil, nil, nil } end
  local uses, n = node.uses, #node.uses
  for place = 1, #limits do
    local limit = limits[place]
    uses[n + 1], uses[n + 2], uses[n + 3] = index, counter_slot(node, limit[1], limit[4], limit[5], limit), limit
    n = n + 3
  end
end

-- Whether anything of these charges is counted at the customer.
local function is_counted(charges)
  for index = 1, #charges do
    local charge = charges[index]
    local guard = charge.entitlement and charge.entitlement[4]
    if charge.kind == GAUGE or charge.tariffs[1] then return true end
    if guard and (guard[1][1] or guard[2][1] or guard[3] >= 0) then return true end
  end
  return false
end

-- Ask for the node's part of all charges.
local function ask_node(node, charges, is_customer)
  local budget, fields = node.budget, NONE
  if not is_customer then
    fields = { 'x', 'o', nil, nil, nil, nil, nil, nil }
  elseif budget or is_counted(charges) then
    fields = { nil, nil, nil, nil, nil, nil, nil, nil }
  end
  if fields ~= NONE then node.fields, node.counters = fields, { nil, nil } end
  for index = 1, #charges do
    local charge = charges[index]
    local entitlement, tariffs = charge.entitlement, charge.tariffs
    if charge.kind ~= STATIC then
      local guard = budget and budget[1][charge.feature]
      if is_customer then guard = entitlement and entitlement[4] end
      if charge.kind == GAUGE then
        if node.gauges == NONE then node.gauges = {} end
        local gauges, n = node.gauges, #node.gauges
        fields[#fields + 1] = charge.feature .. ':g'
        gauges[n + 1], gauges[n + 2], gauges[n + 3] = index, #fields, guard and guard[1] or NONE
      end
      if guard then ask_guard(node, index, charge, guard) end
      if is_customer and tariffs[1] then
        local prices = { nil }
        for place = 1, #tariffs do
          prices[place] = counter_slot(node, price_name(tariffs[place][1]), tariffs[place][6], 0, false)
        end
        charge.prices = prices
      end
    end
  end
  if budget and budget[2][1] then
    local caps = {}
    for place, cap in ipairs(budget[2]) do
      caps[2 * place - 1], caps[2 * place] = counter_slot(node, cap[1], cap[5], cap[6], false), cap
    end
    node.caps = caps
  end
end

-- Open the nodes: read all that the charges ask of them, in one command for each.
local function open_levels(nodes, charges, at)
  for depth = 1, #nodes do
    local node = nodes[depth]
    ask_node(node, charges, depth == 1)
    local fields = node.fields
    if fields[1] then
      local values, counters = read_fields(node.key, fields), node.counters
      node.values = values
      for place = 1, #counters do read_counter(counters[place], values, at) end
      if node.rates[1] then pace_acts.read(node, at) end
    end
  end
end

-- Write what the slots of a node have gained or lost.
local function write_node(node, at, real_ms)
  local fields, counters = node.more_fields or { nil, nil, nil, nil, nil, nil, nil, nil }, node.counters
  for place = 1, #counters do write_counter(counters[place], fields, at) end
  if node.rates[1] then pace_acts.write(node, fields) end
  if node.kind then
    life_acts.write(node, fields, at, real_ms)
  elseif fields[1] then
    write_fields(node.key, fields)
  end
end

-- Write what all nodes have gained or lost: one HSET for each.
local function write_levels(nodes, at, real_ms)
  for depth = 1, #nodes do
    local node = nodes[depth]
    if node.fields[1] or node.more_fields then write_node(node, at, real_ms) end
  end
end
