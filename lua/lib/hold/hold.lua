-- What becomes of a hold: charged in part while it is open, and then its one end: settled, released or expired.
--
-- What an open hold keeps is told in lib/hold/placing.lua. After its end only the answer is left, and for a stated time; a hold
-- that expired uncharged keeps for a day what a late settlement needs, which charges anew and is its last word. It also
-- keeps the epoch: in a shard that was built anew nobody knows whether it was charged in between, so it stays expired.
--
-- All of these are one act: charge some quantities. A release charges none, an expiry none or as held, a part leaves the rest
-- held. The price is the snapshot's of now, as the invoice will have it; where the feature lost its price in between, what was
-- promised holds. Each charge is paid from what it had set aside, in the order of taking, so that what is not used goes back
-- in the reverse order; what it lacks is taken from the wallet, which by then has what the other charges gave back.
--
-- A hold that shadow mode placed empty charges nothing and appends an entry of kind `shadow`. Under the hold's body each
-- entry but that of the end has a number `n`, so that no two of them are one event.
--
-- A place is where it happens: {stream, shard_holds, epoch, real_ms}.

local DAY_MS = 86400000

-- The hold, or nil.
local function read_hold(hold_key)
  local packed = redis.call('GET', hold_key)
  if not packed then return nil end
  local hold = cmsgpack.unpack(packed)
  hold.key = hold_key
  return hold
end

-- Write an open hold that has changed.
local function write_hold(hold)
  local key = hold.key
  hold.key = nil
  redis.call('SET', key, cmsgpack.pack(hold))
  hold.key = key
end

local function is_due(hold, real_ms)
  return hold.deadline_ms <= real_ms
end

-- The charges of a hold at their held quantities, or at zero. One that has ended holds nothing for them.
local function held_charges(hold, is_unused)
  local charges, is_open = {}, hold.state == 'open'
  for index, kept in ipairs(hold.charges) do
    charges[index] = {
      feature = kept[1], quantity = is_unused and 0 or kept[2], held_currency = kept[4], promised = kept[5],
      held_parts = is_open and kept[6] or NONE, entitlement = false, kind = -1, tariffs = NONE, prices = false,
      tariff = false, currency = '-', rated = 0, charged = 0, uncollected = 0, released = 0, lack = 0, rest = NONE,
      is_named = false,
    }
  end
  return charges
end

-- Give the charges the quantities behind ARGV[position]. A mention of a feature means the first charge of that name that is
-- not named yet. Returns the charges that were named, in that order, and their places; nil where there is no such charge.
local function name_charges(charges, ARGV, position, count)
  local named, places = {}, {}
  for mention = 1, count do
    local feature = ARGV[position + 2 * mention - 1]
    for place, charge in ipairs(charges) do
      if charge.feature == feature and not charge.is_named then
        charge.is_named, charge.quantity = true, whole(ARGV[position + 2 * mention])
        named[mention], places[mention] = charge, place
        break
      end
    end
    if not named[mention] then return nil end
  end
  return named, places
end

-- Give each charge the price and the guard that count now. Returns the instant on the tenant's clock.
local function reprice(hold, nodes, charges, real_ms)
  local quantities = {}
  for index, charge in ipairs(charges) do quantities[index] = charge.quantity end
  local status, offset_ms = read_snapshot(hold.snapshot, nodes, charges)
  for index, charge in ipairs(charges) do
    if charge.kind == STATIC or charge.kind == GAUGE then charge.entitlement, charge.tariffs = false, NONE end
    charge.quantity, charge.kind = quantities[index], -1
    local tariff = tariff_of(charge.tariffs, charge.held_currency, charge.promised)
    charge.tariffs = tariff and { tariff } or NONE
    if tariff then charge.tariff, charge.currency = tariff, tariff[2] end
  end
  return real_ms + (status and offset_ms or 0)
end

