-- The decision: every check of a request, in order, and nothing written.
--
-- Whether the customer is served and each feature is theirs; the rates of all charges at all levels; open holds; the limits,
-- level by level from the customer down; the gauges; the wallets, charge by charge; the spend caps. The first check that fails
-- names the refusal, the charge, the level and the limit. Each charge sees what those before it would use. The refusals, in
-- order of precedence: suspended, not_entitled, rate_limited, concurrency_limited, limit_reached (of units), insufficient_balance,
-- limit_reached (of money); and unavailable, in place of a limit or a price of which no window holds this instant.
--
-- A decision has mode (consume, hold or record), at (tenant's clock), reason, would (what shadow mode did not refuse), refusal
-- ({charge, level, limit, retry_ms}, or false), first (the first charge that may cost something, or false), cost and balance
-- of its currency, fault (an error reply's words, or false), nodes, purses (false until all is read), moved (nanos by grant),
-- has_gauges, and acted once it will be written.
--
-- A charge has feature, quantity, sign (of a gauge), entitlement, kind, tariffs, prices, and once it is paid for: tariff, price,
-- currency (`-` none), rated, charged, uncollected and parts.

-- The charges behind ARGV[position], which is their count, to the end; or nil and what is wrong.
local function read_charges(ARGV, position)
  local count = whole(ARGV[position])
  if not count or count < 1 or count > MAX_CHARGES or #ARGV ~= position + 2 * count then
    return nil, 'INVALID charges'
  end
  local charges = { nil }
  for index = 1, count do
    local text, sign = ARGV[position + 2 * index], false
    local quantity = whole(text)
    if not quantity then
      sign = string.sub(text, 1, 1)
      quantity = (sign == '-' or sign == '=') and whole(string.sub(text, 2))
      if not quantity then return nil, 'INVALID quantity' end
    end
    charges[index] = {
      feature = ARGV[position + 2 * index - 1], quantity = quantity, sign = sign, entitlement = false, kind = -1,
      tariffs = NONE, prices = false, tariff = false, price = false, currency = '-', rated = 0, charged = 0, uncollected = 0,
      parts = NONE, new_level = false, keeps_place = false,
    }
  end
  return charges
end

-- The quantity of the one charge behind ARGV[position], where it is one that may be plainly allowed; else nil.
local function single_quantity(ARGV, position)
  local quantity = ARGV[position] == '1' and #ARGV == position + 2 and whole(ARGV[position + 2])
  return quantity and quantity > 0 and quantity or nil
end

-- Whether the customer is served, and each feature is theirs.
local function entitle(decision, charges, snapshot_key)
  local status, offset_ms = read_snapshot(snapshot_key, decision.nodes, charges)
  local in_shadow, stranger = #charges > 0, false
  if not status then
    decision.fault = 'UNKNOWN customer'
    return false
  end
  decision.at = decision.at + offset_ms
  for index = 1, #charges do
    local charge = charges[index]
    local entitlement, is_gauge = charge.entitlement, charge.kind == GAUGE
    in_shadow = in_shadow and entitlement and entitlement[7]
    if not (entitlement and entitlement[2]) then stranger = stranger or index end
    if is_gauge then decision.has_gauges = true end
    if charge.sign and not is_gauge or is_gauge and decision.mode == 'hold' then
      decision.fault = 'INVALID quantity'
      return false
    end
  end
  if in_shadow then decision.is_shadow = true end
  if status ~= 'active' and not refuse(decision, 'suspended', 0, nil, '', 0) then return false end
  return not stranger or refuse(decision, 'not_entitled', stranger, nil, '', 0)
end

-- Whether the units fit into each limit.
local function fit_limits(decision, charges)
  local nodes, as_hold = decision.nodes, decision.mode == 'hold'
  for depth = 1, #nodes do
    local node = nodes[depth]
    local uses = node.uses
    for n = 1, #uses, 3 do
      local index, slot, limit = uses[n], uses[n + 1], uses[n + 2]
      local quantity = charges[index].quantity
      local units = slot.used + slot.held + slot.more_used + slot.more_held + quantity
      if not slot.start and not refuse(decision, 'unavailable', index, node, limit[1], 0) then return false end
      if quantity > 0 and limit[3] >= 0 and units > limit[3] + slot.carried then
        local retry_ms = slot.reset > 0 and slot.reset - decision.at or 0
        if not refuse(decision, 'limit_reached', index, node, limit[1], retry_ms) then return false end
      end
      if units > MAX_EXACT then
        decision.fault = 'OVERFLOW quantity'
        return false
      end
      if as_hold then slot.more_held = slot.more_held + quantity else slot.more_used = slot.more_used + quantity end
    end
  end
  return true
end

-- Choose who pays: the first tariff whose wallet can pay it all; else the first tariff, and false. A hold is priced behind
-- what is held already. No cost: it is above 2^53 - 1, or the price's counter has no room.
local function choose_tariff(decision, charge)
  local tariffs, quantity, first_cost = charge.tariffs, charge.quantity, nil
  for place = 1, #tariffs do
    local tariff, price, cost = tariffs[place], charge.prices[place], nil
    local from, held = price.used + price.more_used, price.held + price.more_held
    local purse = tariff[7] and decision.purses[tariff[2]]
    if from + held + quantity <= MAX_EXACT and (place == 1 or price.start) then
      if decision.mode == 'hold' then
        cost = reserve_nanos(tariff, from + held, quantity)
      else
        cost = debit_nanos(tariff, from, quantity)
      end
    end
    if cost and (not purse or cost <= available(purse, charge.feature)) then
      charge.tariff, charge.price, charge.currency = tariff, price, tariff[2]
      return cost, true
    end
    if place == 1 then first_cost = cost end
  end
  charge.tariff, charge.price, charge.currency = tariffs[1], charge.prices[1], tariffs[1][2]
  return first_cost, false
end

-- Whether the wallets have what all charges cost.
local function fit_wallets(decision, charges)
  local first, is_record = decision.first, decision.mode == 'record'
  for index = 1, #charges do
    local charge, quantity = charges[index], charges[index].quantity
    local price = charge.prices and charge.prices[1]
    if price then
      if not price.start and not refuse(decision, 'unavailable', index, nil, '', 0) then return false end
      local cost, is_paid = choose_tariff(decision, charge)
      local purse = charge.tariff[7] and decision.purses[charge.currency]
      local has_room = price.used + price.held + price.more_used + price.more_held + quantity <= MAX_EXACT
      if not has_room or not cost and (is_record or not purse) then
        decision.fault = 'OVERFLOW quantity'
        return false
      end
      charge.rated, price = cost or MAX_EXACT, charge.price
      if first == charge then decision.balance = purse and available(purse, charge.feature) or 0 end
      if first.currency == charge.currency then decision.cost = math.min(decision.cost + charge.rated, MAX_EXACT) end
      if decision.mode == 'hold' then
        price.more_held = price.more_held + quantity
      else
        price.more_used = price.more_used + quantity
      end
      if purse and (is_paid or is_record) then
        local parts, left = take(purse, charge.feature, charge.rated, decision.moved)
        charge.parts, charge.charged, charge.uncollected = parts, charge.rated - left, left
      elseif not is_paid and decision.reason == 'allowed' then
        refuse(decision, 'insufficient_balance', index, nil, '', 0)
      end
    end
  end
  return decision.reason == 'allowed'
end

-- Read all levels and wallets, then all checks behind entitlement in their order; stops at the first that fails.
local function check(decision, charges, wallet_key)
  local nodes, currencies, has_rates, has_leases, has_caps = decision.nodes, { nil, nil }, false, false, false
  open_levels(nodes, charges, decision.at)
  for index = 1, #charges do
    local tariffs = charges[index].tariffs
    for place = 1, #tariffs do
      local currency = tariffs[place][2]
      if place == 1 then decision.first, charges[index].currency = decision.first or charges[index], currency end
      if tariffs[place][7] then
        for known = 1, #currencies do
          if currencies[known] == currency then currency = false end
        end
        if currency then currencies[#currencies + 1] = currency end
      end
    end
  end
  decision.purses = open_purses(wallet_key, currencies, decision.at)
  local first = decision.first
  if first and first.tariffs[1][7] then decision.balance = available(decision.purses[first.currency], first.feature) end
  for depth = 1, #nodes do
    local node = nodes[depth]
    has_rates, has_leases = has_rates or node.paced ~= NONE, has_leases or node.leases ~= NONE
    has_caps = has_caps or node.caps ~= NONE
  end
  if decision.mode ~= 'record' then
    if has_rates and not pace_acts.fit(decision, charges) then return end
    if has_leases and not pace_acts.fit_leases(decision) then return end
  end
  if not fit_limits(decision, charges) then return end
  if decision.has_gauges then
    local fits, fault = gauge_acts.fit(decision, charges)
    decision.fault = fault or false
    if not fits then return end
  end
  if fit_wallets(decision, charges) and has_caps then cap_acts(decision, charges) end
end

-- Decide. A place is {snapshot, wallet, real_ms}, and may have narrow, which says what of the snapshot counts for these
-- charges; the mode is consume, hold or record. Writes nothing.
local function decide(charges, nodes, place, mode, is_shadow)
  local decision = {
    mode = mode, at = place.real_ms, nodes = nodes, reason = 'allowed', would = '', refusal = false, first = false, cost = 0,
    balance = 0, fault = false, purses = false, moved = { nil }, has_gauges = false, is_shadow = is_shadow, acted = false,
  }
  if entitle(decision, charges, place.snapshot) then
    if place.narrow then place.narrow(charges) end
    check(decision, charges, place.wallet)
  end
  if decision.reason ~= 'allowed' and decision.is_shadow then
    decision.would, decision.reason = decision.reason, 'allowed'
  end
  return decision
end

-- Tell each charge the tightest limit over all levels: limit, remaining and reset, from reply[8 * index + 6] on.
local function tell_limits(decision, charges, reply)
  local nodes, acted = decision.nodes, decision.acted
  for depth = 1, #nodes do
    local uses = nodes[depth].uses
    for n = 1, #uses, 3 do
      local place, slot = 8 * uses[n] + 6, uses[n + 1]
      local most, units = uses[n + 2][2] + slot.carried, slot.used + slot.held
      if most > MAX_EXACT then most = MAX_EXACT end
      if acted then units = units + slot.more_used + slot.more_held end
      local remaining = slot.start and units < most and most - units or 0
      if reply[place] < 0 or remaining < reply[place + 1] then
        reply[place], reply[place + 1], reply[place + 2] = most, remaining, slot.reset
      end
    end
  end
  if decision.has_gauges then gauge_acts.tell(nodes, charges, reply, acted) end
end

-- The reply of a decision: thirteen values, then eight for each charge.
local function reply_of(decision, charges, deadline_ms, hold_id)
  local first, balance, refusal, is_read = decision.first, decision.balance, decision.refusal, decision.purses
  if decision.acted and first and first.tariff[7] then balance = available(is_read[first.currency], first.feature) end
  local reply = {
    decision.reason, 0, refusal and refusal[1] or 0, refusal and refusal[2] or '', refusal and refusal[3] or '', decision.at,
    first and first.currency or '', decision.cost, balance, deadline_ms, hold_id, refusal and refusal[4] or 0, decision.would,
    nil, nil, nil, nil, nil, nil, nil, nil,
  }
  local n = 13
  for index = 1, #charges do
    local charge = charges[index]
    local entitlement = is_read and charge.entitlement
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = -1, -1, 0, charge.rated
    reply[n + 5] = entitlement and charge.kind == STATIC and entitlement[3] or ''
    reply[n + 6] = charge.currency == '-' and '' or charge.currency
    reply[n + 7], reply[n + 8] = entitlement and entitlement[6] or 0, entitlement and entitlement[9] or ''
    n = n + 8
  end
  if is_read then tell_limits(decision, charges, reply) end
  return reply
end
