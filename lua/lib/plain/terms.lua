-- Plain terms: what most requests meet.
--
-- An entitlement is plain that is enabled and no gauge and no static value; so is a guard whose limits do not roll and carry
-- nothing, with neither rates nor a bound on open holds, and a spend cap that does not roll. The first price pays, and the customer
-- itself has no budget.
--
-- A counter is {units, ceiling, window, since_ms, fields of start, of used and of held units, name}; of a spend cap the first is
-- its currency. Terms have limits, fields (three of each counter, the price last), tariff, price, order, outage_units and plan;
-- those of a node limits, caps and fields (behind the two of the node itself).

local NODE_FIELDS = { 'x', 'o' }

-- A counter of this name, whose fields are added to a list.
local function plain_counter(name, first, ceiling, window, since_ms, fields)
  local names, n = counter_fields(name), #fields
  fields[n + 1], fields[n + 2], fields[n + 3] = names[1], names[2], names[3]
  return { first, ceiling, window, since_ms, names[1], names[2], names[3], name }
end

-- The limits of a guard, if it is plain, their fields added to a list; else nil.
local function plain_limits(guard, fields)
  if guard[2][1] or guard[3] >= 0 then return nil end
  local limits = {}
  for place, limit in ipairs(guard[1]) do
    if limit[4][1] == ROLLING or limit[6] > 0 then return nil end
    limits[place] = plain_counter(limit[1], limit[2], limit[3], limit[4], limit[5], fields)
  end
  return limits
end

-- The terms of a packed entitlement, if they are plain; else false.
local plain_terms = memo(function(packed)
  local entitlement = cmsgpack.unpack(packed)
  local kind, tariff, fields = entitlement[1], entitlement[5][1] or false, {}
  if not entitlement[2] or kind == STATIC or kind == GAUGE then return false end
  local limits = plain_limits(entitlement[4], fields)
  return limits and {
    limits = limits, fields = fields, tariff = tariff, outage_units = entitlement[6], plan = entitlement[9] or '',
    price = tariff and plain_counter(price_name(tariff[1]), false, -1, tariff[6], 0, fields),
    order = tariff and tariff[7] and order_field(tariff[2]),
  } or false
end, 1024)

-- What a guard and spend caps of a node count: {limits, caps, fields}; NONE where they count nothing, false where not plain.
local function node_terms(guard, caps)
  local fields = { unpack(NODE_FIELDS) }
  local terms = { limits = guard and plain_limits(guard, fields) or NONE, caps = {}, fields = fields }
  if guard and terms.limits == NONE then return false end
  for place, cap in ipairs(caps) do
    if cap[5][1] == ROLLING then return false end
    terms.caps[place] = plain_counter(cap[1], cap[2], cap[4], cap[5], cap[6], fields)
  end
  return #fields > #NODE_FIELDS and terms or NONE
end

-- The terms of a packed budget: of each feature that it guards, and of all others.
local plain_budget = memo(function(packed)
  local budget = cmsgpack.unpack(packed)
  local guarded = {}
  for feature, guard in pairs(budget[1]) do guarded[feature] = node_terms(guard, budget[2]) end
  return { guarded = guarded, others = node_terms(nil, budget[2]) }
end, 1024)

-- The budgets that a path asks for, as fields of a snapshot.
local path_budgets = memo(function(path)
  local fields = {}
  for _, name in ipairs(path_names(path)) do
    local names = budget_fields(name[1])
    fields[#fields + 1], fields[#fields + 2] = names[1], names[2]
  end
  return fields
end, 4096)

-- What counts now in the counter whose three values end at this place: its used and held units, the start and end of its
-- window, and whether that window begins; nil where there is none, or the clock was put back over its edge.
local function counted(values, place, counter, at)
  local stored, start, reset = tonumber(values[place - 2] or -1), window_at(counter[3], at)
  if not start or stored > at then return nil end
  if start < counter[4] then start = counter[4] end
  local held = tonumber(values[place] or 0)
  if start ~= stored then return 0, held, start, reset, true end
  return tonumber(values[place - 1] or 0), held, start, reset, false
end

-- Add what a counter will hold to the fields to be written.
local function put_units(fields, counter, used, held, start)
  local n = #fields
  fields[n + 1], fields[n + 2] = counter[6], used
  if held then fields[n + 3], fields[n + 4], n = counter[7], held, n + 2 end
  if start then fields[n + 3], fields[n + 4] = counter[5], start end
end

-- What a snapshot says of a feature and the nodes of a path. Returns the terms, nil where they are not plain; and all values.
local function read_plain(snapshot_key, feature, path)
  local budgets = path == '' and NONE or path_budgets(path)
  local values = redis.call('HMGET', snapshot_key, 'st', 'off', 'b:', feature_field(feature), unpack(budgets))
  return values[1] and not values[3] and values[4] and plain_terms(values[4]) or nil, values
end

-- The terms of the feature at the node of this depth below the customer; NONE where nothing counts there, false where they are
-- not plain.
local function plain_node(values, depth, feature)
  local packed = values[2 * depth + 3] or values[2 * depth + 4]
  if not packed then return NONE end
  local budget = plain_budget(packed)
  local terms = budget.guarded[feature]
  return terms == nil and budget.others or terms
end

return { read = read_plain, node = plain_node, counted = counted, put_units = put_units }
