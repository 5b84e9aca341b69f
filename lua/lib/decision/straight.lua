-- The straight way: one charge at the customer alone, for a feature whose terms are plain. That is what most requests are.
--
-- It allows what `decide` would allow, with the same reply, the same writes and the same entry, and looks at nothing that such
-- a charge does not have. It refuses nothing: whatever is not plainly allowed is left to `decide`, which knows every rule
-- and every reason, and nothing has been written then.
--
-- Plain terms have limits whose windows do not roll and carry nothing, and neither rates nor a bound on open holds; the first
-- price can be paid; the customer has no spend caps, and the wallet no grant for some features only.

-- The terms of a packed entitlement, if they are plain; else false. {limits, tariff, fields, order, outage_units}: a limit is
-- {units, ceiling, window, since_ms}; fields has start, used and held of each limit and then of the price.
local plain_terms = memo(function(packed)
  local entitlement = cmsgpack.unpack(packed)
  local kind, guard, tariffs = entitlement[1], entitlement[4], entitlement[5]
  local terms = { limits = {}, tariff = tariffs[1] or false, fields = {}, order = false, outage_units = entitlement[6] }
  local counters = {}
  if not entitlement[2] or kind == STATIC or kind == GAUGE or guard[2][1] or guard[3] >= 0 then return false end
  for place, limit in ipairs(guard[1]) do
    if limit[4][1] == ROLLING or limit[6] > 0 then return false end
    terms.limits[place], counters[place] = { limit[2], limit[3], limit[4], limit[5] }, limit[1]
  end
  if terms.tariff then
    counters[#counters + 1] = price_name(terms.tariff[1])
    terms.order = terms.tariff[7] and order_field(terms.tariff[2])
  end
  for _, counter in ipairs(counters) do
    local names, n = counter_fields(counter), #terms.fields
    terms.fields[n + 1], terms.fields[n + 2], terms.fields[n + 3] = names[1], names[2], names[3]
  end
  return terms
end, 1024)

-- What counts now in the counter whose three fields end at this place: its used and held units, the start and end of its
-- window, and whether that window begins; nil where there is none, or the clock was put back over its edge.
local function counted(values, place, window, since_ms, at)
  local stored, start, reset = tonumber(values[place - 2] or -1), window_at(window, at)
  if not start or stored > at then return nil end
  if start < since_ms then start = since_ms end
  local held = tonumber(values[place] or 0)
  if start ~= stored then return 0, held, start, reset, true end
  return tonumber(values[place - 1] or 0), held, start, reset, false
end

-- Take the cost out of the wallet's usable grants (not yet out of Redis). Returns what moved, grant by grant {field, nanos,
-- ...}, and as text; and what is left in the purse. Nil where it cannot be paid so simply.
local function taken(place, order, cost, at)
  local usable = usable_grants(redis.call('HGET', place.wallet, order), at)
  if usable.is_restricted or not usable.fields[1] then return nil end
  local values, moved, text, left, balance = read_fields(place.wallet, usable.fields), { nil, nil }, '', cost, 0
  for n = 1, #usable.fields do
    local nanos = tonumber(values[n] or 0)
    balance = balance + nanos
    if left > 0 and nanos > 0 then
      local part, count = nanos < left and nanos or left, #moved
      moved[count + 1], moved[count + 2], left = usable.fields[n], part, left - part
      text = (count == 0 and '' or text .. ' ') .. usable.grants[n] .. '=' .. digits(part)
    end
  end
  if left > 0 then return nil end
  return moved, text, balance - cost
end

-- The reply to a charge that is plainly allowed, once all of it is written; nil where nothing was done.
local function straight_debit(charge, place)
  local snapshot = redis.call('HMGET', place.snapshot, 'st', 'off', 'b:', feature_field(charge.feature))
  local terms = snapshot[1] == 'active' and not snapshot[3] and snapshot[4] and plain_terms(snapshot[4])
  if not terms then return nil end
  local at, quantity, limits, tariff = place.real_ms + tonumber(snapshot[2]), charge.quantity, terms.limits, terms.tariff
  local values = terms.fields[1] and redis.call('HMGET', place.counters, unpack(terms.fields)) or NONE
  local fields, n, most, remaining, until_ms = { nil, nil, nil, nil }, 0, -1, -1, 0
  for index = 1, #limits do
    local limit = limits[index]
    local used, held, start, reset, begins = counted(values, 3 * index, limit[3], limit[4], at)
    local units = used and used + held + quantity
    if not units or units > MAX_EXACT or limit[2] >= 0 and units > limit[2] then return nil end
    local left = units < limit[1] and limit[1] - units or 0
    if most < 0 or left < remaining then most, remaining, until_ms = limit[1], left, reset end
    fields[n + 1], fields[n + 2], n = terms.fields[3 * index - 1], used + quantity, n + 2
    if begins then fields[n + 1], fields[n + 2], n = terms.fields[3 * index - 2], start, n + 2 end
  end
  local cost, charged, balance, moved, text, currency = 0, 0, 0, NONE, '', ''
  if tariff then
    local last = #terms.fields
    local used, held, start, _, begins = counted(values, last, tariff[6], 0, at)
    if not used or used + held + quantity > MAX_EXACT then return nil end
    cost, currency = debit_nanos(tariff, used, quantity), tariff[2]
    if not cost then return nil end
    if terms.order then
      moved, text, balance = taken(place, terms.order, cost, at)
      if not moved then return nil end
      charged = cost
    end
    fields[n + 1], fields[n + 2], n = terms.fields[last - 1], used + quantity, n + 2
    if begins then fields[n + 1], fields[n + 2] = terms.fields[last - 2], start end
  end
  redis.call('XADD', place.stream, '*', 'k', 'debit', 'b', place.body, 'at', at, 'q', quantity, 'c', charged, 'u', 0,
    's', cost, 'm', text, 'w', tariff and currency or '-', 'e', place.epoch)
  for part = 1, #moved, 2 do redis.call('HINCRBY', place.wallet, moved[part], -moved[part + 1]) end
  if fields[1] then redis.call('HSET', place.counters, unpack(fields)) end
  return {
    'allowed', 0, 0, '', '', at, currency, cost, balance, 0, '', 0, '', most, remaining, until_ms, cost, '', currency,
    terms.outage_units,
  }
end

return straight_debit
