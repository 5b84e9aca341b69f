-- The straight way to end a hold that has one charge on plain terms (lib/plain/terms.lua), whose cost is not above what it set
-- aside: with the same answer, the same writes and the same entry as on the long way, in fewer steps. Whatever is not so plain
-- is left to the long way, and nothing has been written then.
--
-- The hold's leases must be just those that the terms of now would list; after a change of plan they may be others.

-- Take back the next lease, which is in this counter and of this measure, and count what is used. Returns until when it counts;
-- nil where the next lease is another, or there is no room.
local function end_lease(ending, counter, values, place, measure, more, fields)
  local leases, n = ending.leases, ending.next
  if leases[n] ~= ending.depth or leases[n + 1] ~= counter[8] or leases[n + 3] ~= measure then return nil end
  local amount = leases[n + 4]
  local used, held, start, reset, begins = plain_acts.counted(values, place, counter, ending.at)
  if not used or used + more > MAX_EXACT then return nil end
  ending.next = n + 5
  if more == 0 and amount == 0 then return 0 end
  plain_acts.put_units(fields, counter, used + more, amount ~= 0 and held - amount, begins and start)
  return counter[3][1] == 0 and MAX_EXACT or reset
end

-- Take back the leases under limits. Returns until when the last of them counts; nil as above.
local function end_limits(ending, limits, values, first, fields)
  local latest = 0
  for index = 1, #limits do
    local till = end_lease(ending, limits[index], values, first + 3 * index, 1, ending.quantity, fields)
    if not till then return nil end
    if till > latest then latest = till end
  end
  return latest
end

-- Take back what is leased at a node. False as above, or where its hash would live longer, or go.
local function end_node(ending, key, terms)
  local values, fields = redis.call('HMGET', key, unpack(terms.fields)), { nil, nil, nil, nil, nil, nil }
  local from, first = ending.next, 2 + 3 * #terms.limits
  local latest = end_limits(ending, terms.limits, values, 2, fields)
  if not latest then return false end
  for index = 1, #terms.caps do
    local cap = terms.caps[index]
    if cap[1] == ending.currency then
      local till = end_lease(ending, cap, values, first + 3 * index, 2, ending.cost, fields)
      if not till then return false end
      if till > latest then latest = till end
    end
  end
  if ending.next == from then return true end
  local known, left = tonumber(values[1] or 0), tonumber(values[2] or 0) - 1
  if left < 0 or life_acts.told(latest) > known or left == 0 and known <= ending.at then return false end
  local nodes, n = ending.nodes, #ending.nodes
  fields[#fields + 1], fields[#fields + 2] = 'o', left
  nodes[n + 1], nodes[n + 2] = key, fields
  nodes[n + 3] = left == 0 and known < MAX_EXACT and known - ending.at + ending.real_ms
  return true
end

-- Take back all leases, and price what was used. False as above.
local function end_leases(ending, hold, terms, snapshot)
  local fields = { nil, nil, nil, nil, nil, nil }
  local values = terms.fields[1] and redis.call('HMGET', hold.counters, unpack(terms.fields)) or NONE
  if terms.price then
    local place = #terms.fields
    local used = plain_acts.counted(values, place, terms.price, ending.at)
    ending.cost = used and used + ending.quantity <= MAX_EXACT and debit_nanos(terms.tariff, used, ending.quantity)
    if not ending.cost then return false end
    if not end_lease(ending, terms.price, values, place, 1, ending.quantity, fields) then return false end
  end
  if not end_limits(ending, terms.limits, values, 0, fields) then return false end
  local names = hold.path == '' and NONE or path_names(hold.path)
  for depth = 1, #names do
    local at_node = plain_acts.node(snapshot, depth, ending.feature)
    ending.depth = depth + 1
    if not at_node then return false end
    if at_node ~= NONE and not end_node(ending, hold.counters .. '/' .. names[depth][1], at_node) then return false end
  end
  ending.fields = fields
  return ending.next == #ending.leases + 1
end

-- What the wallet has for the charge, with what is given back; nil where some of it is for some features only.
local function balance_after(hold, terms, at, grant_id, unused)
  local usable = usable_grants(redis.call('HGET', hold.wallet, terms.order), at)
  if usable.is_restricted then return nil end
  local values, balance = usable.fields[1] and read_fields(hold.wallet, usable.fields) or NONE, 0
  for place = 1, #usable.fields do
    balance = balance + tonumber(values[place] or 0)
    if usable.grants[place] == grant_id then balance = balance + unused end
  end
  return balance
end

local function write_end(ending, hold, place, grant_id, held)
  local used, nodes = ending.charged, ending.nodes
  if ending.quantity > 0 then
    redis.call('XADD', place.stream, '*', 'k', 'settle', 'b', ending.body, 'at', ending.at, 'q', ending.quantity, 'c', used, 'u', 0,
      's', ending.cost, 'm', used > 0 and grant_id .. '=' .. digits(used) or '', 'w', ending.currency, 'e', place.epoch)
  end
  if held > 0 then redis.call('HINCRBY', hold.wallet, 'h:' .. grant_id, -held) end
  if held > used then redis.call('HINCRBY', hold.wallet, 'r:' .. grant_id, held - used) end
  if ending.fields[1] then redis.call('HSET', hold.counters, unpack(ending.fields)) end
  for n = 1, #nodes, 3 do
    redis.call('HSET', nodes[n], unpack(nodes[n + 1]))
    if nodes[n + 2] then redis.call('PEXPIREAT', nodes[n], nodes[n + 2]) end
  end
end

-- End an open hold that is not due at this quantity of its one charge. Returns the answer; nil where nothing was done.
local function straight_end(hold, place, feature, quantity, terms_of_end)
  local kept = hold.charges[1]
  if hold.charges[2] or hold.would ~= '' or kept[1] ~= feature then return nil end
  local promised, grant_id, held = kept[5], kept[6][1], kept[6][2] or 0
  redis.call('ZSCORE', place.shard_holds, hold.id)
  redis.call('EXISTS', hold.customer_holds)
  local terms, snapshot = plain_acts.read(hold.snapshot, feature, hold.path)
  if not terms or kept[6][3] or not terms.tariff ~= not promised then return nil end
  if promised and (terms.tariff[2] ~= kept[4] or terms.tariff[7] ~= promised[7] or hold.currency ~= kept[4]) then return nil end
  local at = place.real_ms + tonumber(snapshot[2])
  local ending = {
    at = at, real_ms = place.real_ms, feature = feature, quantity = quantity, currency = kept[4], cost = 0, charged = 0,
    leases = hold.leases, next = 1, depth = 1, fields = NONE, nodes = { nil, nil, nil }, body = terms_of_end.body or hold.body,
  }
  if not end_leases(ending, hold, terms, snapshot) then return nil end
  local balance = 0
  if terms.order then
    ending.charged = ending.cost
    balance = ending.cost <= held and balance_after(hold, terms, at, grant_id, held - ending.cost)
    if not balance then return nil end
  end
  write_end(ending, hold, place, grant_id, held)
  local answer = {
    terms_of_end.outcome, 0, at, hold.currency, ending.charged, held - ending.charged, 0, balance,
  }
  hold_acts.write_end(hold, place, answer, terms_of_end)
  return answer
end

return straight_end
