-- The walk of one charge on plain terms: all that bounds it is looked at, from the customer down its path, and nothing written.
--
-- It finds what is plainly allowed, as `decide` would, and nothing else: where it is in doubt there is no walk, and `decide` knows
-- every rule and every reason. The wallet must have no grant for some features only, and a node's hash need not live longer.
--
-- A walk has at, terms, cost, currency (`-` none), balance, most, remaining and until_ms (of the tightest limit), usable (grants)
-- and parts {place among them, nanos, ...}, the customer's fields to write, and nodes, of each that counts something, flat: {key,
-- fields, terms, depth, whether it has its first hold, ...}.

-- Count so many more in a counter, used or held. Returns until when it counts and how many units it has then; nil: no room.
local function put_more(walk, counter, values, place, more, fields)
  local used, held, start, reset, begins = plain_acts.counted(values, place, counter, walk.at)
  local units = used and used + held + more
  if not units or units > MAX_EXACT or more > 0 and counter[2] >= 0 and units > counter[2] then return nil end
  if more > 0 then
    if walk.as_hold then
      plain_acts.put_units(fields, counter, used, held + more, begins and start)
    else
      plain_acts.put_units(fields, counter, used + more, false, begins and start)
    end
  end
  return counter[3][1] == 0 and MAX_EXACT or reset, units, reset
end

-- Count the charge under limits. Returns until when the last of them counts; nil: no room.
local function walk_limits(walk, limits, values, first, fields)
  local latest = 0
  for index = 1, #limits do
    local limit = limits[index]
    local till, units, reset = put_more(walk, limit, values, first + 3 * index, walk.quantity, fields)
    if not till then return nil end
    if till > latest then latest = till end
    local left = units < limit[1] and limit[1] - units or 0
    if walk.most < 0 or left < walk.remaining then walk.most, walk.remaining, walk.until_ms = limit[1], left, reset end
  end
  return latest
end

-- Count the charge at a node. False: no room, or its hash would live longer than it is known to.
local function walk_node(walk, key, depth, terms)
  local values, fields = redis.call('HMGET', key, unpack(terms.fields)), { nil, nil, nil, nil }
  local latest = walk_limits(walk, terms.limits, values, 2, fields)
  if not latest then return false end
  local is_listed, first = terms.limits[1], 2 + 3 * #terms.limits
  for index = 1, #terms.caps do
    local cap = terms.caps[index]
    if cap[1] == walk.currency then
      local till = put_more(walk, cap, values, first + 3 * index, walk.cost, fields)
      if not till then return false end
      is_listed = true
      if walk.cost > 0 and till > latest then latest = till end
    end
  end
  local known = tonumber(values[1] or 0)
  if life_acts.told(latest) > known then return false end
  local is_first = false
  if walk.as_hold and is_listed then
    local holds, n = tonumber(values[2] or 0), #fields
    fields[n + 1], fields[n + 2], is_first = 'o', holds + 1, holds == 0 and known < MAX_EXACT
  end
  if fields[1] then
    local nodes = walk.nodes
    local n = #nodes
    nodes[n + 1], nodes[n + 2], nodes[n + 3], nodes[n + 4], nodes[n + 5] = key, fields, terms, depth, is_first
  end
  return true
end

-- Take what the walk costs, or the walks together, out of the wallet's usable grants (not yet out of Redis). False where it cannot
-- be paid so simply.
local function pay_walk(walk, wallet_key, cost)
  if not walk.terms.order then return true end
  local usable = usable_grants(redis.call('HGET', wallet_key, walk.terms.order), walk.at)
  if usable.is_restricted or not usable.fields[1] then return false end
  local values, parts, left, balance = read_fields(wallet_key, usable.fields), { nil, nil }, cost, 0
  for place = 1, #usable.fields do
    local nanos = tonumber(values[place] or 0)
    balance = balance + nanos
    if left > 0 and nanos > 0 then
      local part, n = nanos < left and nanos or left, #parts
      parts[n + 1], parts[n + 2], left = place, part, left - part
    end
  end
  walk.usable, walk.parts, walk.balance = usable, parts, balance - cost
  return left == 0
end

-- The walk of one charge, used or held, if it is plainly allowed by all but the wallet; else nil. `keys` are those of consume, record and hold.
local function walk_of(keys, feature, quantity, path, real_ms, as_hold)
  local terms, snapshot = plain_acts.read(keys[2], feature, path)
  if not terms or snapshot[1] ~= 'active' then return nil end
  local tariff, fields, values = terms.tariff, { nil, nil, nil, nil }, NONE
  local walk = {
    at = real_ms + tonumber(snapshot[2]), terms = terms, quantity = quantity, as_hold = as_hold, cost = 0, currency = '-',
    balance = 0, most = -1, remaining = -1, until_ms = 0, usable = false, parts = NONE, fields = fields, nodes = NONE,
  }
  if terms.fields[1] then values = redis.call('HMGET', keys[3], unpack(terms.fields)) end
  if not walk_limits(walk, terms.limits, values, 0, fields) then return nil end
  if tariff then
    local place = #terms.fields
    local used, held, start, _, begins = plain_acts.counted(values, place, terms.price, walk.at)
    if not used or used + held + quantity > MAX_EXACT then return nil end
    walk.currency = tariff[2]
    if as_hold then
      walk.cost = reserve_nanos(tariff, used + held, quantity)
      plain_acts.put_units(fields, terms.price, used, held + quantity, begins and start)
    else
      walk.cost = debit_nanos(tariff, used, quantity)
      plain_acts.put_units(fields, terms.price, used + quantity, false, begins and start)
    end
    if not walk.cost then return nil end
  end
  if path ~= '' then
    local names = path_names(path)
    walk.nodes = { nil, nil, nil, nil, nil }
    for depth = 1, #names do
      local at_node = plain_acts.node(snapshot, depth, feature)
      if not at_node then return nil end
      if at_node ~= NONE and not walk_node(walk, keys[3] .. '/' .. names[depth][1], depth + 1, at_node) then return nil end
    end
  end
  return walk
end

-- What the walk takes of its grants, as text: `grant=nanos grant=nanos`.
local function moved_text(walk)
  local usable, parts, text = walk.usable, walk.parts, ''
  for n = 1, #parts, 2 do
    text = (n == 1 and '' or text .. ' ') .. usable.grants[parts[n]] .. '=' .. digits(parts[n + 1])
  end
  return text
end

-- Write what was counted on the walk.
local function write_walk(walk, counters_key)
  local fields, nodes = walk.fields, walk.nodes
  if fields[1] then redis.call('HSET', counters_key, unpack(fields)) end
  for n = 1, #nodes, 5 do
    redis.call('HSET', nodes[n], unpack(nodes[n + 1]))
    if nodes[n + 4] then redis.call('PERSIST', nodes[n]) end
  end
end

-- The reply to a charge that was allowed, packed: as `reply_of` tells it.
local function reply_of_walk(walk, deadline_ms, hold_id)
  local currency, cost = walk.terms.tariff and walk.currency or '', walk.cost
  return '\220\000\021' .. cmsgpack.pack('allowed', 0, 0, '', '', walk.at, currency, cost, walk.balance, deadline_ms, hold_id, 0,
    '', walk.most, walk.remaining, walk.until_ms, cost, '', currency, walk.terms.outage_units, walk.terms.plan)
end

return { of = walk_of, pay = pay_walk, moved = moved_text, write = write_walk, reply = reply_of_walk }
