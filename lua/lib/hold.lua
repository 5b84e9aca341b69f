-- The one end of a hold: settled, released or expired.
--
-- The hash of an open hold has id, state `open`, deadline_ms (real clock), on_expiry, the names of the customer's keys, body,
-- currency, features and quantities (joined by spaces), parts (what was taken of each grant, in order), and for each
-- priced charge the entitlement as it was promised. After its end only the answer is left, and for a stated time.
--
-- All ends are one act: settle at some quantities. A release settles at zero, an expiry at zero or as held. The price
-- is the snapshot's of now, as the invoice will have it; where the feature lost its price in between, what was promised
-- holds. Parts are used in the order of taking, so that what is not used goes back in the reverse order.
--
-- A place is where a hold ends: {stream, shard_holds, epoch, real_ms}.

local ANSWER_KEPT_MS = 3600000

-- The hold, or nil.
local function read_hold(hold_key)
  local values = redis.call('HGETALL', hold_key)
  if #values == 0 then return nil end
  local hold = { key = hold_key }
  for index = 1, #values, 2 do hold[values[index]] = values[index + 1] end
  return hold
end

local function is_due(hold, real_ms)
  return tonumber(hold.deadline_ms) <= real_ms
end

-- The charges of an open hold at their held quantities.
local function held_charges(hold)
  local charges, index = {}, 0
  for feature in string.gmatch(hold.features, '%S+') do
    charges[#charges + 1] = { feature = feature, charged = 0, uncollected = 0 }
  end
  for quantity in string.gmatch(hold.quantities, '%S+') do
    index = index + 1
    charges[index].held, charges[index].quantity = tonumber(quantity), tonumber(quantity)
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

-- Give each charge the price and window that count now. Returns the instant on the tenant's clock.
local function reprice(hold, charges, real_ms)
  local fields = { 'off' }
  for index, charge in ipairs(charges) do fields[index + 1] = 'f:' .. charge.feature end
  local values = redis.call('HMGET', hold.snapshot, unpack(fields))
  for index, charge in ipairs(charges) do
    local entitlement = values[index + 1] and cmsgpack.unpack(values[index + 1])
    local tariff = entitlement and entitlement[7][1]
    if not tariff or tariff[2] ~= hold.currency then
      local promised = hold['promised:' .. index]
      tariff = promised and cmsgpack.unpack(promised)[7][1]
    end
    charge.window, charge.tariff = entitlement and entitlement[6], tariff
  end
  return real_ms + (tonumber(values[1]) or 0)
end

-- Count the charges and say what they cost together; nil where a counter or the cost would pass 2^53 - 1.
local function count_charges(charges)
  local total = 0
  for _, charge in ipairs(charges) do
    local slot, price, quantity = charge.slot, charge.price, charge.quantity
    slot.more_used, slot.more_held = slot.more_used + quantity, slot.more_held - charge.held
    if slot.used + slot.more_used > MAX_EXACT then return nil end
    if price then
      local from = price.used + price.more_used
      if from + quantity > MAX_EXACT then return nil end
      charge.charged = debit_nanos(charge.tariff, from, quantity)
      if not charge.charged then return nil end
      price.more_used, total = price.more_used + quantity, total + charge.charged
      if total > MAX_EXACT then return nil end
    end
  end
  return total
end

-- Pay from the held parts, then from the purse. Returns parts with {grant_id, held, back}, what was taken beyond them,
-- what moved for good (one part a grant), what was released and what could not be collected.
local function pay(hold, purse, total)
  local parts, moved, moved_of, left, released = {}, {}, {}, total, 0
  for grant_id, nanos in string.gmatch(hold.parts, '(%S+)=(%d+)') do
    local held = tonumber(nanos)
    local used = math.min(held, left)
    left, released = left - used, released + held - used
    parts[#parts + 1] = { grant_id, held, held - used }
    if used > 0 then
      moved_of[grant_id] = { grant_id, used }
      moved[#moved + 1] = moved_of[grant_id]
    end
  end
  local beyond, uncollected = take(purse, left)
  for _, part in ipairs(beyond) do
    local known = moved_of[part[1]]
    if known then known[2] = known[2] + part[2] else moved[#moved + 1] = part end
  end
  return { parts = parts, beyond = beyond, moved = moved, released = released, uncollected = uncollected }
end

-- Tell each charge what it paid: the earlier ones first.
local function share(charges, collected)
  for _, charge in ipairs(charges) do
    local cost = charge.charged
    charge.charged = math.min(cost, collected)
    charge.uncollected, collected = cost - charge.charged, collected - charge.charged
  end
end

local function write_parts(wallet_key, payment)
  for _, part in ipairs(payment.parts) do
    move(wallet_key, 'h:' .. part[1], -part[2])
    move(wallet_key, 'r:' .. part[1], part[3])
  end
  for _, part in ipairs(payment.beyond) do move(wallet_key, 'r:' .. part[1], -part[2]) end
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

-- End an open hold at the quantities of its charges. An ending has outcome, digest and keep_ms. Returns the answer;
-- nil where the quantities are too large to be counted, and then nothing is written.
local function end_hold(hold, charges, place, ending)
  redis.call('ZSCORE', place.shard_holds, hold.id) -- a key of another type stops here, before the first write
  local at = reprice(hold, charges, place.real_ms)
  local counters = open_counters(hold.counters, charges, at)
  local total = count_charges(charges)
  if not total then return nil end
  local purse = open_wallet(hold.wallet, hold.currency, at)
  local payment = pay(hold, purse, total)
  local collected = total - payment.uncollected
  share(charges, collected)
  append_charges(place.stream, {
    kind = 'settle', body = hold.body, at = at, moved = payment.moved, currency = hold.currency, epoch = place.epoch,
  }, charges)
  write_parts(hold.wallet, payment)
  write_counters(counters)
  local balance = purse.balance
  for _, part in ipairs(payment.parts) do
    for _, grant_id in ipairs(purse.grants) do
      if grant_id == part[1] then balance = balance + part[3] end
    end
  end
  local answer = { ending.outcome, 0, at, hold.currency, collected, payment.released, payment.uncollected, balance }
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
