-- The one end of a hold: settled, released or expired.
--
-- What an open hold keeps is told in lib/placing.lua. After its end only the answer is left, and for a stated time.
--
-- All ends are one act: settle at some quantities. A release settles at zero, an expiry at zero or as held. The price
-- is the snapshot's of now, as the invoice will have it; where the feature lost its price in between, what was promised
-- holds. Each charge is paid from what it had set aside, in the order of taking, so that what is not used goes back in the
-- reverse order; what it lacks is taken from the wallet, which by then has what the other charges gave back.
--
-- A place is where a hold ends: {stream, shard_holds, epoch, real_ms}.

local ANSWER_KEPT_MS = 3600000

-- The hold, or nil; of an open one also kept and leases, unpacked.
local function read_hold(hold_key)
  local values = redis.call('HGETALL', hold_key)
  if #values == 0 then return nil end
  local hold = { key = hold_key }
  for index = 1, #values, 2 do hold[values[index]] = values[index + 1] end
  if hold.state == 'open' then hold.kept, hold.leases = cmsgpack.unpack(hold.charges), cmsgpack.unpack(hold.leases) end
  return hold
end

local function is_due(hold, real_ms)
  return tonumber(hold.deadline_ms) <= real_ms
end

-- The charges of an open hold at their held quantities.
local function held_charges(hold)
  local charges = {}
  for index, kept in ipairs(hold.kept) do
    charges[index] = {
      feature = kept[1], quantity = kept[2], held = kept[2], held_nanos = kept[3], held_currency = kept[4],
      promised = kept[5], held_parts = kept[6], entitlement = false, kind = -1, tariffs = NONE, prices = false,
      tariff = false, currency = '-', rated = 0, charged = 0, uncollected = 0,
    }
  end
  return charges
end

-- The charge that this mention of the feature means: the first of that name that is not named yet; or nil.
local function name_charge(charges, feature)
  for _, charge in ipairs(charges) do
    if charge.feature == feature and not charge.is_named then
      charge.is_named = true
      return charge
    end
  end
  return nil
end

-- The charges of an open hold at quantity zero.
local function unused_charges(hold)
  local charges = held_charges(hold)
  for _, charge in ipairs(charges) do charge.quantity = 0 end
  return charges
end

-- The tariff of now that stands for the promised one: same currency, and prepaid if that was; else what was promised.
local function tariff_of(charge)
  for _, tariff in ipairs(charge.tariffs) do
    if tariff[2] == charge.held_currency and tariff[7] == charge.promised[7] then return tariff end
  end
  return charge.promised
end

-- Give each charge the price and the guard that count now. Returns the instant on the tenant's clock.
local function reprice(hold, nodes, charges, real_ms)
  local quantities = {}
  for index, charge in ipairs(charges) do quantities[index] = charge.quantity end
  local status, offset_ms = read_snapshot(hold.snapshot, nodes, charges)
  for index, charge in ipairs(charges) do
    if charge.kind == STATIC or charge.kind == GAUGE then charge.entitlement, charge.tariffs = false, NONE end
    charge.quantity, charge.kind = quantities[index], -1
    local tariff = tariff_of(charge)
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

-- The purses of all currencies that the charges are priced in or were held in.
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

-- Pay from the held parts, then from the purses. Returns what moved for good, what was held and what came back, by grant.
local function pay(charges, purses)
  local moved, held, back = {}, {}, {}
  for _, charge in ipairs(charges) do
    local parts = charge.held_parts
    charge.lack, charge.released = charge.tariff and charge.tariff[7] and charge.rated or 0, 0
    for n = 1, #parts, 2 do
      local used = math.min(parts[n + 1], charge.lack)
      local unused = parts[n + 1] - used
      charge.lack, charge.released = charge.lack - used, charge.released + unused
      if used > 0 then add_parts(moved, { parts[n], used }) end
      add_parts(back, { parts[n], unused })
      give_back(purses[charge.held_currency], parts[n], unused)
    end
    add_parts(held, parts)
  end
  for _, charge in ipairs(charges) do
    if charge.tariff and charge.tariff[7] then
      local parts, left = take(purses[charge.currency], charge.feature, charge.lack, moved)
      charge.charged, charge.uncollected = charge.rated - left, left
      for n = 1, #parts, 2 do add_parts(back, { parts[n], -parts[n + 1] }) end
    end
  end
  return { moved = moved, held = held, back = back }
