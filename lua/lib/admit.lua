-- The decision: every check of a request, in order, and nothing written.
--
-- Whether the customer is served and each feature is theirs; the rates of all charges at all levels; concurrency; the limits,
-- level by level from the customer down; the wallets, charge by charge; the spend caps. The first check that fails names the
-- refusal, the charge, the level and the limit. Each charge sees what those before it would use.
--
-- A decision has at (tenant's clock), reason, would (what shadow mode did not refuse), refused (1-based charge, 0 none), level,
-- limit, retry_ms, first (the first charge that may cost something), cost and balance of its currency, fault (an error reply's
-- words, or nil), nodes (open once is_counted), purses, moved (a sum of parts), and acted once it will be written.
--
-- A charge has feature, quantity, sign (of a gauge), tariffs, prices, and once it is paid for: tariff, price, currency (`-`
-- none), rated, charged, uncollected and parts.

-- The charges behind ARGV[position], which is their count, to the end; or nil and what is wrong.
local function read_charges(position)
  local count = whole(ARGV[position])
  if not count or count < 1 or count > MAX_CHARGES or #ARGV ~= position + 2 * count then
    return nil, 'INVALID charges'
  end
  local charges = {}
  for index = 1, count do
    local text, sign = ARGV[position + 2 * index], false
    local quantity = whole(text)
    if not quantity then
      sign = string.sub(text, 1, 1)
      quantity = (sign == '-' or sign == '=') and whole(string.sub(text, 2))
      if not quantity then return nil, 'INVALID quantity' end
    end
    charges[index] = {
      feature = ARGV[position + 2 * index - 1], quantity = quantity, sign = sign, charged = 0, uncollected = 0, rated = 0,
      currency = '-', tariff = false, price = false, parts = false, limit = -1, remaining = -1, reset = 0,
    }
  end
  return charges
end

-- Whether the customer is served, and each feature is theirs.
local function entitle(decision, charges, snapshot_key)
  local status, offset_ms = read_snapshot(snapshot_key, decision.nodes, charges)
  if not status then return fail(decision, 'UNKNOWN customer') end
  decision.at = decision.at + offset_ms
  local in_shadow = true
  for _, charge in ipairs(charges) do
    in_shadow = in_shadow and charge.entitlement and charge.entitlement[7]
    if charge.sign and not charge.is_gauge or charge.is_gauge and decision.as_hold then
      return fail(decision, 'INVALID quantity')
    end
    decision.has_gauges = decision.has_gauges or charge.is_gauge
  end
  decision.is_shadow = decision.is_shadow or in_shadow
  if status ~= 'active' and not refuse(decision, 'suspended', 0) then return false end
  for index, charge in ipairs(charges) do
    local entitlement = charge.entitlement
    if not (entitlement and entitlement[2]) and not refuse(decision, 'not_entitled', index) then return false end
  end
  return true
end

-- The currencies of wallets that may be asked to pay, and the first charge that may cost something.
local function list_currencies(decision, charges)
  local currencies = {}
  for _, charge in ipairs(charges) do
    for place, tariff in ipairs(charge.tariffs) do
      if place == 1 then decision.first, charge.currency = decision.first or charge, tariff[2] end
      if tariff[7] and not currencies[tariff[2]] then
        currencies[#currencies + 1], currencies[tariff[2]] = tariff[2], true
      end
    end
  end
  return currencies
end

-- Whether every charge passes every rate at every level: an act counts once for each rate of requests.
local function fit_rates(decision, nodes, charges)
  for _, node in ipairs(nodes) do
    local paced = node.paced
    for n = 1, #paced, 2 do
      local index, slot = paced[n], paced[n + 1]
      local units = charges[index].quantity
      if slot.rate[5] == 0 then
        units, slot.is_counted = slot.is_counted and 0 or 1, true
      end
      local passes, passes_at = raise(slot, units)
      if not passes then
        local wait = passes_at > 0 and passes_at - decision.at or 0
        return refuse(decision, 'rate_limited', index, node, slot.name, wait)
      end
    end
  end
  return true
end

-- Whether no feature has as many open holds as it may have.
local function fit_leases(decision, nodes)
  for _, node in ipairs(nodes) do
    local leases = node.leases
    for n = 1, #leases, 3 do
      if (tonumber(node.values[leases[n + 1]]) or 0) >= leases[n + 2] then
        return refuse(decision, 'concurrency_limited', leases[n], node, node.fields[leases[n + 1]])
      end
    end
  end
  return true
end

-- Whether the units fit into each limit.
local function fit_limits(decision, charges)
  local as_hold = decision.as_hold
  for _, node in ipairs(decision.nodes) do
    local uses = node.uses
    for n = 1, #uses, 3 do
      local index, slot, limit = uses[n], uses[n + 1], uses[n + 2]
      local quantity = charges[index].quantity
      if not slot.start and not refuse(decision, 'unavailable', index, node, limit[1]) then return false end
      local units = slot.used + slot.held + slot.more_used + slot.more_held + quantity
      if quantity > 0 and limit[3] >= 0 and units > limit[3] + slot.carried then
        local retry_ms = slot.reset > 0 and slot.reset - decision.at or 0
        if not refuse(decision, 'limit_reached', index, node, limit[1], retry_ms) then return false end
      end
      if units > MAX_EXACT then return fail(decision, 'OVERFLOW quantity') end
      if as_hold then slot.more_held = slot.more_held + quantity else slot.more_used = slot.more_used + quantity end
    end
  end
  return true
end

-- Whether the price's counter has room for the units of the charge.
local function has_room(price, quantity)
  return price.used + price.held + price.more_used + price.more_held + quantity <= MAX_EXACT
end

-- The price of the charge by one of its tariffs; nil above 2^53 - 1. A hold is priced behind what is held already.
local function price_of(charge, place, as_hold)
  local price, tariff = charge.prices[place], charge.tariffs[place]
  if not has_room(price, charge.quantity) then return nil end
  local from = price.used + price.more_used
  if not as_hold then return debit_nanos(tariff, from, charge.quantity) end
  return reserve_nanos(tariff, from + price.held + price.more_held, charge.quantity)
end

-- Choose who pays: the first tariff whose wallet can pay it all; else the first tariff, and false.
local function choose_tariff(decision, charge)
  local first_nanos
  for place, tariff in ipairs(charge.tariffs) do
    local price, purse = charge.prices[place], tariff[7] and decision.purses[tariff[2]]
    local nanos = (place == 1 or price.start) and price_of(charge, place, decision.as_hold)
    if nanos and (not purse or nanos <= available(purse, charge.feature)) then
      charge.tariff, charge.price, charge.rated, charge.currency = tariff, price, nanos, tariff[2]
      return true
    end
    first_nanos = place == 1 and nanos or first_nanos
  end
  local tariff = charge.tariffs[1]
  charge.tariff, charge.price, charge.currency = tariff, charge.prices[1], tariff[2]
  charge.rated, charge.is_beyond = first_nanos or MAX_EXACT, not first_nanos
  return false
end

-- Take what the charge costs out of its purse. What a record cannot pay is uncollected.
local function draw(decision, charge)
  if not charge.tariff[7] then return end
  local parts, left = take(decision.purses[charge.currency], charge.feature, charge.rated)
  charge.parts, charge.charged, charge.uncollected = parts, charge.rated - left, left
  add_parts(decision.moved, parts)
end

-- Whether the wallets have what all charges cost.
local function fit_wallets(decision, charges)
  for index, charge in ipairs(charges) do
    if charge.prices then
      if not charge.prices[1].start and not refuse(decision, 'unavailable', index) then return false end
      if not has_room(charge.prices[1], charge.quantity) then return fail(decision, 'OVERFLOW quantity') end
      local is_paid = choose_tariff(decision, charge)
      local price, purse = charge.price, charge.tariff[7] and decision.purses[charge.currency]
      if decision.first == charge then decision.balance = purse and available(purse, charge.feature) or 0 end
      if decision.first.currency == charge.currency then
        decision.cost = math.min(decision.cost + charge.rated, MAX_EXACT)
      end
      if charge.is_beyond and (decision.is_record or not purse) then return fail(decision, 'OVERFLOW quantity') end
      if decision.as_hold then
        price.more_held = price.more_held + charge.quantity
      else
        price.more_used = price.more_used + charge.quantity
      end
      if is_paid or decision.is_record then
        draw(decision, charge)
      elseif decision.reason == 'allowed' then
        refuse(decision, 'insufficient_balance', index)
      end
    end
  end
  return decision.reason == 'allowed'
end

-- Whether what the charges cost fits under the spend caps of their currency.
local function fit_caps(decision, charges)
  for _, node in ipairs(decision.nodes) do
    for n = 1, #node.caps, 2 do
      local slot, cap = node.caps[n], node.caps[n + 1]
      for index, charge in ipairs(charges) do
        if charge.tariff and charge.currency == cap[2] then
          if not slot.start and not refuse(decision, 'unavailable', index, node, cap[1]) then return false end
          local nanos = slot.used + slot.held + slot.more_used + slot.more_held + charge.rated
          if charge.rated > 0 and cap[4] >= 0 and nanos > cap[4] then
            local retry_ms = slot.reset > 0 and slot.reset - decision.at or 0
            if not refuse(decision, 'limit_reached', index, node, cap[1], retry_ms) then return false end
          end
          if nanos > MAX_EXACT then return fail(decision, 'OVERFLOW quantity') end
          if decision.as_hold then
            slot.more_held = slot.more_held + charge.rated
          else
            slot.more_used = slot.more_used + charge.rated
          end
        end
      end
    end
  end
  return true
end

-- All checks behind entitlement, in their order; stops at the first that fails.
local function check(decision, charges, wallet_key)
  local nodes = decision.nodes
  open_levels(nodes, charges, decision.at)
  decision.is_counted = true
  decision.purses = open_purses(wallet_key, list_currencies(decision, charges), decision.at)
  local first = decision.first
  if first and first.tariffs[1][7] then decision.balance = available(decision.purses[first.currency], first.feature) end
  if not decision.is_record and not (fit_rates(decision, nodes, charges) and fit_leases(decision, nodes)) then return end
  if not fit_limits(decision, charges) then return end
  if decision.has_gauges and not gauge_acts().fit(decision, nodes, charges) then return end
  if fit_wallets(decision, charges) then fit_caps(decision, charges) end
end

-- Decide, in terms of {real_ms, nodes, snapshot, wallet, as_hold, is_record, is_shadow}. Writes nothing.
local function decide(charges, terms)
  local decision = {
    at = terms.real_ms, nodes = terms.nodes, reason = 'allowed', would = '', refused = 0, level = '', limit = '', retry_ms = 0,
    cost = 0, balance = 0, as_hold = terms.as_hold, is_record = terms.is_record, is_shadow = terms.is_shadow, moved = {},
    first = false, purses = false, acted = false, is_counted = false, has_gauges = false, fault = nil,
  }
  if entitle(decision, charges, terms.snapshot) then check(decision, charges, terms.wallet) end
  if decision.reason ~= 'allowed' and decision.is_shadow then decision.would, decision.reason = decision.reason, 'allowed' end
  return decision
end

-- Tell the charge a limit, unless it knows a tighter one.
local function tell_limit(charge, units, remaining, reset)
  if charge.limit < 0 or remaining < charge.remaining then
    charge.limit, charge.remaining, charge.reset = units, remaining, reset
  end
end

-- Tell all charges their tightest limits.
local function tell_limits(decision, charges)
  for _, node in ipairs(decision.nodes) do
    local uses = node.uses
    for n = 1, #uses, 3 do
      local slot, most = uses[n + 1], math.min(uses[n + 2][2] + uses[n + 1].carried, MAX_EXACT)
      local units = slot.used + slot.held
      if decision.acted then units = units + slot.more_used + slot.more_held end
      tell_limit(charges[uses[n]], most, slot.start and math.max(most - units, 0) or 0, slot.reset or 0)
    end
  end
  if decision.has_gauges then gauge_acts().tell(decision.nodes, charges, tell_limit, decision.acted) end
end

-- The reply of a decision: thirteen values, then seven for each charge.
local function reply_of(decision, charges, deadline_ms, hold_id)
  local first, balance = decision.first, decision.balance
  if decision.is_counted then tell_limits(decision, charges) end
  if decision.acted and first and first.tariff[7] then
    balance = available(decision.purses[first.currency], first.feature)
  end
  local reply = {
    decision.reason, 0, decision.refused, decision.level, decision.limit, decision.at, first and first.currency or '',
    decision.cost, balance, deadline_ms, hold_id, decision.retry_ms, decision.would,
  }
  local n = 13
  for _, charge in ipairs(charges) do
    local entitlement = decision.is_counted and charge.entitlement
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = charge.limit, charge.remaining, charge.reset, charge.rated
    reply[n + 5] = charge.is_static and entitlement and entitlement[3] or ''
    reply[n + 6] = charge.currency == '-' and '' or charge.currency
    reply[n + 7], n = entitlement and entitlement[6] or 0, n + 7
  end
  return reply
end
