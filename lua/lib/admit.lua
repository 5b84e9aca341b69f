-- The decision: every check of a request, in order, and nothing written.
--
-- First whether the customer is served and each feature is theirs, then the limit windows of all charges, then the wallet.
-- The first check that fails names the refusal and the charge. Each charge sees what those before it would use.
--
-- A decision has at (tenant's clock), reason, refused (1-based charge, 0 none), currency, cost, fault (an error reply's
-- words, or nil), counters and purse once they are read, and acted once it will be written.

local STATIC, SOFT = 1, 1

-- The charges behind ARGV[position], which is their count, to the end; or nil and what is wrong.
local function read_charges(position)
  local count = whole(ARGV[position])
  if not count or count < 1 or count > MAX_CHARGES or #ARGV ~= position + 2 * count then
    return nil, 'INVALID charges'
  end
  local charges = {}
  for index = 1, count do
    local quantity = whole(ARGV[position + 2 * index])
    if not quantity then return nil, 'INVALID quantity' end
    charges[index] = {
      feature = ARGV[position + 2 * index - 1], quantity = quantity, charged = 0, uncollected = 0, static_value = '',
      limit = -1, is_soft = false, window = false, tariff = false, slot = false, price = false,
    }
  end
  return charges
end

local function refuse(decision, reason, index)
  decision.reason, decision.refused = reason, index
  return false
end

local function fail(decision, fault)
  decision.fault = fault
  return false
end

-- Whether the customer is served, and each feature is theirs.
local function entitle(decision, charges, snapshot_key)
  local fields = { 'st', 'off' }
  for index, charge in ipairs(charges) do fields[index + 2] = 'f:' .. charge.feature end
  local values = redis.call('HMGET', snapshot_key, unpack(fields))
  if not values[1] then return fail(decision, 'UNKNOWN customer') end
  decision.at = decision.at + values[2]
  if values[1] ~= 'active' then return refuse(decision, 'suspended', 0) end
  for index, charge in ipairs(charges) do
    local packed = values[index + 2]
    local entitlement = packed and cmsgpack.unpack(packed)
    if not entitlement or not entitlement[2] then return refuse(decision, 'not_entitled', index) end
    if entitlement[1] == STATIC then
      charge.static_value, charge.quantity, charge.is_static = entitlement[3], 0, true
    else
      charge.limit, charge.is_soft, charge.window = entitlement[4], entitlement[5] == SOFT, entitlement[6]
      charge.tariff, charge.packed = entitlement[7][1], packed
    end
  end
  for _, charge in ipairs(charges) do
    local currency = charge.tariff and charge.tariff[2] or decision.currency
    if decision.currency ~= '' and decision.currency ~= currency then return fail(decision, 'INVALID currency') end
    decision.currency = currency
  end
  return true
end

-- Whether the units fit into each limit.
local function fit_limits(decision, charges, as_hold)
  for index, charge in ipairs(charges) do
    local slot, quantity = charge.slot, charge.quantity
    if slot then
      if not slot.start then return refuse(decision, 'unavailable', index) end
      local units = slot.used + slot.more_used + slot.held + slot.more_held + quantity
      if quantity > 0 and charge.limit >= 0 and not charge.is_soft and units > charge.limit then
        return refuse(decision, 'limit_reached', index)
      end
      if units > MAX_EXACT then return fail(decision, 'OVERFLOW quantity') end
      if as_hold then
        slot.more_held = slot.more_held + quantity
      else
        slot.more_used = slot.more_used + quantity
      end
    end
  end
  return true
end

-- Whether the wallet has what all charges cost. A hold is priced behind the units that are already held.
local function fit_wallet(decision, charges, as_hold)
  local first_short, price_of = 0, as_hold and reserve_nanos or debit_nanos
  for index, charge in ipairs(charges) do
    local price, quantity = charge.price, charge.quantity
    if price then
      if not price.start then return refuse(decision, 'unavailable', index) end
      local from = price.used + price.planned + (as_hold and charge.slot.held or 0)
      if from + quantity > MAX_EXACT then return fail(decision, 'OVERFLOW quantity') end
      price.planned = price.planned + quantity
      if not as_hold then price.more_used = price.planned end
      charge.charged = price_of(charge.tariff, from, quantity) or MAX_EXACT
      decision.cost = math.min(decision.cost + charge.charged, MAX_EXACT)
      if first_short == 0 and decision.cost > decision.purse.balance then first_short = index end
    end
  end
  if first_short > 0 then return refuse(decision, 'insufficient_balance', first_short) end
  return true
end

-- Decide. Reads snapshot, counters and wallet; writes nothing.
local function decide(charges, real_ms, keys, as_hold)
  local decision = { at = real_ms, reason = 'allowed', refused = 0, currency = '', cost = 0 }
  if entitle(decision, charges, keys.snapshot) then
    decision.counters = open_counters(keys.counters, charges, decision.at)
    decision.purse = decision.currency ~= '' and open_wallet(keys.wallet, decision.currency, decision.at)
    if fit_limits(decision, charges, as_hold) then fit_wallet(decision, charges, as_hold) end
  end
  return decision
end

-- The reply of a decision: nine values, then five for each charge.
local function reply_of(decision, charges, deadline_ms, hold_id)
  local purse = decision.purse
  local reply = {
    decision.reason, 0, decision.refused, decision.at, decision.currency, decision.cost,
    purse and purse.balance or 0, deadline_ms, hold_id,
  }
  for index, charge in ipairs(charges) do
    local slot, n = charge.slot, 5 * index + 4
    local limit, remaining, reset = -1, -1, 0
    if slot and charge.limit >= 0 then
      local units = slot.used + slot.held
      if decision.acted then units = units + slot.more_used + slot.more_held end
      limit, remaining, reset = charge.limit, math.max(charge.limit - units, 0), slot.reset or 0
      if not slot.start then remaining = 0 end
    end
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = limit, remaining, reset, charge.charged
    reply[n + 5] = decision.counters and charge.static_value or ''
  end
  return reply
end