end

local function write_payment(wallet_key, payment)
  for _, grant_id in ipairs(payment.held) do move(wallet_key, 'h:' .. grant_id, -payment.held[grant_id]) end
  for _, grant_id in ipairs(payment.back) do move(wallet_key, 'r:' .. grant_id, payment.back[grant_id]) end
end

-- Take back what the hold has held in the nodes: units of limits and prices, nanos of spend caps, and its place.
local function write_leases(hold, nodes, charges)
  local leases = hold.leases
  for n = 1, #leases, 4 do
    local node, charge, measure = nodes[leases[n]], charges[leases[n + 2]], leases[n + 3]
    local amount = measure == 1 and charge.held or measure == 2 and charge.held_nanos or 1
    if amount > 0 then redis.call('HINCRBY', node.key, leases[n + 1], digits(-amount)) end
    node.more_holds = -1
  end
end

-- Leave only the answer of the hold, for the time stated.
local function write_end(hold, place, answer, ending)
  redis.call('ZREM', place.shard_holds, hold.id)
  redis.call('ZREM', hold.customer_holds, hold.id)
  redis.call('DEL', hold.key)
  redis.call('HSET', hold.key, 'state', answer[1], 'digest', ending.digest, 'at', digits(answer[3]),
    'currency', answer[4], 'charged', digits(answer[5]), 'released', digits(answer[6]),
    'uncollected', digits(answer[7]), 'balance', digits(answer[8]))
  redis.call('PEXPIRE', hold.key, digits(ending.keep_ms))
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

-- End an open hold at the quantities of its charges. An ending has outcome, digest and keep_ms. Returns the answer;
-- nil where the quantities are too large to be counted, and then nothing is written.
local function end_hold(hold, charges, place, ending)
  redis.call('ZSCORE', place.shard_holds, hold.id) -- a key of another type stops here, before the first write
  local nodes = read_path(hold.path, hold.counters)
  local at = reprice(hold, nodes, charges, place.real_ms)
  open_levels(nodes, charges, at)
  if not count_charges(nodes, charges) then return nil end
  local purses = open_held_purses(hold.wallet, charges, at)
  local payment = pay(charges, purses)
  append_charges(place.stream, {
    kind = 'settle', body = hold.body, at = at, moved = payment.moved, epoch = place.epoch,
  }, charges)
  write_payment(hold.wallet, payment)
  write_leases(hold, nodes, charges)
  write_levels(nodes, at, place.real_ms)
  local answer = answer_of(hold, charges, purses, ending.outcome, at)
  write_end(hold, place, answer, ending)
  return answer
end

-- End a hold that is due as it was told: released, or charged as held.
local function expire(hold, place)
  local ending = { outcome = 'expired', digest = '', keep_ms = ANSWER_KEPT_MS }
  local answer = hold.on_expiry == 'charge' and end_hold(hold, held_charges(hold), place, ending)
  return answer or end_hold(hold, unused_charges(hold), place, ending)
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

-- The answer of a hold that has ended.
local function ended_answer(hold)
  return {
    hold.state, 1, tonumber(hold.at), hold.currency, tonumber(hold.charged), tonumber(hold.released),
    tonumber(hold.uncollected), tonumber(hold.balance),
  }
end

-- An answer that moves nothing.
local function empty_answer(outcome, real_ms)
  return { outcome, 0, real_ms, '', 0, 0, 0, 0 }
end

return {
  read = read_hold, is_due = is_due, held_charges = held_charges, unused_charges = unused_charges,
  name_charge = name_charge, finish = end_hold, expire = expire, sweep = sweep, ended_answer = ended_answer,
  empty_answer = empty_answer,
}