-- Count the charges at all levels and price them; nil where a counter or a cost would pass 2^53 - 1.
local function count_charges(nodes, charges)
  local total = 0
  for _, charge in ipairs(charges) do
    if charge.tariff then
      local price, quantity = charge.prices[1], charge.quantity
      local from = price.used + price.more_used
      if from + quantity > MAX_EXACT then return nil end
      charge.rated = debit_nanos(charge.tariff, from, quantity)
      if not charge.rated then return nil end
      price.more_used, total = price.more_used + quantity, total + charge.rated
      if total > MAX_EXACT then return nil end
    end
  end
  for _, node in ipairs(nodes) do
    for n = 1, #node.uses, 3 do
      local slot = node.uses[n + 1]
      slot.more_used = slot.more_used + charges[node.uses[n]].quantity
      if slot.used + slot.more_used > MAX_EXACT then return nil end
    end
    for n = 1, #node.caps, 2 do
      local slot, cap = node.caps[n], node.caps[n + 1]
      for _, charge in ipairs(charges) do
        if charge.currency == cap[2] then slot.more_used = slot.more_used + charge.rated end
      end
      if slot.used + slot.more_used > MAX_EXACT then return nil end
    end
  end
  return total
end

-- The purses of all currencies that the charges were held in.
local function open_held_purses(wallet_key, charges, at)
  local currencies = {}
  for _, charge in ipairs(charges) do
    local currency = charge.promised and charge.promised[7] and charge.held_currency
    if currency and not currencies[currency] then
      currencies[#currencies + 1], currencies[currency] = currency, true
    end
  end
  return open_purses(wallet_key, currencies, at)
end

-- Give what a charge did not use back to its purse, where it is usable still.
local function give_back(purse, grant_id, nanos)
  for place, known in ipairs(purse.grants) do
    if known == grant_id then
      purse.remaining[place], purse.balance = purse.remaining[place] + nanos, purse.balance + nanos
    end
  end
end

-- Use what the charge had set aside, as far as it needs it. What it does not use is its rest, which an end gives back.
local function use_held(charge, purse, payment, is_end)
  local parts, rest = charge.held_parts, {}
  charge.lack = charge.tariff and charge.tariff[7] and charge.rated or 0
  for n = 1, #parts, 2 do
    local grant_id, nanos = parts[n], parts[n + 1]
    local used = math.min(nanos, charge.lack)
    local unused = nanos - used
    charge.lack, charge.released = charge.lack - used, charge.released + unused
    if used > 0 then add_nanos(payment.moved, grant_id, used) end
    if unused > 0 then rest[#rest + 1], rest[#rest + 2] = grant_id, unused end
    add_nanos(payment.held, grant_id, is_end and nanos or used)
    if is_end then
      add_nanos(payment.back, grant_id, unused)
      give_back(purse, grant_id, unused)
    end
  end
  charge.rest = rest
end

-- Pay from the held parts, then from the purses. Returns what moved for good, what left `held` and what came to `remaining`.
local function pay(charges, purses, is_end)
  local payment = { moved = {}, held = {}, back = {} }
  for _, charge in ipairs(charges) do use_held(charge, purses[charge.held_currency], payment, is_end) end
  for _, charge in ipairs(charges) do
    if charge.tariff and charge.tariff[7] then
      local parts, left = take(purses[charge.currency], charge.feature, charge.lack, payment.moved)
      charge.charged, charge.uncollected = charge.rated - left, left
      for n = 1, #parts, 2 do add_nanos(payment.back, parts[n], -parts[n + 1]) end
    end
  end
  return payment
end

local function write_payment(wallet_key, payment)
  for _, grant_id in ipairs(payment.held) do move(wallet_key, 'h:' .. grant_id, -payment.held[grant_id]) end
  for _, grant_id in ipairs(payment.back) do move(wallet_key, 'r:' .. grant_id, payment.back[grant_id]) end
end

-- The slot of this counter, if this act has read it.
local function slot_of(node, name)
  for _, slot in ipairs(node.counters) do
    if slot.name == name then return slot end
  end
  return nil
end

-- Take back what the hold has held in the nodes: all of it at its end; of a part, what it used. What this act has read anyway
-- is written with the rest of its node.
local function take_leases(leases, nodes, charges, is_end)
  for n = 1, #leases, 5 do
    local node, name, measure, amount = nodes[leases[n]], leases[n + 1], leases[n + 3], leases[n + 4]
    if is_end then
      node.more_holds = -1
    else
      local charge = charges[leases[n + 2]]
      amount = measure == 0 and 0 or math.min(amount, measure == 1 and charge.quantity or charge.rated)
      leases[n + 4] = leases[n + 4] - amount
    end
    local slot = measure > 0 and slot_of(node, name)
    if slot then
      slot.more_held = slot.more_held - amount
    elseif amount > 0 then
      redis.call('HINCRBY', node.key, name .. (measure == 0 and ':c' or ':h'), digits(-amount))
    end
  end
end

-- Append what a hold that shadow mode placed empty would have charged.
local function append_unmade(hold, listed, place, entry)
  local offset_ms = redis.call('HGET', hold.snapshot, 'off')
  local at = place.real_ms + (tonumber(offset_ms) or 0)
  for _, charge in ipairs(listed) do
    if charge.quantity > 0 then
      redis.call('XADD', place.stream, '*', 'k', 'shadow', 'b', entry.body, 'at', digits(at), 'q', column(listed, 'quantity'),
        'e', place.epoch, 'r', hold.would, 'l', hold.level, unpack(entry.number))
      break
    end
  end
  return at
end

-- Charge these quantities. An entry has listed (its charges), body and number. Returns the instant and the purses; nil where the
-- quantities are too large to be counted, and then nothing is written.
local function charge_hold(hold, charges, place, entry)
  -- Before the first write: a key of another type stops at the first, a slot of which a part has moved at the second.
  redis.call('ZSCORE', place.shard_holds, hold.id)
  redis.call('EXISTS', hold.snapshot, hold.counters, hold.wallet, hold.customer_holds)
  if hold.would ~= '' then return append_unmade(hold, entry.listed, place, entry), NONE end
  local nodes = read_path(hold.path, hold.counters)
  local at = reprice(hold, nodes, charges, place.real_ms)
  open_levels(nodes, charges, at)
  if not count_charges(nodes, charges) then return nil end
  local purses = open_held_purses(hold.wallet, charges, at)
  local payment = pay(charges, purses, entry.is_end)
  append_charges(place.stream, {
    kind = 'settle', body = entry.body, at = at, moved = payment.moved, epoch = place.epoch, number = entry.number,
  }, entry.listed)
  write_payment(hold.wallet, payment)
  take_leases(hold.leases or NONE, nodes, charges, entry.is_end)
  write_levels(nodes, at, place.real_ms)
  return at, purses
end

-- The answer: amounts of the hold's currency, and the balance that its first priced charge may use.
local function answer_of(hold, charges, purses, outcome, at)
  local answer = { outcome, 0, at, hold.currency, 0, 0, 0, 0 }
  local purse = purses[hold.currency]
  for index = #charges, 1, -1 do
    local charge = charges[index]
    if charge.held_currency == hold.currency then
      answer[5], answer[6] = answer[5] + charge.charged, answer[6] + charge.released
      answer[7] = answer[7] + charge.uncollected
      if purse then answer[8] = available(purse, charge.feature) end
    end
  end
  return answer
end

-- Leave the answer of the hold, for the time stated, and what a late settlement needs, where it may come.
local function write_end(hold, place, answer, ending)
  redis.call('ZREM', place.shard_holds, hold.id)
  redis.call('ZREM', hold.customer_holds, hold.id)
  local left = {}
  if ending.may_be_late then
    left, hold.epoch = hold, place.epoch
    hold.leases, hold.deadline_ms, hold.on_expiry, hold.shadow = nil, nil, nil, nil
  end
  left.state, left.digest, left.at, left.currency = answer[1], ending.digest, answer[3], answer[4]
  left.charged, left.released, left.uncollected, left.balance = answer[5], answer[6], answer[7], answer[8]
  if ending.keep_ms == 0 then
    redis.call('DEL', hold.key)
  else
    local key = hold.key
    left.key = nil
    redis.call('SET', key, cmsgpack.pack(left), 'PX', digits(ending.keep_ms))
    hold.key = key
  end
end

-- The number of the next entry under the hold's body.
local function next_number(hold)
  return { 'n', digits((hold.number or 0) + 1) }
end

-- End a hold at the quantities of its charges. An ending has outcome, digest, keep_ms, may_be_late and its entry's body, or nil:
-- the hold's. Returns the answer; nil where the quantities are too large to be counted, and then nothing is written.
local function end_hold(hold, charges, place, ending)
  local number = hold.would ~= '' and not ending.body and next_number(hold) or NONE
  local at, purses = charge_hold(hold, charges, place, {
    listed = charges, body = ending.body or hold.body, number = number, is_end = true,
  })
  if not at then return nil end
  local answer = answer_of(hold, charges, purses, ending.outcome, at)
  write_end(hold, place, answer, ending)
  return answer
end

-- Let the hold live until at least so many ms from now; 0 leaves its deadline. To be written with the hold.
local function prolong(hold, place, ttl_ms)
  local deadline_ms = place.real_ms + ttl_ms
  if ttl_ms > 0 and deadline_ms > hold.deadline_ms then
    hold.deadline_ms = deadline_ms
    redis.call('ZADD', place.shard_holds, digits(deadline_ms), hold.id)
    redis.call('ZADD', hold.customer_holds, digits(deadline_ms), hold.id)
  end
end

-- Charge a part out of an open hold: the charges that were named; the rest stays held. With a body of its own the entry lists
-- these, else all. Returns the answer, in which the nanos that stay held are at the place of those released; nil as above.
local function charge_part(hold, charges, place, part)
  local number = part.body == '' and next_number(hold) or NONE
  local at, purses = charge_hold(hold, charges, place, {
    listed = part.body == '' and charges or part.named, body = part.body == '' and hold.body or part.body, number = number,
    is_end = false,
  })
  if not at then return nil end
  for index, charge in ipairs(charges) do
    local kept = hold.charges[index]
    kept[2], kept[3] = math.max(0, kept[2] - charge.quantity), math.max(0, kept[3] - charge.rated)
    kept[6] = charge.rest
  end
  if part.body == '' then hold.number = (hold.number or 0) + 1 end
  prolong(hold, place, part.ttl_ms)
  write_hold(hold)
  return answer_of(hold, charges, purses, 'charged', at)
end

-- End a hold that is due as it was told: released, or charged as held.
local function expire(hold, place)
  local ending = { outcome = 'expired', digest = '', keep_ms = DAY_MS, may_be_late = false }
  local answer = hold.on_expiry == 'charge' and end_hold(hold, held_charges(hold, false), place, ending)
  if answer then return answer end
  ending.may_be_late = true
  return end_hold(hold, held_charges(hold, true), place, ending)
end

-- End these holds, which are due. Returns how many were there to be ended.
local function sweep(due, holds_key, place)
  local ended = 0
  for _, hold_id in ipairs(due) do
    local hold = read_hold(string.sub(place.shard_holds, 1, -2) .. ':' .. hold_id)
    if hold and hold.state == 'open' then
      expire(hold, place)
      ended = ended + 1
    else
      redis.call('ZREM', holds_key, hold_id)
    end
  end
  return ended
end

-- Whether one of this customer's holds is due. Mostly none is: it is one look at the first.
local function has_due(customer_holds_key, real_ms)
  local first = redis.call('ZRANGE', customer_holds_key, '0', '0', 'WITHSCORES')
  return first[1] and tonumber(first[2]) <= real_ms
end

-- End what is due of this customer's holds, at most 100 of them.
local function sweep_due(customer_holds_key, place)
  local due = redis.call('ZRANGEBYSCORE', customer_holds_key, '-inf', digits(place.real_ms), 'LIMIT', '0', '100')
  sweep(due, customer_holds_key, place)
end

-- The answer of a hold that has ended.
local function ended_answer(hold)
  return {
    hold.state, 1, hold.at, hold.currency, hold.charged, hold.released, hold.uncollected, hold.balance,
  }
end

-- An answer that moves nothing.
local function empty_answer(outcome, real_ms)
  return { outcome, 0, real_ms, '', 0, 0, 0, 0 }
end

return {
  read = read_hold, is_due = is_due, held_charges = held_charges, name_charges = name_charges,
  finish = end_hold, write = write_hold, charge_part = charge_part, prolong = prolong, expire = expire, sweep = sweep,
  has_due = has_due, sweep_due = sweep_due,
  write_end = write_end, ended_answer = ended_answer, empty_answer = empty_answer, next_number = next_number,
}
